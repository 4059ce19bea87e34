"""Fixtures: a fresh migrated database per test, seen as the application sees it, and a deployment on it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from integration.identity_database import Clock, Deployment, deploy

from gateway import embedded, migrations
from gateway.catalogue.service import load_shipped
from gateway.database import Database
from schemas.ids import uuid7

_TEMPLATE = "identity_template"


@pytest.fixture(scope="session")
def identity_server() -> Iterator[embedded.EmbeddedServer]:
    """One embedded PostgreSQL for the session, with a migrated database to copy."""
    folder = Path(tempfile.mkdtemp(prefix="siis-identity-"))
    server = embedded.start(folder)
    _create(server, f"CREATE DATABASE {_TEMPLATE} OWNER {embedded.OWNER}")
    migrations.upgrade(server.url(embedded.OWNER, _TEMPLATE))
    asyncio.run(_load_catalogue(server.url(embedded.OWNER, _TEMPLATE)))
    yield server
    embedded.stop(folder)
    shutil.rmtree(folder)


async def _load_catalogue(url: str) -> None:
    database = Database(url)
    async with database.transaction() as connection:
        await load_shipped(connection)
    await database.close()


def _create(server: embedded.EmbeddedServer, statement: str) -> None:
    with psycopg.connect(server.url(embedded.SUPERUSER, "postgres"), autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def identity_url(identity_server: embedded.EmbeddedServer) -> str:
    """Address of a new database, for the application's role."""
    name = f"t{uuid7().hex}"
    _create(identity_server, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} OWNER {embedded.OWNER}")
    return identity_server.url(embedded.APPLICATION, name)


@pytest.fixture
async def identity_database(identity_url: str) -> AsyncIterator[Database]:
    """The gateway's database object on a new database."""
    database = Database(identity_url)
    yield database
    await database.close()


@pytest.fixture
async def deployment(identity_database: Database, tmp_path: Path) -> AsyncIterator[Deployment]:
    """A running authorization server on a new database."""
    async with deploy(identity_database, Clock(), tmp_path) as running:
        yield running
