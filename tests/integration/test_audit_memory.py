"""A check of the log needs no more memory for a long log than for a short one."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from audit.check import check_log
from tests.audit_attacker import Checkpoints, Told, rewrite
from tests.audit_writers import SIGNER, YEAR, process
from tests.integration.audit_database import AuditDatabase, fresh_audit_database

# The short one too is several times what is read at once. A hash kept of each entry would show.
SHORT, LONG, ROOM_KB = 10_000, 80_000, 3_500


@pytest.fixture
async def db() -> AsyncIterator[AuditDatabase]:
    async with fresh_audit_database() as database:
        yield database


async def check_alone(url: str, told: Connection) -> None:
    """Check the log; tell how many entries it has, and the most memory this process ever had (kB)."""
    engine = create_async_engine(url)
    async with engine.connect() as conn:
        report = await check_log(conn, SIGNER)
    await engine.dispose()
    assert report.ok, report.problems[:3]
    told.send((report.entries, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


async def needed(db: AuditDatabase, size: int) -> int:
    """Fill the log with so many entries and return how much memory (kB) a process needs that checks it."""
    await rewrite(db, YEAR, [Told.made(number) for number in range(1, size + 1)], Checkpoints(signed=[size]), SIGNER)
    told, tell = Pipe(duplex=False)
    with told, tell, process(check_alone, db.app_url.render_as_string(hide_password=False), tell) as child:
        tell.close()
        entries, kilobytes = told.recv()
        child.join()
    assert entries == size
    return int(kilobytes)


async def test_memory_does_not_grow_with_the_log(db: AuditDatabase) -> None:
    async with db.admin.begin() as conn:
        await conn.execute(text("INSERT INTO audit.tree VALUES (:log, 0, '', 0)"), {"log": YEAR})
    short, long = await needed(db, SHORT), await needed(db, LONG)
    assert long < short + ROOM_KB
