"""Opens the driver's own connection: beside the pool, in autocommit, for work that must not wait for a free one."""

from __future__ import annotations

from typing import Any, cast

import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn

Driver = psycopg.AsyncConnection[tuple[Any, ...]]

# A database that hangs is a database that is down: no caller waits longer than this for a round trip's answer.
TIME_BUDGET_S = 10.0


async def driver_of(conn: AsyncConnection) -> Driver:
    """Return psycopg's connection under a SQLAlchemy connection."""
    raw = await conn.get_raw_connection()
    return cast("Driver", raw.driver_connection)


class OwnConnection:
    """One connection like the engine's, but never out of its pool; opened when first needed and after each failure.

    Callers may hold every pooled connection while they wait for us, so ours cannot be one of those.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._pool = engine.sync_engine.pool
        self._driver: Driver | None = None

    async def driver(self) -> Driver:
        """Return the connection, opening it if there is none; SQLAlchemy's and the driver's errors come through."""
        if self._driver is None:
            # A second pool of the same settings, for one connection, which is then taken away from it.
            proxy = await greenlet_spawn(self._pool.recreate().connect)
            driver = cast("Driver", proxy.driver_connection)
            proxy.detach()
            proxy.invalidate()
            await driver.set_autocommit(True)
            self._driver = driver
        return self._driver

    async def drop(self) -> None:
        """Close the connection, in whatever state it is."""
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close()
