"""Entries to fill a log with, and the little that every test of the log needs around them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.check import check_log
from audit.checkpoint import Signer
from audit.integrator import integrate_once
from audit.keys import Epochs
from audit.models import Entry, Report
from audit.service import AuditLog
from tests.audit_writers import own_slots
from tests.integration.audit_database import AuditDatabase

EPOCHS = Epochs(1, {1: bytes(range(32))})
LOG = 2026
SIGNER = Signer("siis.example/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def an_entry(number: int = 0, subject: UUID | None = None, **changes: Any) -> Entry:
    """Make an entry about a person (a new one if none is given)."""
    values: dict[str, Any] = {
        "at": datetime(2026, 10, 13, 14, 0, number // 1000 % 60, number % 1000, tzinfo=UTC),
        "type": "disclosure.permitted",
        "outcome": "permit",
        "policy_version": "2026.1",
        "subject": subject or uuid4(),
        "groups": {
            "actor": {"institution": "MDS", "user": f"operadora-{number}"},
            "why": {"purpose": "protection"},
            "what": {"dataset": "identity", "released": ["given_names"]},
        },
    }
    return Entry(**{**values, **changes})


def in_the_year(log: int = LOG) -> Callable[[], datetime]:
    """Return a clock that stands in the year of a log."""
    return lambda: datetime(log, 11, 2, 12, tzinfo=UTC)


async def integrate(engine: AsyncEngine, signer: Signer = SIGNER, year: int = LOG) -> int:
    """Number what waits and sign."""
    log = AuditLog(engine, EPOCHS, "integrator")
    async with engine.connect() as conn:
        done = await integrate_once(conn, signer, log, in_the_year(year))
    await log.close()
    return done


async def check(engine: AsyncEngine) -> Report:
    """Check the whole log."""
    async with engine.connect() as conn:
        return await check_log(conn, SIGNER)


async def scalar(engine: AsyncEngine, query: str) -> Any:
    """Ask the database one thing."""
    async with engine.connect() as conn:
        return (await conn.exec_driver_sql(query)).scalar_one()


async def run_sql(engine: AsyncEngine, *statements: str) -> None:
    """Change the database, all or nothing."""
    async with engine.begin() as conn:
        for statement in statements:
            await conn.exec_driver_sql(statement)


async def fill(db: AuditDatabase) -> None:
    """Write a log: 30 numbered entries by three writers in four groups, each with its checkpoint, and 6 waiting."""
    log = AuditLog(db.app, EPOCHS, "gateway-1")
    async with AsyncExitStack() as stack:
        one, two, three = await own_slots(stack, db.app, 3)
        for group in range(5):
            # Three transactions open at once hold three slots; the same connection comes back to the same one.
            for number, conn in enumerate((one, two, three)):
                for count in range(2 if group == 4 else number + 1 + group % 2):
                    await log.stage(conn, an_entry(group * 100 + number * 10 + count))
            for conn in (one, two, three):
                await conn.commit()
            if group < 4:
                await integrate(db.app)
    await log.close()
    report = await check(db.admin)
    assert report.ok
    assert (report.entries, report.pending, report.checkpoints) == (30, 6, 4)
    assert await scalar(db.admin, "SELECT count(*) FROM audit.writer WHERE counter > 0") == 3
