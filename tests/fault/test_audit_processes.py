"""Eight processes write at once while who numbers is killed every second: every entry is there, once, in one order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import pytest

from audit.check import check_log
from audit.integrator import run
from audit.merkle import root_of
from audit.service import AuditLog
from audit.verify import leaf_hash, open_signed
from tests.audit_writers import (
    APPENDING,
    BUSINESS,
    EPOCHS,
    SIGNER,
    STAGING,
    YEAR,
    in_the_year,
    kill,
    number_on,
    process,
    told_by,
    until,
    write_on,
)
from tests.integration.audit_database import AuditDatabase, fresh_audit_database

WRITERS, KILLS = 8, 8
STORED = """
SELECT s.index, s.entry_id, s.leaf_hash, e.envelope
FROM audit.sequence AS s LEFT JOIN audit.entry AS e ON e.id = s.entry_id ORDER BY s.index
"""


@pytest.fixture
async def db() -> AsyncIterator[AuditDatabase]:
    async with fresh_audit_database() as database:
        async with database.admin.begin() as conn:
            for statement in BUSINESS:
                await conn.exec_driver_sql(statement)
        yield database


async def numbered(db: AuditDatabase) -> int:
    async with db.admin.connect() as conn:
        return int((await conn.exec_driver_sql("SELECT coalesce(max(index) + 1, 0) FROM audit.sequence")).scalar_one())


async def test_eight_writers_and_an_integrator_killed_every_second_lose_nothing(
    db: AuditDatabase, tmp_path: Path
) -> None:
    url = db.app_url.render_as_string(hide_password=False)
    stop, told = tmp_path / "stop", [tmp_path / f"told-{number}" for number in range(WRITERS)]
    reached = [0]
    with ExitStack() as stack:
        writers = [
            stack.enter_context(process(write_on, url, way, str(path), str(stop), 5))
            for path, way in zip(told, [STAGING, APPENDING] * (WRITERS // 2), strict=True)
        ]
        for _ in range(KILLS):
            with process(number_on, url, YEAR) as integrator:

                async def working(before: int = reached[-1]) -> bool:
                    return await numbered(db) > before

                await until(working)
                await asyncio.sleep(1)
                kill(integrator)
            reached.append(await numbered(db))
        stop.touch()
        for writer in writers:
            await asyncio.to_thread(writer.join)
            assert writer.exitcode == 0
    assert reached == sorted(set(reached)), "each integrator numbered entries before it was killed"
    acknowledged, rolled_back = _told(told)
    await _finish(db)

    async with db.admin.connect() as conn:
        rows = (await conn.exec_driver_sql(STORED)).all()
        business = set((await conn.exec_driver_sql("SELECT id FROM public.business")).scalars())
        head = await conn.exec_driver_sql("SELECT note FROM audit.checkpoint ORDER BY size DESC LIMIT 1")
        signed = open_signed(head.scalar_one(), SIGNER.of(YEAR).verifier)
    checked = await _check(db)
    assert [row.index for row in rows] == list(range(len(rows)))
    # All acknowledged, none twice, and nothing besides: a writer that ends by itself was told of all it wrote.
    assert {row.entry_id: bytes(row.leaf_hash) for row in rows} == acknowledged
    assert len({row.entry_id for row in rows}) == len(rows)
    assert rolled_back
    assert business < acknowledged.keys()
    root = root_of(leaf_hash(bytes(row.envelope)) for row in rows)
    assert (signed.size, signed.root) == (len(rows), root) == (checked, root)


def _told(files: list[Path]) -> tuple[dict[UUID, bytes], set[UUID]]:
    acknowledged: dict[UUID, bytes] = {}
    rolled_back: set[UUID] = set()
    for file in files:
        receipts, ids = told_by(file)
        assert receipts
        acknowledged |= receipts
        rolled_back |= ids
    return acknowledged, rolled_back


async def _finish(db: AuditDatabase) -> None:
    """Number and sign what is left: an integrator that is told to stop signs first."""
    stop, log = asyncio.Event(), AuditLog(db.app, EPOCHS, "integrator")

    async def nothing_waits() -> bool:
        async with db.admin.connect() as conn:
            return not (await conn.exec_driver_sql("SELECT count(*) FROM audit.pending")).scalar_one()

    work = asyncio.create_task(run(db.app, SIGNER, log, stop, 0.02, in_the_year))
    await until(nothing_waits)
    stop.set()
    await work
    await log.close()


async def _check(db: AuditDatabase) -> int:
    async with db.admin.connect() as conn:
        report = await check_log(conn, SIGNER)
    assert (report.problems, report.pending) == ((), 0)
    return report.entries
