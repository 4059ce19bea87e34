"""Attacks that change several rows together, so that each row by itself looks right."""

# ruff: noqa: S608 — the SQL of attacks is put together from constants of these tests

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import orjson
import psycopg
import pytest
from audit_examples import EPOCHS, LOG, SIGNER, an_entry, check, fill, in_the_year, integrate, run_sql, scalar
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from audit.check import check_log
from audit.checkpoint import Signer, sign_checkpoint
from audit.connection import driver_of
from audit.findings import LIMIT
from audit.integrator import Integrator
from audit.merkle import Frontier
from audit.service import AuditLog
from audit.verify import leaf_hash
from schemas.canonical import canonical_json
from tests.audit_writers import own_slots
from tests.integration.audit_database import AuditDatabase, fresh_audit_database

# Two numbered entries of one writer, the earlier first, from different groups.
PAIR = """
SELECT array_agg(s.index ORDER BY s.index) FROM audit.sequence s JOIN audit.entry e ON e.id = s.entry_id
WHERE e.writer_slot = (SELECT max(writer_slot) FROM audit.entry)
"""
SWAP = [
    "UPDATE audit.sequence SET index = -1 WHERE index = {0}",
    "UPDATE audit.sequence SET index = {0} WHERE index = {1}",
    "UPDATE audit.sequence SET index = {1} WHERE index = -1",
]


@pytest.fixture
async def db() -> AsyncIterator[AuditDatabase]:
    async with fresh_audit_database() as database:
        await fill(database)
        yield database


async def entry_at(db: AuditDatabase, index: int) -> Any:
    return await scalar(db.admin, f"SELECT entry_id FROM audit.sequence WHERE index = {index}")


async def test_two_entries_of_one_writer_that_changed_places_are_named(db: AuditDatabase) -> None:
    numbers = await scalar(db.admin, PAIR)
    one, other = numbers[1], numbers[4]
    late = await entry_at(db, other)
    await run_sql(db.admin, *(step.format(one, other) for step in SWAP))
    report = await check(db.admin)
    assert (report.problems[0].kind, report.problems[0].index) == ("reordered", one)
    assert report.problems[0].entry_id == late
    assert "not_a_prefix" in {problem.kind for problem in report.problems}


async def test_two_entries_of_different_writers_that_changed_places_break_the_next_signed_root(
    db: AuditDatabase,
) -> None:
    query = "SELECT writer_slot FROM audit.sequence s JOIN audit.entry e ON e.id = s.entry_id WHERE index = {0}"
    slots = [await scalar(db.admin, query.format(index)) for index in range(6)]
    border = next(index for index in range(5) if slots[index] != slots[index + 1])
    await run_sql(db.admin, *(step.format(border, border + 1) for step in SWAP))
    report = await check(db.admin)
    assert (report.problems[0].kind, report.problems[0].index) == ("changed", border)
    assert ("not_a_prefix", 5) in [(problem.kind, problem.index) for problem in report.problems]


async def test_an_entry_numbered_twice_is_named(db: AuditDatabase) -> None:
    twice = await entry_at(db, 7)
    await run_sql(
        db.admin,
        "ALTER TABLE audit.sequence DROP CONSTRAINT sequence_entry_id_key",
        "INSERT INTO audit.sequence SELECT log, 30, entry_id, leaf_hash FROM audit.sequence WHERE index = 7",
        "UPDATE audit.tree SET size = 31",
    )
    report = await check(db.admin)
    assert ("duplicated", 30, twice) in [(p.kind, p.index, p.entry_id) for p in report.problems]


async def test_a_number_given_twice_is_named(db: AuditDatabase) -> None:
    await run_sql(
        db.admin,
        "ALTER TABLE audit.sequence DROP CONSTRAINT sequence_pkey",
        "ALTER TABLE audit.sequence DROP CONSTRAINT sequence_entry_id_key",
        "INSERT INTO audit.sequence SELECT * FROM audit.sequence WHERE index = 7",
    )
    report = await check(db.admin)
    assert (report.problems[0].kind, report.problems[0].index) == ("duplicated", 7)


async def test_a_waiting_entry_that_has_its_number_is_named(db: AuditDatabase) -> None:
    known = await entry_at(db, 3)
    await run_sql(db.admin, f"INSERT INTO audit.pending VALUES ('{known}')")
    report = await check(db.admin)
    assert [(p.kind, p.index, p.entry_id) for p in report.problems] == [("duplicated", 3, known)]
    assert await integrate(db.app) == 6
    assert not (await check(db.admin)).ok


@pytest.mark.parametrize("waiting", [True, False])
async def test_an_entry_from_outside_is_foreign(db: AuditDatabase, waiting: bool) -> None:
    """A forged entry, right in itself, hung behind the last of a writer that never counted it."""
    async with db.admin.connect() as conn:
        row = (await conn.execute(text("SELECT * FROM audit.entry WHERE writer_counter = 1 LIMIT 1"))).one()
    forged = uuid4()
    said = orjson.loads(row.envelope)
    said["id"] = str(forged)
    envelope = canonical_json(said)
    statements = [
        f"""
        INSERT INTO audit.entry
        SELECT '{forged}', '\\x{envelope.hex()}', '\\x{leaf_hash(envelope).hex()}', detail, type, outcome,
            at, pseudonym, writer_slot, writer_counter, terms FROM audit.entry WHERE id = '{row.id}'
        """
    ]
    if waiting:
        statements.append(f"INSERT INTO audit.pending VALUES ('{forged}')")
    await run_sql(db.admin, *statements)
    report = await check(db.admin)
    assert [(p.kind, p.index, p.entry_id) for p in report.problems] == [("foreign", None, forged)]


async def test_an_entry_rewritten_with_all_its_hashes_is_named_by_its_successor(db: AuditDatabase) -> None:
    index = (await scalar(db.admin, PAIR))[2]
    entry_id = await entry_at(db, index)
    async with db.admin.connect() as conn:
        data = (await conn.execute(text("SELECT envelope FROM audit.entry WHERE id = :id"), {"id": entry_id})).scalar()
    envelope = canonical_json({**orjson.loads(data), "outcome": "deny"})
    leaf = leaf_hash(envelope).hex()
    await run_sql(
        db.admin,
        f"UPDATE audit.entry SET envelope = '\\x{envelope.hex()}', leaf_hash = '\\x{leaf}', outcome = 'deny'"
        f" WHERE id = '{entry_id}'",
        f"UPDATE audit.sequence SET leaf_hash = '\\x{leaf}' WHERE index = {index}",
    )
    report = await check(db.admin)
    first = report.problems[0]
    assert (first.kind, first.index, first.entry_id) == ("changed", index, entry_id)
    assert "not_a_prefix" in {problem.kind for problem in report.problems}


async def test_an_entry_cut_out_and_the_rest_moved_up_is_missed(db: AuditDatabase) -> None:
    index = (await scalar(db.admin, PAIR))[2]
    entry_id = await entry_at(db, index)
    await run_sql(
        db.admin,
        f"DELETE FROM audit.sequence WHERE index = {index}",
        f"DELETE FROM audit.entry WHERE id = '{entry_id}'",
        f"UPDATE audit.sequence SET index = -index WHERE index > {index}",
        "UPDATE audit.sequence SET index = -index - 1 WHERE index < 0",
        "UPDATE audit.tree SET size = size - 1",
    )
    report = await check(db.admin)
    assert {"missing", "not_a_prefix"} <= {problem.kind for problem in report.problems}
    assert report.problems[0].index is not None
    assert report.problems[0].index >= index


async def test_a_waiting_entry_removed_with_its_row_is_missed_by_its_writer(db: AuditDatabase) -> None:
    last = await scalar(db.admin, "SELECT id FROM audit.entry ORDER BY writer_slot DESC, writer_counter DESC LIMIT 1")
    await run_sql(
        db.admin, f"DELETE FROM audit.pending WHERE entry_id = '{last}'", f"DELETE FROM audit.entry WHERE id = '{last}'"
    )
    report = await check(db.admin)
    assert [problem.kind for problem in report.problems] == ["missing"]


async def test_a_waiting_entry_removed_is_named_and_not_the_numbered_one_before_it(db: AuditDatabase) -> None:
    log, entry = AuditLog(db.app, EPOCHS, "gateway-1"), an_entry(900)
    async with AsyncExitStack() as stack:
        (conn,) = await own_slots(stack, db.app, 1)
        await log.stage(conn, an_entry(899))
        await conn.commit()
        await integrate(db.app)
        await log.stage(conn, entry)
        await conn.commit()
    await log.close()
    await run_sql(db.admin, f"DELETE FROM audit.entry WHERE id = '{entry.id}'")
    first = (await check(db.admin)).problems[0]
    assert (first.kind, first.entry_id) == ("missing", entry.id)


async def test_a_log_cut_off_at_an_earlier_checkpoint_is_missed_by_the_writers(db: AuditDatabase) -> None:
    async with db.admin.connect() as conn:
        size, frontier = (
            await conn.execute(text("SELECT size, frontier FROM audit.checkpoint WHERE number = 1"))
        ).one()
    await run_sql(
        db.admin,
        f"DELETE FROM audit.entry WHERE id NOT IN (SELECT entry_id FROM audit.sequence WHERE index < {size})",
        f"DELETE FROM audit.sequence WHERE index >= {size}",
        "DELETE FROM audit.checkpoint WHERE number > 1",
        "DELETE FROM audit.pending",
        f"UPDATE audit.tree SET size = {size}, frontier = '\\x{frontier.hex()}', checkpoints = 2",
    )
    report = await check(db.admin)
    assert {problem.kind for problem in report.problems} == {"missing"}


async def test_checkpoints_signed_by_somebody_else_do_not_count(db: AuditDatabase) -> None:
    stranger = Signer(SIGNER.of(LOG).origin, Ed25519PrivateKey.generate())
    async with db.admin.connect() as conn:
        size, data = (await conn.execute(text("SELECT size, frontier FROM audit.checkpoint WHERE number = 3"))).one()
    note = sign_checkpoint(stranger, size, Frontier(size, data).root())
    async with db.admin.begin() as conn:
        await conn.execute(text("UPDATE audit.checkpoint SET note = :note WHERE number = 3"), {"note": note})
    report = await check(db.admin)
    assert [(problem.kind, problem.index) for problem in report.problems] == [("signature", size - 1)]


async def test_a_checkpoint_of_a_size_the_log_never_had_shows_that_it_was_cut(db: AuditDatabase) -> None:
    note = sign_checkpoint(SIGNER.of(LOG), 40, bytes(32))
    async with db.admin.begin() as conn:
        query = (
            "INSERT INTO audit.checkpoint SELECT log, 40, 4, :note, :root, frontier, at FROM audit.checkpoint LIMIT 1"
        )
        await conn.execute(text(query), {"note": note, "root": bytes(32)})
        await conn.execute(text("UPDATE audit.tree SET checkpoints = 5"))
    report = await check(db.admin)
    assert [(problem.kind, problem.index) for problem in report.problems] == [("missing", 30)]


@pytest.mark.parametrize("table", ["entry", "sequence"])
async def test_a_wiped_table_gives_a_report_of_bounded_length(db: AuditDatabase, table: str) -> None:
    log = AuditLog(db.app, EPOCHS, "gateway-1")
    await log.append_many([an_entry(number) for number in range(300)])
    await log.close()
    await integrate(db.app)
    await run_sql(db.admin, f"TRUNCATE audit.{table}")
    report = await check(db.admin)
    assert 1 <= len(report.problems) <= LIMIT
    assert report.problems[0].index == 0
    assert report.problems[0].kind == "missing"


async def test_a_wiped_log_is_not_taken_for_a_new_one(db: AuditDatabase) -> None:
    await run_sql(db.admin, *(f"TRUNCATE audit.{table}" for table in ("entry", "sequence", "pending", "checkpoint")))
    assert not (await check(db.admin)).ok


async def test_entries_written_during_a_check_do_not_disturb_it(db: AuditDatabase) -> None:
    log = AuditLog(db.app, EPOCHS, "gateway-1")
    seen: list[tuple[int, int]] = []

    async with db.app.connect() as conn:
        await log.append_many([an_entry(number) for number in range(50)])
        await integrate(db.app)
        await log.append_many([an_entry(number) for number in range(50)])
        report = await check_log(conn, SIGNER, lambda done, total: seen.append((done, total)))
    await log.close()
    assert report.ok
    assert (report.entries, report.pending) == (86, 50)
    assert seen[-1] == (86, 86)


async def test_what_is_committed_during_the_last_look_does_not_count(db: AuditDatabase) -> None:
    url = db.admin.url.set(drivername="postgresql").render_as_string(hide_password=False)
    async with db.app.connect() as conn:
        driver = await driver_of(conn)
        log = AuditLog(db.app, EPOCHS, "integrator")
        await Integrator(driver, SIGNER, log, in_the_year()).number_all()

    def meddle(done: int, total: int) -> None:
        if done == 36:
            with psycopg.connect(url) as other:
                other.execute("UPDATE audit.writer SET counter = counter + 1")

    async with db.app.connect() as conn:
        report = await check_log(conn, SIGNER, meddle)
    assert (report.ok, report.entries, report.pending) == (True, 36, 0)
    assert not (await check(db.admin)).ok


async def test_a_check_inside_a_transaction_is_refused(db: AuditDatabase) -> None:
    async with db.app.begin() as conn:
        await conn.execute(text("SELECT 1"))
        with pytest.raises(ValueError, match="transaction"):
            await check_log(conn, SIGNER)
