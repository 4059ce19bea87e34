"""The tree in tiles: proofs of every place hold, the check sees each altered tile and block, and years follow on."""

# ruff: noqa: S608 — the SQL of attacks is put together from constants of these tests

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import orjson
import pytest
from audit_examples import EPOCHS, LOG, SIGNER, an_entry, check, integrate, run_sql, scalar
from sqlalchemy import text

from audit.checkpoint import sign_checkpoint
from audit.merkle import Frontier, root_of
from audit.proofs import logs, prove, signed_head
from audit.service import AuditLog
from audit.tiles import Edge, TileReader
from audit.verify import open_signed, verify_consistency, verify_inclusion
from tests.integration.audit_database import AuditDatabase, fresh_audit_database

# Three levels of tiles, each with a growing end.
LARGE = 256 * 256 + 2 * 256 + 3


@pytest.fixture
async def db() -> AsyncIterator[AuditDatabase]:
    async with fresh_audit_database() as database:
        yield database


@pytest.fixture
async def log(db: AuditDatabase) -> AsyncIterator[AuditLog]:
    audit = AuditLog(db.app, EPOCHS, "gateway-1")
    yield audit
    await audit.close()


async def test_proofs_from_tiles_hold_at_every_level_and_size(db: AuditDatabase) -> None:
    leaves = [hashlib.sha256(number.to_bytes(4)).digest() for number in range(LARGE)]
    edge = Edge()
    for leaf in leaves:
        edge.append(leaf)
    async with db.admin.begin() as conn:
        for key, hashes in (edge.take_full() | edge.growing()).items():
            values = {"level": key.level, "number": key.number, "hashes": hashes}
            query = f"INSERT INTO audit.tile (log, level, number, hashes) VALUES ({LOG}, :level, :number, :hashes)"
            await conn.execute(text(query), values)
    roots = {size: root_of(leaves[:size]) for size in (1, 255, 256, 257, 65535, 65536, 65537, LARGE)}
    async with db.app.connect() as conn:
        for size, root in roots.items():
            reader = TileReader(conn, LOG, size)
            assert await reader.root() == root
            for index in {0, 1, 254, 255, 256, 511, 65535, 65536, size - 1}:
                if index < size:
                    proof = await reader.inclusion(index)
                    assert verify_inclusion(leaves[index], index, size, proof, root), (size, index)
            for old, old_root in roots.items():
                if old <= size:
                    assert verify_consistency(old, size, old_root, root, await reader.consistency(old)), (old, size)


async def test_every_entry_is_proven_against_a_signed_checkpoint_and_none_before_it(
    db: AuditDatabase, log: AuditLog
) -> None:
    receipts = await log.append_many([an_entry(number) for number in range(300)])
    async with db.app.connect() as conn:
        assert await prove(conn, receipts[0].entry_id) is None
    await integrate(db.app)
    async with db.app.connect() as conn:
        for receipt in receipts:
            proof = await prove(conn, receipt.entry_id)
            assert proof is not None
            said = open_signed(proof.head.note, SIGNER.of(LOG).verifier)
            assert (said.size, said.root) == (300, proof.head.root)
            assert verify_inclusion(receipt.leaf_hash, proof.place.index, 300, proof.hashes, said.root)


@pytest.mark.parametrize(
    ("damage", "index"),
    [
        (
            "UPDATE audit.tile SET hashes = overlay(hashes PLACING sha256('x') FROM 33) WHERE level = 0 AND number = 0",
            1,
        ),
        ("UPDATE audit.tile SET hashes = substring(hashes FROM 1 FOR 32) WHERE level = 0 AND number = 1", 257),
        ("UPDATE audit.tile SET hashes = sha256('x') WHERE level = 1", 0),
        ("DELETE FROM audit.tile WHERE level = 1", 0),
        ("UPDATE audit.block SET terms = terms[2:]", 0),
        ("UPDATE audit.block SET terms = array_append(terms, 'purpose=x')", 0),
        ("UPDATE audit.block SET last_at = last_at - interval '1 microsecond'", 0),
        ("DELETE FROM audit.block", 0),
        (
            "UPDATE audit.entry SET terms = terms[2:] WHERE id = (SELECT entry_id FROM audit.sequence WHERE index = 7)",
            7,
        ),
    ],
)
async def test_an_altered_tile_block_or_search_term_is_named(
    db: AuditDatabase, log: AuditLog, damage: str, index: int
) -> None:
    await log.append_many([an_entry(number) for number in range(300)])
    await integrate(db.app)
    assert (await check(db.admin)).ok
    await run_sql(db.admin, damage)
    report = await check(db.admin)
    assert {problem.kind for problem in report.problems} == {"changed"}
    assert index in {problem.index for problem in report.problems}


async def test_a_year_ends_signed_and_the_next_begins_with_its_last_checkpoint(
    db: AuditDatabase, log: AuditLog
) -> None:
    await log.append_many([an_entry(number) for number in range(5)])
    await integrate(db.app)
    late = await log.append(an_entry(5))
    await integrate(db.app, year=LOG + 1)
    new = await log.append(an_entry(6, at=datetime(LOG + 1, 1, 1, tzinfo=UTC)))
    await integrate(db.app, year=LOG + 1)
    # A clock that runs behind makes no third log and writes on in the second.
    behind = await log.append(an_entry(7))
    await integrate(db.app)
    async with db.app.connect() as conn:
        assert await logs(conn) == [LOG, LOG + 1]
        places = [await prove(conn, receipt.entry_id) for receipt in (late, new, behind)]
        assert [(p.place.log, p.place.index) for p in places if p] == [(LOG, 5), (LOG + 1, 1), (LOG + 1, 2)]
        closing = await signed_head(conn, LOG)
        query = (
            f"SELECT e.envelope FROM audit.sequence s JOIN audit.entry e ON e.id = s.entry_id WHERE s.log = {LOG + 1}"
        )
        first = orjson.loads((await conn.execute(text(f"{query} AND s.index = 0"))).scalar_one())
    assert closing is not None
    assert (closing.size, first["type"]) == (6, "log.opened")
    assert first["statement"] == {"log": LOG + 1, "previous": LOG, "checkpoint": closing.note}
    report = await check(db.admin)
    assert (report.ok, report.entries, report.pending) == (True, 9, 0)


async def test_a_closed_year_written_anew_with_the_logs_own_key_is_not_what_the_next_one_holds(
    db: AuditDatabase, log: AuditLog
) -> None:
    await log.append_many([an_entry(number) for number in range(6)])
    await integrate(db.app)
    await integrate(db.app, year=LOG + 1)
    leaves = await scalar(db.admin, f"SELECT array_agg(leaf_hash ORDER BY index) FROM audit.sequence WHERE log = {LOG}")
    frontier = Frontier()
    frontier.extend(leaves[:5])
    note = sign_checkpoint(SIGNER.of(LOG), 5, frontier.root())
    edges = frontier.to_bytes().hex()
    last = f"(SELECT entry_id FROM audit.sequence WHERE log = {LOG} AND index = 5)"
    await run_sql(
        db.admin,
        f"UPDATE audit.writer SET counter = 5, last_leaf = '\\x{leaves[4].hex()}' WHERE counter = 6",
        f"DELETE FROM audit.entry WHERE id = {last}",
        f"DELETE FROM audit.sequence WHERE log = {LOG} AND index = 5",
        f"UPDATE audit.tree SET size = 5, frontier = '\\x{edges}' WHERE log = {LOG}",
        f"UPDATE audit.tile SET hashes = substring(hashes FROM 1 FOR 160) WHERE log = {LOG}",
        f"UPDATE audit.checkpoint SET size = 5, note = '{note}', root = '\\x{frontier.root().hex()}',"
        f" frontier = '\\x{edges}', at = (SELECT e.at FROM audit.sequence s JOIN audit.entry e ON e.id = s.entry_id"
        f" WHERE s.log = {LOG} AND s.index = 4) WHERE log = {LOG}",
    )
    report = await check(db.admin)
    assert [(p.kind, p.log, p.index) for p in report.problems] == [("not_a_prefix", LOG + 1, 0)]
