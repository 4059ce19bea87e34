"""The office of requests, erasures and reports: a database of its own for each module, opened for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from rights_office import Office, open_office

from gateway import embedded
from gateway.cli.db import bring_up
from gateway.database import Database, owner_url
from gateway.settings import Settings, load_settings


@pytest.fixture(scope="module")
def settings(folders: Callable[[str], Path]) -> Iterator[Settings]:
    """Settings of a migrated database with the demonstration's agreements."""
    chosen = load_settings(data_dir=folders("office") / "data")
    bring_up(chosen, demonstration=True)
    yield chosen
    embedded.stop(chosen.data_dir)


@pytest_asyncio.fixture
async def office(settings: Settings) -> AsyncIterator[Office]:
    """Open the office over it."""
    async with open_office(settings) as opened:
        yield opened


@pytest_asyncio.fixture
async def owner(settings: Settings) -> AsyncIterator[Database]:
    """Open its database as the role that owns the tables."""
    database = Database(owner_url(settings), pool_size=3)
    yield database
    await database.close()
