"""One house for all journeys of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.house import House, build


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A running house; its database is kept until the last test of the folder is done."""
    built = await build(tmp_path_factory.mktemp("house"))
    yield built
    await asyncio.shield(built.close())
