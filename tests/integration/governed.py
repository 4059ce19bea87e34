"""A migrated database as the application's role sees it, and institutions that no other test uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import Actor
from consent.roles import grant_role
from gateway import embedded, migrations
from gateway.database import Database
from schemas.ids import uuid7

AT = datetime(2026, 6, 1, 15, 0, tzinfo=UTC)
MACHINE = Actor(institution=None, user="uid:0")


@contextmanager
def migrated(folder: Path) -> Iterator[str]:
    """Run a server in a folder and give the address of its database, migrated, for the application."""
    server = embedded.start(folder)
    migrations.upgrade(server.url(embedded.OWNER))
    yield server.url(embedded.APPLICATION)
    embedded.stop(folder)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Open the database as the gateway does."""
    database = Database(url)
    yield database
    await database.close()


def new_institution() -> str:
    """Return a code that no other test uses: the tests share one database."""
    return f"T{uuid7().hex[-12:].upper()}"


async def hold(connection: AsyncConnection, institution: str, user: str, role: str, at: datetime = AT) -> Actor:
    """Let the machine grant a role; return its holder."""
    await grant_role(connection, MACHINE, institution=institution, user=user, role=role, valid_to=None, at=at)
    return Actor(institution=institution, user=user)
