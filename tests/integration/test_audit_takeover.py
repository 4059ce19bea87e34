"""An integrator killed in the middle of its work: another takes over, and nothing is lost, doubled or out of order."""

# ruff: noqa: S608 — the SQL is put together from numbers of these tests

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from audit_examples import EPOCHS, SIGNER, an_entry, check, in_the_year, run_sql, scalar
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from audit.integrator import CHECKPOINT_EVERY_S, run
from audit.service import AuditLog
from tests.integration.audit_database import AuditDatabase, fresh_audit_database

DEADLINE_S = 60
PROCESS = """
import asyncio, json, sys
import audit.integrator
from pathlib import Path
from sqlalchemy.ext.asyncio import create_async_engine
from audit.checkpoint import Signer
from audit.integrator import run
from audit.keys import Epochs, load_or_create_signing_key
from audit.service import AuditLog

async def main(url, origin, path):
    audit.integrator.GROUP = 50  # many small steps, so that a kill comes between or within them
    engine, signer = create_async_engine(url), Signer(origin, load_or_create_signing_key(Path(path)))
    await run(engine, signer, AuditLog(engine, Epochs(1, {1: bytes(range(32))}), "process"), asyncio.Event(), 0.02)

asyncio.run(main(**json.loads(sys.argv[1])))
"""


@pytest.fixture
async def db() -> AsyncIterator[AuditDatabase]:
    async with fresh_audit_database() as database:
        yield database


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "log.pem"
    path.touch(0o600)
    path.write_bytes(SIGNER.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@asynccontextmanager
async def integrator_process(db: AuditDatabase, key_file: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an integrator in a process of its own; whatever happens, it does not outlive the test."""
    url = db.app_url.render_as_string(hide_password=False)
    settings = json.dumps({"url": url, "origin": SIGNER.origin, "path": str(key_file)})
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, settings, stdout=-3)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until the condition holds; the deadline only ends a test that would never end."""
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 — another process gives no event to wait for
            await asyncio.sleep(0.01)


async def numbered(db: AuditDatabase) -> int:
    return int(await scalar(db.admin, "SELECT count(*) FROM audit.sequence"))


async def test_killed_integrators_lose_nothing(db: AuditDatabase, key_file: Path) -> None:
    logs = [AuditLog(db.app, EPOCHS, f"gateway-{number}") for number in range(3)]
    subjects = [uuid4() for _ in range(50)]
    entries = [[an_entry(number, subjects[number % 50]) for number in range(500)] for _ in range(3 * 4)]
    await asyncio.gather(*(logs[n % 3].append_many(group) for n, group in enumerate(entries)))
    total = sum(map(len, entries))
    for kill in range(2):
        before = await numbered(db)

        async def moved(before: int = before) -> bool:
            return await numbered(db) > before

        async with integrator_process(db, key_file) as process:
            await until(moved)
            process.send_signal(signal.SIGKILL)
            assert await process.wait() == -signal.SIGKILL
        assert before < await numbered(db) < total
        await logs[kill].append(an_entry(kill, subjects[0]))
        total += 1
    async with integrator_process(db, key_file):

        async def signed() -> bool:
            return bool(await scalar(db.admin, f"SELECT count(*) FROM audit.checkpoint WHERE size = {total}"))

        await until(signed)
    for log in logs:
        await log.close()
    report = await check(db.admin)
    assert (report.ok, report.entries, report.pending) == (True, total, 0)
    assert await scalar(db.admin, "SELECT max(index) FROM audit.sequence") == total - 1


async def test_the_waiting_integrator_takes_over_from_a_killed_one(db: AuditDatabase, key_file: Path) -> None:
    log = AuditLog(db.app, EPOCHS, "gateway-1")
    stop = asyncio.Event()

    async def all_numbered() -> bool:
        return await scalar(db.admin, "SELECT count(*) FROM audit.pending") == 0

    async with integrator_process(db, key_file) as process:
        await log.append(an_entry(0))
        await until(all_numbered)
        waiting = asyncio.create_task(run(db.app, SIGNER, log, stop, 0.02, in_the_year()))
        await log.append(an_entry(1))
        await until(all_numbered)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    await log.append(an_entry(2))
    await until(all_numbered)
    stop.set()
    await waiting
    await log.close()
    report = await check(db.admin)
    assert (report.ok, report.entries, report.pending) == (True, 3, 0)


async def test_a_silent_integrator_is_cut_off(
    db: AuditDatabase, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is stopped, not dead: connection and lock live on, and nothing would be numbered any more."""
    monkeypatch.setattr("audit.integrator.SILENT_S", 0.5)
    log, stop = AuditLog(db.app, EPOCHS, "gateway-1"), asyncio.Event()

    async def all_numbered() -> bool:
        return await scalar(db.admin, "SELECT count(*) FROM audit.pending") == 0

    async with integrator_process(db, key_file) as process:
        await log.append(an_entry(0))
        await until(all_numbered)
        process.send_signal(signal.SIGSTOP)
        waiting = asyncio.create_task(run(db.app, SIGNER, log, stop, 0.02, in_the_year()))
        await log.append(an_entry(1))
        await until(all_numbered)
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    stop.set()
    await waiting
    await log.close()
    report = await check(db.admin)
    assert (report.ok, report.entries, report.pending) == (True, 2, 0)


async def test_one_integrates_while_others_wait_and_a_stop_finishes_the_work(db: AuditDatabase) -> None:
    log, stop = AuditLog(db.app, EPOCHS, "gateway-1"), asyncio.Event()
    running = [asyncio.create_task(run(db.app, SIGNER, log, stop, 0.01, in_the_year())) for _ in range(3)]

    async def one_holds_the_lock() -> bool:
        return bool(await scalar(db.admin, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"))

    await until(one_holds_the_lock)
    await asyncio.gather(*(log.append(an_entry(number)) for number in range(200)))
    assert await scalar(db.admin, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 1
    stop.set()
    await asyncio.gather(*running)
    await log.close()
    assert await scalar(db.admin, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    report = await check(db.admin)
    assert (report.ok, report.entries, report.pending) == (True, 200, 0)
    assert await scalar(db.admin, "SELECT max(size) FROM audit.checkpoint") == 200


async def test_an_integrator_goes_on_when_its_connection_was_cut(
    db: AuditDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit.integrator.CHECKPOINT_EVERY_S", CHECKPOINT_EVERY_S / 20)
    log, stop = AuditLog(db.app, EPOCHS, "gateway-1"), asyncio.Event()
    running = asyncio.create_task(run(db.app, SIGNER, log, stop, 0.01, in_the_year()))
    for number in range(3):
        await log.append(an_entry(number))

        async def done(size: int = number + 1) -> bool:
            return await scalar(db.admin, "SELECT coalesce(max(size), 0) FROM audit.checkpoint") == size

        await until(done)
        await run_sql(
            db.admin, "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        )
    stop.set()
    await running
    await log.close()
    report = await check(db.admin)
    assert (report.ok, report.entries, report.checkpoints) == (True, 3, 3)


async def test_a_broken_log_is_numbered_on_but_not_signed_until_it_is_mended(
    db: AuditDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit.integrator.CHECKPOINT_EVERY_S", CHECKPOINT_EVERY_S / 20)
    log, stop = AuditLog(db.app, EPOCHS, "gateway-1"), asyncio.Event()
    running = asyncio.create_task(run(db.app, SIGNER, log, stop, 0.01, in_the_year()))

    async def signed(size: int) -> bool:
        return await scalar(db.admin, "SELECT coalesce(max(size), 0) FROM audit.checkpoint") == size

    await log.append(an_entry(0))
    await until(lambda: signed(1))
    await run_sql(db.admin, "UPDATE audit.checkpoint SET root = sha256(root)")
    await log.append(an_entry(1))

    async def second() -> bool:
        return await numbered(db) == 2

    await until(second)
    await log.append(an_entry(2))

    async def third() -> bool:
        return await numbered(db) == 3

    await until(third)
    assert await signed(1)
    note = await scalar(db.admin, "SELECT note FROM audit.checkpoint")
    root = note.split("\n")[2]
    await run_sql(db.admin, f"UPDATE audit.checkpoint SET root = decode('{root}', 'base64')")
    await until(lambda: signed(3))
    stop.set()
    await running
    await log.close()
    assert (await check(db.admin)).ok
