"""The counter behind SiisLogBroken, with a real log that is damaged, left alone, and mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import REGISTRY
from sqlalchemy import text

from audit.integrator import run
from audit.service import AuditLog
from tests.audit_writers import EPOCHS, SIGNER, an_entry, in_the_year, until
from tests.integration.audit_database import AuditDatabase, fresh_audit_database

_SIGNED = "SELECT coalesce(max(size), 0) FROM audit.checkpoint"


@asynccontextmanager
async def integrating(db: AuditDatabase, log: AuditLog) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(run(db.app, SIGNER, log, stop, 0.02, in_the_year))
    try:
        yield
    finally:
        stop.set()
        await task
        await log.close()


async def change(db: AuditDatabase, statement: str) -> None:
    async with db.admin.begin() as connection:
        await connection.execute(text(statement))


def counted() -> float:
    return REGISTRY.get_sample_value("siis_audit_log_broken_total") or 0.0


async def test_a_log_that_contradicts_itself_is_counted_for_as_long_as_it_does() -> None:
    async with fresh_audit_database() as db:
        log = AuditLog(db.app, EPOCHS, "gateway-1")

        async def signed(size: int) -> bool:
            async with db.app.connect() as connection:
                return bool(await connection.scalar(text(_SIGNED)) == size)

        async def complained(often: float) -> bool:
            return counted() >= often

        before = counted()
        async with integrating(db, log):
            await log.append_many([an_entry() for _ in range(3)])
            await until(lambda: signed(3))
            assert counted() == before
            # Nobody can write the tree but who owns it.
            await change(db, "UPDATE audit.tree SET size = 4")
            # Not once, but again and again: the alert must not fall silent by itself.
            await until(lambda: complained(before + 2))
            assert await signed(3)
            await change(db, "UPDATE audit.tree SET size = 3")
            await log.append(an_entry())
            await until(lambda: signed(4))
            mended = counted()
            await log.append(an_entry())
            await until(lambda: signed(5))
            assert counted() == mended
