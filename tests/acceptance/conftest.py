"""One house for all journeys of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio

from tests.house import House, build


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(folders: Callable[[str], Path]) -> AsyncIterator[House]:
    """A running house; its database is kept until the last test of the folder is done."""
    built = await build(folders("house"))
    yield built
    await asyncio.shield(built.close())
