"""The database of the gateway: one engine per process, transactions handed down to whoever writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import JSON, ClauseElement, MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.compiler import SQLCompiler

from audit.connection import driver_of
from gateway import embedded
from gateway.settings import Settings

metadata = MetaData(schema="siis")
_DIALECT = create_async_engine("postgresql+psycopg://").dialect

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
    return await driver_of(connection)


class Prepared:
    """A statement of the hot paths: compiled once, run on the driver in the caller's transaction.

    SQLAlchemy's own execution takes several times as long as the database needs for one row. Errors are the driver's
    (``psycopg.Error``); values of JSON columns are given as Python has them.
    """

    __slots__ = ("_fixed", "_json", "_text")

    def __init__(self, statement: ClauseElement, columns: Iterable[str] | None = None) -> None:
        """``columns``: those that an INSERT or UPDATE without values of its own is given."""
        keys = None if columns is None else list(columns)
        compiled = cast("SQLCompiler", statement.compile(dialect=_DIALECT, column_keys=keys))
        self._text = str(compiled)
        self._json = frozenset(name for name, bind in compiled.binds.items() if isinstance(bind.type, JSON))
        self._fixed = self._given({name: value for name, value in compiled.params.items() if value is not None})

    def _given(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: Jsonb(value) if name in self._json else value for name, value in values.items()}

    async def run(self, connection: AsyncConnection, values: Mapping[str, Any]) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        """Run it with the values of its parameters and return the cursor."""
        if not connection.in_transaction():
            # Otherwise its commit would know of nothing to commit.
            await connection.begin()
        driver = await driver_connection(connection)
        return await driver.execute(self._text, {**self._fixed, **self._given(values)}, prepare=True, binary=True)


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
