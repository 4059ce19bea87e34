"""The log on a real PostgreSQL: what is committed is in it, what is not is not, and nobody may rewrite it."""

# ruff: noqa: S608 — the SQL of attacks is put together from constants of these tests

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from audit_examples import EPOCHS, LOG, SIGNER, an_entry, check, integrate, run_sql, scalar
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from audit.checkpoint import Signer
from audit.errors import AuditUnavailable, DuplicateEntry, LogBroken, SubjectErased
from audit.keys import Epochs
from audit.search import recent
from audit.service import AuditLog
from audit.tables import WRITER_SLOTS
from audit.verify import leaf_hash, open_signed
from schemas.errors import DecryptionError
from tests.integration.audit_database import AuditDatabase, fresh_audit_database


@pytest.fixture
async def db() -> AsyncIterator[AuditDatabase]:
    async with fresh_audit_database() as database:
        yield database


@pytest.fixture
async def log(db: AuditDatabase) -> AsyncIterator[AuditLog]:
    audit = AuditLog(db.app, EPOCHS, "gateway-1")
    yield audit
    await audit.close()


async def test_an_empty_log_is_in_order(db: AuditDatabase) -> None:
    assert await integrate(db.app) == 0
    report = await check(db.app)
    assert report.ok
    assert (report.entries, report.pending, report.checkpoints) == (0, 0, 0)


async def test_an_appended_entry_is_stored_as_its_receipt_says(db: AuditDatabase, log: AuditLog) -> None:
    entry = an_entry()
    receipt = await log.append(entry)
    async with db.app.connect() as conn:
        row = (await conn.execute(text("SELECT id, envelope, leaf_hash, pseudonym FROM audit.entry"))).one()
    assert (row.id, row.leaf_hash, row.pseudonym) == (entry.id, receipt.leaf_hash, receipt.pseudonym)
    assert leaf_hash(row.envelope) == receipt.leaf_hash
    assert receipt.entry_id == entry.id
    report = await check(db.app)
    assert (report.ok, report.entries, report.pending) == (True, 0, 1)


async def test_a_staged_entry_lives_and_dies_with_its_transaction(db: AuditDatabase, log: AuditLog) -> None:
    async with db.app.begin() as conn:
        kept = await log.stage(conn, an_entry())
    async with db.app.connect() as conn:
        await log.stage(conn, an_entry())
        await conn.rollback()
    assert await scalar(db.app, "SELECT array_agg(id) FROM audit.entry") == [kept.entry_id]
    assert await scalar(db.app, "SELECT max(counter) FROM audit.writer") == 1
    assert await integrate(db.app) == 1
    assert (await check(db.app)).ok


async def test_entries_staged_one_after_the_other_in_one_transaction_chain(db: AuditDatabase, log: AuditLog) -> None:
    async with db.app.begin() as conn:
        for number in range(5):
            await log.stage(conn, an_entry(number))
        async with conn.begin_nested() as savepoint:
            await log.stage(conn, an_entry(5))
            await savepoint.rollback()
        await log.stage(conn, an_entry(6))
    assert await integrate(db.app) == 6
    assert await scalar(db.app, "SELECT count(*) FROM audit.writer WHERE counter > 0") == 1
    assert (await check(db.app)).ok


async def test_more_transactions_than_slots_wait_for_each_other(db: AuditDatabase, log: AuditLog) -> None:
    count = WRITER_SLOTS + 4
    engine = create_async_engine(db.app_url, pool_size=count)
    await log.start()
    staged, release = asyncio.Semaphore(0), asyncio.Event()

    async def one() -> None:
        async with engine.begin() as conn:
            await log.stage(conn, an_entry())
            staged.release()
            await release.wait()

    tasks = [asyncio.create_task(one()) for _ in range(count)]
    for _ in range(WRITER_SLOTS):
        await staged.acquire()
    assert staged.locked()
    release.set()
    await asyncio.gather(*tasks)
    await engine.dispose()
    assert await integrate(db.app) == count
    assert await scalar(db.app, "SELECT count(*) FROM audit.writer WHERE counter > 0") == WRITER_SLOTS
    assert (await check(db.app)).ok


async def test_many_callers_and_both_ways_in_give_one_unbroken_log(db: AuditDatabase, log: AuditLog) -> None:
    other = AuditLog(db.app, EPOCHS, "gateway-2")
    subjects = [uuid4() for _ in range(7)]

    async def stage(number: int) -> None:
        async with db.app.begin() as conn:
            await log.stage(conn, an_entry(number, subjects[number % 7]))

    calls = [log.append(an_entry(n, subjects[n % 7])) for n in range(100)]
    calls += [other.append(an_entry(n, subjects[n % 7])) for n in range(100)]
    batch = other.append_many([an_entry(n, subjects[n % 7]) for n in range(50)])
    await asyncio.gather(*calls, batch, *(stage(n) for n in range(50)))
    await other.close()
    assert await integrate(db.app) == 300
    report = await check(db.app)
    assert report.ok
    assert (report.entries, report.pending, report.checkpoints) == (300, 0, 1)
    assert await scalar(db.app, "SELECT count(*) FROM audit.subject_key") == 8
    assert await scalar(db.app, "SELECT count(DISTINCT pseudonym) FROM audit.entry") == 7


async def test_entries_that_belong_together_keep_their_order(db: AuditDatabase, log: AuditLog) -> None:
    entries = [an_entry(number) for number in range(20)]
    receipts = await log.append_many(entries)
    assert await log.append_many([]) == []
    assert [receipt.entry_id for receipt in receipts] == [entry.id for entry in entries]
    await integrate(db.app)
    query = "SELECT array_agg(entry_id ORDER BY index) FROM audit.sequence"
    assert await scalar(db.app, query) == [entry.id for entry in entries]


async def test_a_duplicate_costs_nobody_else_an_entry(db: AuditDatabase, log: AuditLog) -> None:
    entry = an_entry()
    await log.append(entry)
    calls = [log.append(an_entry(n)) for n in range(10)]
    results = await asyncio.gather(*calls, log.append(entry), return_exceptions=True)
    assert isinstance(results[-1], DuplicateEntry)
    assert results[-1].entry_id == entry.id
    assert not any(isinstance(result, BaseException) for result in results[:-1])
    async with db.app.connect() as conn:
        with pytest.raises(DuplicateEntry):
            await log.stage(conn, entry)
    assert await integrate(db.app) == 11
    assert (await check(db.app)).ok


async def test_without_database_nothing_is_reported_as_logged_and_afterwards_it_goes_on(
    db: AuditDatabase, log: AuditLog
) -> None:
    subject = uuid4()
    await log.append(an_entry(0, subject))
    name = db.app_url.database
    await cut_off(db, name)
    results = await asyncio.gather(*(log.append(an_entry(n, subject)) for n in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {AuditUnavailable}
    with pytest.raises(AuditUnavailable):
        await log.append(an_entry())
    await let_in(db, name)
    receipt = await log.append(an_entry(99, subject))
    await integrate(db.app)
    report = await check(db.app)
    assert (report.ok, report.entries) == (True, 2)
    assert await scalar(db.app, f"SELECT count(*) FROM audit.entry WHERE id = '{receipt.entry_id}'") == 1


async def test_a_transaction_cut_off_after_staging_leaves_no_trace(db: AuditDatabase, log: AuditLog) -> None:
    async with db.app.connect() as conn:
        await log.stage(conn, an_entry())
        pid = (await conn.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await run_sql(db.admin, f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(AuditUnavailable):
            await log.stage(conn, an_entry())
        await conn.invalidate()
    await log.append(an_entry())
    assert await integrate(db.app) == 1
    assert (await check(db.app)).ok


async def test_a_database_that_is_blocked_is_given_up(
    db: AuditDatabase, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = uuid4()
    await log.append(an_entry(0, subject))
    async with db.admin.connect() as conn:
        await conn.execute(text("LOCK TABLE audit.writer IN ACCESS EXCLUSIVE MODE"))
        monkeypatch.setattr("audit.connection.TIME_BUDGET_S", 0.1)
        with pytest.raises(AuditUnavailable):
            await log.append(an_entry(1, subject))
        await conn.rollback()
    monkeypatch.undo()
    await log.append(an_entry(2, subject))
    assert await integrate(db.app) == 2
    assert (await check(db.app)).ok


async def test_a_server_process_that_answers_nothing_is_given_up(
    db: AuditDatabase, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = uuid4()
    await log.append(an_entry(0, subject))
    query = "SELECT array_agg(pid) FROM pg_stat_activity WHERE usename = 'siis_app' AND datname = current_database()"
    pids = await scalar(db.admin, query)
    monkeypatch.setattr("audit.connection.TIME_BUDGET_S", 0.1)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(AuditUnavailable):
            await log.append(an_entry(1, subject))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    await log.append(an_entry(2, subject))
    await integrate(db.app)
    assert (await check(db.app)).ok


async def test_a_closed_log_takes_nothing(log: AuditLog) -> None:
    waiting = [asyncio.create_task(log.append(an_entry(n))) for n in range(5)]
    await waiting[0]
    await log.close()
    assert len(await asyncio.gather(*waiting)) == 5
    with pytest.raises(AuditUnavailable):
        await log.append(an_entry())


async def test_details_are_read_back_newest_first(db: AuditDatabase, log: AuditLog) -> None:
    entries = [an_entry(0), an_entry(1, type="referral.created", outcome="done")]
    entries.append(an_entry(2, groups={"why": {"purpose": "log"}}, type="log.read"))
    await log.append_many(entries[:2])
    await integrate(db.app)
    await log.append_many(entries[2:])
    async with db.app.connect() as conn:
        found = await recent(conn, EPOCHS, 10)
        assert [item.entry_id for item in found] == [entry.id for entry in reversed(entries)]
        assert [item.index for item in found] == [None, 1, 0]
        assert [item.detail for item in found] == [dict(entry.groups) for entry in reversed(entries)]
        [one] = await recent(conn, EPOCHS, 10, type="referral.created")
        assert one.envelope["recorder"] == "gateway-1"
        assert [item.entry_id for item in await recent(conn, EPOCHS, 1, before=entries[2].id)] == [entries[1].id]
        with pytest.raises(DecryptionError):
            await recent(conn, Epochs(1, {1: os.urandom(32)}), 10)


async def test_entries_about_nobody_are_read_with_the_logs_own_key(db: AuditDatabase, log: AuditLog) -> None:
    entry = an_entry()
    about_nobody = type(entry)(at=entry.at, type="log.read", outcome="done", policy_version="1", groups=entry.groups)
    assert (await log.append(about_nobody)).pseudonym is None
    async with db.app.connect() as conn:
        [found] = await recent(conn, EPOCHS, 10)
    assert found.detail == dict(entry.groups)
    assert found.envelope["subject"] is None


async def test_a_destroyed_key_hides_the_detail_and_breaks_no_proof(db: AuditDatabase, log: AuditLog) -> None:
    subject = uuid4()
    await log.append(an_entry(0, subject))
    await integrate(db.app)
    await run_sql(db.admin, f"UPDATE audit.subject_key SET wrapped_key = NULL WHERE subject = '{subject}'")
    async with db.app.connect() as conn:
        [found] = await recent(conn, EPOCHS, 10)
    assert found.detail is None
    assert (await check(db.app)).ok
    fresh = AuditLog(db.app, EPOCHS, "gateway-2")
    with pytest.raises(SubjectErased):
        await fresh.append(an_entry(1, subject))
    await fresh.close()


async def test_another_key_encryption_key_cannot_write_about_known_subjects(db: AuditDatabase, log: AuditLog) -> None:
    subject = uuid4()
    await log.append(an_entry(0, subject))
    other = AuditLog(db.app, Epochs(1, {1: os.urandom(32)}), "gateway-2")
    with pytest.raises(AuditUnavailable):
        await other.append(an_entry(1, subject))
    await other.close()


async def test_a_key_survives_the_rollback_of_its_first_use(db: AuditDatabase, log: AuditLog) -> None:
    subject = uuid4()
    async with db.app.connect() as conn:
        await log.stage(conn, an_entry(0, subject))
        await conn.rollback()
    await log.append(an_entry(1, subject))
    async with db.app.connect() as conn:
        [found] = await recent(conn, EPOCHS, 10)
    assert found.detail is not None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit.entry SET outcome = 'deny'",
        "DELETE FROM audit.entry",
        "TRUNCATE audit.entry",
        "UPDATE audit.sequence SET index = index + 1",
        "DELETE FROM audit.sequence",
        "TRUNCATE audit.sequence",
        "UPDATE audit.checkpoint SET note = ''",
        "DELETE FROM audit.checkpoint",
        "TRUNCATE audit.checkpoint",
        "UPDATE audit.pending SET entry_id = gen_random_uuid()",
        "TRUNCATE audit.pending",
        "DELETE FROM audit.writer",
        "INSERT INTO audit.writer VALUES (99, 0, '')",
        "TRUNCATE audit.tree",
        "DELETE FROM audit.tree",
        "UPDATE audit.block SET terms = '{}'",
        "DROP TABLE audit.entry",
        "ALTER TABLE audit.entry DISABLE TRIGGER append_only",
    ],
)
async def test_the_application_cannot_rewrite_the_log(db: AuditDatabase, statement: str) -> None:
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner|append-only"):
        await run_sql(db.app, statement)


async def test_the_owner_of_the_tables_meets_the_triggers(db: AuditDatabase, log: AuditLog) -> None:
    await log.append(an_entry())
    await integrate(db.app)
    for table in ("entry", "sequence", "checkpoint", "pending", "writer", "tree"):
        await run_sql(db.admin, f"ALTER TABLE audit.{table} OWNER TO siis_app")
    for statement in ("UPDATE audit.entry SET outcome = 'deny'", "DELETE FROM audit.sequence", "TRUNCATE audit.tree"):
        with pytest.raises(ProgrammingError, match="append-only"):
            await run_sql(db.app, statement)
    assert (await check(db.app)).ok


async def test_a_checkpoint_is_signed_when_the_log_has_grown_and_only_then(db: AuditDatabase, log: AuditLog) -> None:
    for size in (3, 4, 9):
        while await scalar(db.app, "SELECT count(*) FROM audit.entry") < size:
            await log.append(an_entry())
        await integrate(db.app)
        await integrate(db.app)
    async with db.app.connect() as conn:
        rows = (await conn.execute(text("SELECT size, number, note, root FROM audit.checkpoint ORDER BY size"))).all()
    assert [(row.size, row.number) for row in rows] == [(3, 0), (4, 1), (9, 2)]
    for row in rows:
        said = open_signed(row.note, SIGNER.of(LOG).verifier)
        assert (said.size, said.root) == (row.size, row.root)
    report = await check(db.app)
    assert (report.ok, report.checkpoints, report.root) == (True, 3, rows[-1].root)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE audit.sequence SET leaf_hash = sha256('x') WHERE index = 2",
        "UPDATE audit.sequence SET leaf_hash = sha256('x') WHERE index = 4",
        "UPDATE audit.tree SET frontier = sha256('x')",
        "UPDATE audit.tree SET frontier = sha256('x') || sha256('y')",
        "UPDATE audit.tree SET checkpoints = 3",
        "UPDATE audit.tree SET size = 4, frontier = sha256('x')",
        "DELETE FROM audit.sequence WHERE index = 4",
        "DELETE FROM audit.checkpoint",
        "UPDATE audit.checkpoint SET root = sha256('x'), frontier = sha256('x') || sha256('y')",
        "UPDATE audit.checkpoint SET root = sha256('x')",
        "UPDATE audit.checkpoint SET frontier = ''",
        "UPDATE audit.checkpoint SET note = replace(note, '3', '4')",
        "DELETE FROM audit.entry WHERE id = (SELECT entry_id FROM audit.pending LIMIT 1)",
    ],
)
async def test_nothing_is_signed_that_the_last_checkpoint_is_no_prefix_of(
    db: AuditDatabase, log: AuditLog, damage: str
) -> None:
    await log.append_many([an_entry(n) for n in range(3)])
    await integrate(db.app)
    await log.append_many([an_entry(n) for n in range(3, 5)])
    with pytest.raises(LogBroken):
        await integrate(db.app, Signer(SIGNER.origin, Ed25519PrivateKey.generate()))
    await log.append(an_entry(5))
    await run_sql(db.admin, damage)
    before = await scalar(db.app, "SELECT count(*) FROM audit.checkpoint")
    if "pending" in damage or "index = 2" in damage:
        # Before the signed size, or never numbered: the signer cannot see it, the check does.
        await integrate(db.app)
    else:
        with pytest.raises(LogBroken):
            await integrate(db.app)
        assert await scalar(db.app, "SELECT count(*) FROM audit.checkpoint") == before
    assert not (await check(db.admin)).ok


async def cut_off(db: AuditDatabase, name: str | None) -> None:
    """Let nobody into the database and throw out who is in."""
    await db.admin.dispose()
    async with create_server_engine(db).connect() as conn:
        await conn.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await conn.exec_driver_sql(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
        )


async def let_in(db: AuditDatabase, name: str | None) -> None:
    async with create_server_engine(db).connect() as conn:
        await conn.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def create_server_engine(db: AuditDatabase) -> AsyncEngine:
    url = db.admin.url.set(database="postgres")
    return create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
