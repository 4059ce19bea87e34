"""The office of requests and the desk of referrals: a database of its own for each module that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from referral_desk import Desk, open_desk, prepare
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


@pytest.fixture(scope="module")
def prepared(folders: Callable[[str], Path]) -> Iterator[Settings]:
    """A database with the demonstration's contents and nobody in it, for tests of referrals."""
    chosen = load_settings(data_dir=folders("referrals") / "data")
    prepare(chosen)
    yield chosen
    embedded.stop(chosen.data_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(prepared: Settings) -> AsyncIterator[Desk]:
    async with open_desk(prepared) as opened:
        yield opened
