"""The database of the gateway: one engine per process, transactions handed down to whoever writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway import embedded
from gateway.settings import Settings

metadata = MetaData(schema="siis")

# Queries of the job library name its tables without a schema; ours always name theirs.
CONNECT_OPTIONS = "-c search_path=jobs -c timezone=UTC"


class Database:
    """The application's connection pool on one PostgreSQL."""

    def __init__(self, url: str, *, pool_size: int = 12) -> None:
        """Prepare the engine for ``url`` (libpq form); connects on first use."""
        self.url = url
        self.engine: AsyncEngine = create_async_engine(
            sqlalchemy_url(url),
            pool_size=pool_size,
            max_overflow=4,
            pool_timeout=10,
            pool_pre_ping=False,
            connect_args={"options": CONNECT_OPTIONS, "connect_timeout": 5},
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction: committed at the end of the block, rolled back by any exception."""
        async with self.engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for reading."""
        async with self.engine.connect() as connection:
            yield connection

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


async def driver_connection(connection: AsyncConnection) -> psycopg.AsyncConnection[tuple[object, ...]]:
    """Return psycopg's connection under an SQLAlchemy one, for COPY and for jobs deferred in the same transaction."""
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)
    return driver


def sqlalchemy_url(url: str) -> str:
    """Return a libpq address in SQLAlchemy's spelling."""
    return "postgresql+psycopg://" + url.split("://", 1)[1]


def application_url(settings: Settings) -> str:
    """Return the address of the application role; starts the embedded server if it is the one in use."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return embedded.start(settings.data_dir).url(embedded.APPLICATION)


def owner_url(settings: Settings) -> str:
    """Return the address of the role that owns the tables, for migrations."""
    if settings.database_owner_url is not None:
        return settings.database_owner_url.get_secret_value()
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return embedded.start(settings.data_dir).url(embedded.OWNER)
