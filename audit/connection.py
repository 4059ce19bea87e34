"""Opens the driver's own connection: beside the pool, in autocommit, for work that must not wait for a free one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn

Driver = psycopg.AsyncConnection[tuple[Any, ...]]

T = TypeVar("T")

# A database that hangs is a database that is down: no caller waits longer than this for a round trip's answer.
TIME_BUDGET_S = 10.0


async def driver_of(conn: AsyncConnection) -> Driver:
    """Return psycopg's connection under a SQLAlchemy connection."""
    # Asked of SQLAlchemy's own call it would cost a greenlet, half as much as a statement.
    driver = conn.sync_connection.connection.driver_connection if conn.sync_connection else None
    return cast("Driver", driver)


async def within_budget(work: Coroutine[Any, Any, T]) -> T:
    """Do some work on the driver, raising :class:`TimeoutError` when it takes longer than :data:`TIME_BUDGET_S`."""
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=TIME_BUDGET_S)
        if not done:
            raise TimeoutError
        return task.result()
    finally:
        # The driver meets a first cancellation by asking the server to stop, and waits for it: so insist.
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.1)


class OwnConnection:
    """One connection like the engine's, but never out of its pool; opened when first needed and after each failure.

    Callers may hold every pooled connection while they wait for us, so ours cannot be one of those.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._pool = engine.sync_engine.pool
        self._driver: Driver | None = None

    async def __aenter__(self) -> Driver:
        """Lend the connection, opening it if there is none; SQLAlchemy's and the driver's errors come through."""
        if self._driver is None:
            self._driver = await within_budget(self._connect())
        return self._driver

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Close a connection that something went wrong on: nobody knows what state its transaction is in."""
        if kind is not None:
            await self.drop()

    async def drop(self) -> None:
        """Close the connection, in whatever state it is."""
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close()

    async def _connect(self) -> Driver:
        # A second pool of the same settings, for one connection, which is then taken away from it.
        proxy = await greenlet_spawn(self._pool.recreate().connect)
        driver = cast("Driver", proxy.driver_connection)
        proxy.detach()
        proxy.invalidate()
        await driver.set_autocommit(True)
        return driver
