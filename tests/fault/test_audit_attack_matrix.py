"""What finds an attack with every right in the database, and what does not: the table of docs/explanation/attacks.md.

Each attack recomputes whatever its author can recompute. Afterwards the log is written on, as an unsuspecting gateway
does, and everybody who could notice looks.
"""

# ruff: noqa: S608 — the SQL of attacks is put together from constants of these tests

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from audit.check import check_log
from audit.checkpoint import Signer
from audit.errors import LogBroken
from audit.export import last_line, proven, record_line, wait_for_proof, write_proof_head
from audit.integrator import integrate_once
from audit.models import Receipt
from audit.proofs import SignedHead, prove, signed_head
from audit.search import Criteria
from audit.service import AuditLog
from audit.tiles import TileReader
from audit.verify import (
    COSIGNATURE,
    ED25519,
    NotValid,
    Policy,
    check_checkpoints,
    check_export,
    check_proof,
    format_key,
    format_proof,
    parse_policy,
)
from audit.witness import Witness, add_log
from gateway.witnesses.asking import request_body
from schemas.canonical import canonical_json, sha256
from tests.audit_attacker import Checkpoints, Told, copy_tables, put_back, read_history, rewrite
from tests.audit_writers import EPOCHS, SIGNER, YEAR, an_entry, in_the_year, own_slots
from tests.integration.audit_database import AuditDatabase, fresh_audit_database
from tests.witnessing import a_witness, witness_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOC = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "attacks.md"
SIZES = (40, 120, 220, 300)
BACKUP, NEWEST = SIZES[1], SIZES[-1]
# The entry attacked: one between the second and the third checkpoint, whose writer wrote nothing else.
VICTIM = 170


@dataclass
class World:
    """A log, two institutions that witness it, and what people keep of it."""

    db: AuditDatabase
    http: httpx.AsyncClient
    witnesses: list[Witness]
    databases: list[AuditDatabase]
    addresses: list[str]
    receipts: list[Receipt]
    machine: Signer
    kept: SignedHead | None = None

    def policy(self, quorum: str) -> Policy:
        """Return whose signatures an auditor asks for: the log's, and of its witnesses ``none``, ``any`` or ``all``."""
        return parse_policy(self.policy_text(quorum))

    def policy_text(self, quorum: str) -> str:
        key = SIGNER.of(YEAR).verifier
        lines = [f"log {format_key(key.name, ED25519, key.key)}"]
        for number, witness in enumerate(self.witnesses, 1):
            verifier = witness.verifier
            lines.append(f"witness w{number} {format_key(verifier.name, COSIGNATURE, verifier.key)}")
        group = "" if quorum == "none" else f"group g {quorum} w1 w2\n"
        return "\n".join(lines) + f"\n{group}quorum {'g' if group else 'none'}\n"

    async def newest(self) -> SignedHead:
        """Return the newest checkpoint, with the cosignatures it has."""
        async with self.db.app.connect() as conn:
            size = (await conn.exec_driver_sql("SELECT max(size) FROM audit.checkpoint")).scalar_one()
            head = await signed_head(conn, YEAR, size - 1)
        assert head is not None
        return head

    async def ask(self, number: int) -> int:
        """Show a witness the newest checkpoint with its best proof; keep its cosignature, return its status."""
        head = await self.newest()
        async with self.databases[number].app.connect() as conn:
            seen = (await conn.exec_driver_sql("SELECT size FROM audit.witnessed")).scalar_one()
        old = min(seen, head.size)
        body = request_body(old, await self.consistency(old, head.size), head.note)
        answer = await self.http.post(f"{self.addresses[number]}/add-checkpoint", content=body)
        if answer.status_code == 200:
            row = {"log": YEAR, "size": head.size, "witness": self.witnesses[number].name, "line": answer.text.strip()}
            query = """
                INSERT INTO audit.cosignature (log, size, witness, line, at)
                VALUES (:log, :size, :witness, :line, now())
                ON CONFLICT (log, size, witness) DO UPDATE SET line = excluded.line
            """
            async with self.db.app.begin() as conn:
                await conn.execute(text(query), row)
        return answer.status_code

    async def consistency(self, old: int, new: int) -> list[bytes]:
        async with self.db.app.connect() as conn:
            return await TileReader(conn, YEAR, new).consistency(old) if 0 < old < new else []

    async def write(self, count: int) -> list[Receipt]:
        """Write on as a gateway that suspects nothing."""
        log = AuditLog(self.db.app, EPOCHS, "gateway-2")
        receipts = await log.append_many([an_entry() for _ in range(count)])
        await log.close()
        return receipts

    async def integrate(self, signer: Signer = SIGNER) -> None:
        log = AuditLog(self.db.app, EPOCHS, "integrator")
        try:
            async with self.db.app.connect() as conn:
                await integrate_once(conn, signer, log, in_the_year)
        finally:
            await log.close()

    async def rewrite(self, history: Sequence[Told], kept: Collection[int], signed: Collection[int] = ()) -> None:
        await rewrite(self.db, YEAR, history, Checkpoints(kept, signed), SIGNER)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def untouched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    machine = replace(SIGNER, memory=tmp_path_factory.mktemp("signed"))
    async with AsyncExitStack() as stack:
        db, *databases = [await stack.enter_async_context(fresh_audit_database()) for _ in range(3)]
        witnesses = [a_witness(f"witness.example/w{number}") for number in (1, 2)]
        key, addresses = SIGNER.of(YEAR).verifier, []
        for database, witness in zip(databases, witnesses, strict=True):
            async with database.app.begin() as conn:
                await add_log(conn, format_key(key.name, ED25519, key.key), in_the_year())
            addresses.append(await stack.enter_async_context(witness_server(database, witness, in_the_year)))
        http = await stack.enter_async_context(httpx.AsyncClient())
        world = World(db, http, witnesses, databases, addresses, [], machine)
        await _fill(world)
        yield world


async def _fill(world: World) -> None:
    """Write a log by three writers, with one entry of a fourth; witnesses cosign it early and at its end."""
    log = AuditLog(world.db.app, EPOCHS, "gateway-1")
    async with AsyncExitStack() as stack:
        *three, fourth = await own_slots(stack, world.db.app, 4)
        for end in SIZES:
            while len(world.receipts) < end:
                conn = fourth if len(world.receipts) == VICTIM else three[len(world.receipts) % 3]
                world.receipts.append(await log.stage(conn, an_entry()))
            for conn in (*three, fourth):
                await conn.commit()
            await world.integrate()
            if end == BACKUP:
                assert [await world.ask(0), await world.ask(1)] == [200, 200]
                await copy_tables(world.db, "backup")
                await copy_tables(world.databases[1], "early", ("witnessed",))
    await log.close()
    assert [await world.ask(0), await world.ask(1)] == [200, 200]
    await copy_tables(world.db, "kept")
    for database in world.databases:
        await copy_tables(database, "kept", ("witnessed",))


@pytest_asyncio.fixture(loop_scope="module")
async def world(untouched: World) -> World:
    """The same log for every attack, whatever the one before did."""
    await put_back(untouched.db, "kept")
    for database in untouched.databases:
        await put_back(database, "kept", ("witnessed",))
    untouched.kept = await untouched.newest()
    # What the machine that signs keeps of it beside its key.
    untouched.machine.remember(YEAR, untouched.kept.note)
    del untouched.receipts[NEWEST:]
    assert await _verify(untouched) == "—"
    return untouched


# Attacks.

Edit = Callable[[list[Told], int], list[Told]]
Attack = Callable[[World], Awaitable[None]]


def _place(world: World, history: list[Told]) -> int:
    wanted = world.receipts[VICTIM].entry_id
    return next(index for index, told in enumerate(history) if told.id == wanted)


def change(history: list[Told], at: int) -> list[Told]:
    return [*history[:at], history[at].changed(outcome="deny"), *history[at + 1 :]]


def delete(history: list[Told], at: int) -> list[Told]:
    return [*history[:at], *history[at + 1 :]]


def insert(history: list[Told], at: int) -> list[Told]:
    """Through a slot nobody used, so that no other entry has to change."""
    slot = min(set(range(16)) - {told.slot for told in history})
    return [*history[:at], history[at].copied(slot), *history[at:]]


def swap(history: list[Told], at: int) -> list[Told]:
    """Two neighbours of different writers, so that no envelope has to change."""
    return [*history[:at], history[at + 1], history[at], *history[at + 2 :]]


def reorder(history: list[Told], at: int) -> list[Told]:
    """All from there on by writer, each writer's entries in their order, so that no envelope has to change."""
    return [*history[:at], *sorted(history[at:], key=lambda told: told.slot)]


def truncate(history: list[Told], _at: int) -> list[Told]:
    return history[:BACKUP]


def rewriting(edit: Edit, kept: Collection[int], signed: Collection[int] = ()) -> Attack:
    async def attack(world: World) -> None:
        history = await read_history(world.db, YEAR)
        await world.rewrite(edit(history, _place(world, history)), kept, signed)

    return attack


def one_statement(statement: str) -> Attack:
    async def attack(world: World) -> None:
        async with world.db.admin.begin() as conn:
            await conn.execute(text(statement), {"id": world.receipts[VICTIM].entry_id})

    return attack


async def replay_backup(world: World) -> None:
    await put_back(world.db, "backup")


async def remove_waiting(world: World) -> None:
    """Take the newest entry away while it waits for its number, and let its writer forget it."""
    before = "CREATE TABLE public.writer_before AS TABLE audit.writer"
    async with world.db.admin.begin() as conn:
        await conn.exec_driver_sql(before)
    [receipt] = await world.write(1)
    world.receipts.append(receipt)
    async with world.db.admin.begin() as conn:
        for statement in (
            f"DELETE FROM audit.entry WHERE id = '{receipt.entry_id}'",
            "DELETE FROM audit.pending",
            "TRUNCATE audit.writer",
            "INSERT INTO audit.writer TABLE public.writer_before",
            "DROP TABLE public.writer_before",
        ):
            await conn.exec_driver_sql(statement)


async def two_faces(world: World) -> None:
    """The second witness has only ever been shown the other history, from before the two part."""
    await put_back(world.databases[1], "early", ("witnessed",))
    await rewriting(change, SIZES[:2], SIZES[2:])(world)


# Who looks.


class Found(NamedTuple):
    """What each of those who look says: ``—`` where nothing looks wrong to them."""

    verify: str
    machine: str
    receipt: str
    checkpoint: str
    signing: str
    witness: str
    quorum_any: str
    quorum_all: str


async def _verify(world: World, signer: Signer = SIGNER) -> str:
    """``siis audit verify``."""
    async with world.db.admin.connect() as conn:
        report = await check_log(conn, signer)
    return report.problems[0].kind if report.problems else "—"


async def _receipts(world: World) -> str:
    """``siis receipt check`` with receipts kept: the log is asked for the proof of each, which must hold its leaf."""
    # Of those written in one moment any may be numbered last, and be pushed behind the checkpoint: not one of them.
    kept = {*world.receipts[::25], *world.receipts[VICTIM - 2 : VICTIM + 3], *world.receipts[NEWEST:]}
    found = {await _proof(world, receipt, "none") for receipt in kept} - {"—"}
    return ", ".join(sorted(found)) or "—"


async def _proof(world: World, receipt: Receipt, quorum: str) -> str:
    async with world.db.app.connect() as conn:
        try:
            proof = await prove(conn, receipt.entry_id)
        except LogBroken:
            proof = None
    if proof is None:
        return "missing"
    try:
        given = format_proof(proof.place.index, proof.hashes, proof.head.note)
        check_proof(given, receipt.leaf_hash, world.policy(quorum))
    except NotValid as error:
        return error.kind
    return "—"


async def _checkpoint(world: World) -> str:
    """``siis audit verify-checkpoints`` with a checkpoint kept and the newest one, proved as well as the log can."""
    assert world.kept is not None
    new = await world.newest()
    try:
        proof = await world.consistency(world.kept.size, new.size)
        assert check_checkpoints(world.kept.note, new.note, world.policy("none"), proof)
    except NotValid as error:
        return error.kind
    return "—"


async def look(world: World) -> Found:
    """Have everybody look, first at what the attack left, then at what the log became when it was written on."""
    first = [await world.ask(0), await world.ask(1)]
    machine = await _verify(world, world.machine)
    [fresh, *_others] = await world.write(30)
    signing = "—"
    try:
        await world.integrate(world.machine)
    except LogBroken:
        signing = "the machine stops"
    try:
        await world.integrate()
    except LogBroken:
        signing = "stops"
    then = [await world.ask(0), await world.ask(1)]
    return Found(
        await _verify(world),
        machine,
        await _receipts(world),
        await _checkpoint(world),
        signing,
        _statuses(list(zip(first, then, strict=True))),
        *[await _proof(world, fresh, quorum) for quorum in ("any", "all")],
    )


def _statuses(answers: list[tuple[int, int]]) -> str:
    """Return what the witnesses answered, refusals only, each once where both said the same."""
    told = [", ".join(str(status) for status in dict.fromkeys(pair) if status != 200) or "—" for pair in answers]
    return told[0] if told[0] == told[1] else " / ".join(told)


# The table.

ALONE = "A"
SIGNED_ON = "B"
KEY = "C"
EARLY, ALL = SIZES[:2], SIZES


class Row(NamedTuple):
    attack: str
    rights: str
    do: Attack
    found: Found


_FLIP = "UPDATE audit.entry SET detail = set_byte(detail, 20, get_byte(detail, 20) # 1) WHERE id = :id"
_STOPS = Found("not_a_prefix", "not_a_prefix", "changed", "—", "stops", "—", "missing", "missing")
_UNSEEN = Found("—", "not_a_prefix", "—", "not_a_prefix", "the machine stops", "409, 422", "signature", "signature")
_CUT = _UNSEEN._replace(receipt="missing", witness="409")
_ONLY_VERIFY = Found("changed", "changed", *"——————")
_OTHER = _UNSEEN._replace(receipt="changed")
ROWS = [
    Row("change a detail, hashes left alone", ALONE, one_statement(_FLIP), _ONLY_VERIFY),
    Row(
        "delete a row, hashes left alone",
        ALONE,
        one_statement("DELETE FROM audit.entry WHERE id = :id"),
        _ONLY_VERIFY._replace(verify="missing", machine="missing"),
    ),
    Row("change an entry", ALONE, rewriting(change, ALL), _STOPS),
    Row(
        "delete an entry",
        ALONE,
        rewriting(delete, ALL),
        _STOPS._replace(receipt="changed, missing", quorum_any="changed", quorum_all="changed"),
    ),
    Row("insert an entry", ALONE, rewriting(insert, ALL), _STOPS),
    Row("swap two entries", ALONE, rewriting(swap, ALL), _STOPS),
    Row("reorder the rest", ALONE, rewriting(reorder, ALL), _STOPS),
    Row(
        "truncate the end",
        ALONE,
        rewriting(truncate, ALL),
        _STOPS._replace(verify="missing", machine="missing", receipt="missing"),
    ),
    Row("change an entry", SIGNED_ON, rewriting(change, EARLY), _OTHER),
    Row("delete an entry", SIGNED_ON, rewriting(delete, EARLY), _UNSEEN._replace(receipt="missing")),
    Row("insert an entry", SIGNED_ON, rewriting(insert, EARLY), _UNSEEN),
    Row("swap two entries", SIGNED_ON, rewriting(swap, EARLY), _UNSEEN),
    Row("reorder the rest", SIGNED_ON, rewriting(reorder, EARLY), _UNSEEN),
    Row("truncate the end", SIGNED_ON, rewriting(truncate, EARLY), _CUT),
    Row("replay an old backup", SIGNED_ON, replay_backup, _CUT),
    Row("remove an entry before it has a number", SIGNED_ON, remove_waiting, Found("—", "—", "missing", *"—————")),
    Row("rewrite everything", KEY, rewriting(change, (), (NEWEST,)), _OTHER),
    Row("rewrite everything, every checkpoint's size kept", KEY, rewriting(change, (), ALL), _OTHER),
    Row(
        "show two witnesses two histories",
        KEY,
        two_faces,
        _OTHER._replace(witness="409, 422 / —", quorum_any="—"),
    ),
]
_HEADS = (
    "Attack",
    "With",
    "`siis audit verify`",
    "the same where the log signs",
    "`siis receipt check`",
    "`siis audit verify-checkpoints`",
    "signing",
    "a witness",
    "quorum: one of two",
    "quorum: both",
)


def as_written() -> str:
    """Return the table as the documentation shows it."""
    lines = [_HEADS, tuple("---" for _head in _HEADS), *((row.attack, row.rights, *row.found) for row in ROWS)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


async def test_the_documentation_shows_the_table_that_is_tested_here() -> None:
    assert as_written() in DOC.read_text(encoding="utf-8")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.rights}-{row.attack}")
async def test_an_attack_is_found_by_whom_the_table_says(world: World, row: Row) -> None:
    await row.do(world)
    assert await look(world) == row.found


async def _export(world: World, data: Path) -> Path:
    """Export the whole log with its proof, as far as its newest checkpoint."""
    head = await world.newest()
    records, lines = [], [write_proof_head("jsonl", {YEAR: head.note}, world.policy_text("none"))]
    async for group in proven(world.db.app, EPOCHS, Criteria(), {YEAR: head}):
        for item in group:
            records.append(canonical_json({"id": item.entry.envelope["id"], "outcome": item.entry.envelope["outcome"]}))
            lines.append(record_line(item, records[-1]))
    exported = b"".join(record + b"\n" for record in records)
    digest = sha256(exported)
    what = {"sha256": digest.hex(), "records": len(records), "format": "jsonl"}
    log = AuditLog(world.db.app, EPOCHS, "gateway-1")
    receipt = await log.append(an_entry(type="log.exported", outcome="done", groups={"what": what}))
    await log.close()
    await world.integrate()
    await world.ask(0)
    await world.ask(1)
    own, note = await wait_for_proof(world.db.app, EPOCHS, receipt.entry_id, world.policy("none"), 10)
    lines.append(last_line(own, note, len(records), digest))
    await asyncio.to_thread(data.write_bytes, exported)
    await asyncio.to_thread(data.with_name(f"{data.name}.proof").write_bytes, b"".join(lines))
    return data


def _outcome(data: Path, receipt: Receipt) -> str:
    return next(line for line in data.read_text().splitlines() if str(receipt.entry_id) in line).split('"')[-2]


async def test_an_export_kept_from_before_still_proves_what_a_stolen_key_rewrote(world: World, tmp_path: Path) -> None:
    """And one made afterwards is refused by whoever asks for a witness, and by nobody else."""
    victim = world.receipts[VICTIM]
    kept, kept_head = await _export(world, tmp_path / "before.jsonl"), await world.newest()
    await rewriting(change, (), ALL)(world)
    after, after_head = await _export(world, tmp_path / "after.jsonl"), await world.newest()
    assert (_outcome(kept, victim), _outcome(after, victim)) == ("permit", "deny")
    assert check_export(kept, policy=world.policy("all")).trusted
    assert check_export(after, policy=world.policy("none")).trusted
    with pytest.raises(NotValid, match="signature"):
        check_export(after, policy=world.policy("any"))
    proof = await world.consistency(kept_head.size, after_head.size)
    with pytest.raises(NotValid, match="not_a_prefix"):
        check_checkpoints(kept_head.note, after_head.note, world.policy("none"), proof)
