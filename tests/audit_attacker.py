"""Whoever has every right in the database: reads the log, writes another history, and recomputes all that follows.

What such a person cannot compute are signatures, unless the log's key is given as well.
"""

# ruff: noqa: S608 — the SQL is put together from constants of these tests

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.checkpoint import Signer, sign_checkpoint
from audit.connection import driver_of
from audit.envelope import GENESIS, VERSION, terms_digest
from audit.merkle import Frontier
from audit.tiles import WIDTH, Edge
from audit.verify import leaf_hash
from schemas.canonical import canonical_json, sha256
from tests.integration.audit_database import AuditDatabase

TABLES = ("entry", "pending", "sequence", "writer", "tree", "tile", "block", "checkpoint", "cosignature", "subject_key")
_NO_DETAIL = b2a_base64(sha256(b""), newline=False).decode()
# These hang on the entries; what is signed does not.
_FOLLOWING = ("entry", "sequence", "tile", "block")


@dataclass(frozen=True)
class Told:
    """An entry as an attacker holds it: what its envelope says, its encrypted detail, its search terms."""

    said: dict[str, Any]
    detail: bytes
    terms: list[str]

    @classmethod
    def made(cls, number: int) -> Told:
        """Say something of no importance, without a detail that anybody could open."""
        terms = ["outcome=done", "type=log.read"]
        said = {
            "version": VERSION,
            "id": str(UUID(int=number)),
            "at": "2026-10-13T14:00:00.000000Z",
            "type": "log.read",
            "outcome": "done",
            "subject": None,
            "commitments": {},
            "detail_sha256": _NO_DETAIL,
            "terms_sha256": terms_digest(terms),
            "writer": {"slot": 0},
        }
        return cls(said, b"", terms)

    @property
    def id(self) -> UUID:
        return UUID(self.said["id"])

    @property
    def slot(self) -> int:
        return int(self.said["writer"]["slot"])

    def changed(self, **values: Any) -> Told:
        """Say something else; the search terms follow."""
        others = [term for term in self.terms if not term.startswith("outcome=")]
        terms = sorted([*others, f"outcome={values['outcome']}"])
        return replace(self, said={**self.said, **values, "terms_sha256": terms_digest(terms)}, terms=terms)

    def copied(self, slot: int) -> Told:
        """Say the same under another id, as if another writer had written it."""
        return replace(self, said={**self.said, "id": str(uuid4()), "writer": {"slot": slot}})


@dataclass(frozen=True)
class Checkpoints:
    """What becomes of the signed checkpoints: those of these sizes stay, and these sizes are signed anew."""

    kept: Collection[int] = ()
    signed: Collection[int] = ()


async def read_history(db: AuditDatabase, log: int) -> list[Told]:
    """Read the numbered entries of a log in their order."""
    query = f"""
        SELECT e.envelope, e.detail, e.terms FROM audit.sequence AS s JOIN audit.entry AS e ON e.id = s.entry_id
        WHERE s.log = {log} ORDER BY s.index
    """
    async with db.admin.connect() as conn:
        rows = await conn.execute(text(query))
        return [Told(orjson.loads(row.envelope), bytes(row.detail), list(row.terms)) for row in rows]


async def rewrite(
    db: AuditDatabase, log: int, history: Sequence[Told], checkpoints: Checkpoints, signer: Signer
) -> None:
    """Make the database hold another history of its only log, with all its hashes, tiles, blocks and counters."""
    frontier, edge = Frontier(), Edge()
    ends: dict[int, tuple[int, bytes]] = {}
    entries, sequence, heads = [], [], {}
    for index, told in enumerate(history):
        counter, previous = ends.get(told.slot, (0, GENESIS))
        writer = {"slot": told.slot, "counter": counter + 1, "previous": b2a_base64(previous, newline=False).decode()}
        said = {**told.said, "writer": writer}
        envelope = canonical_json(said)
        leaf = leaf_hash(envelope)
        ends[told.slot] = (counter + 1, leaf)
        frontier.append(leaf)
        edge.append(leaf)
        at = datetime.fromisoformat(said["at"])
        entries.append(
            {
                "id": told.id,
                "envelope": envelope,
                "leaf_hash": leaf,
                "detail": told.detail,
                "type": said["type"],
                "outcome": said["outcome"],
                "at": at,
                "pseudonym": said["subject"] and UUID(said["subject"]),
                "writer_slot": told.slot,
                "writer_counter": counter + 1,
                "terms": told.terms,
            }
        )
        sequence.append({"log": log, "index": index, "entry_id": told.id, "leaf_hash": leaf})
        if index + 1 in checkpoints.signed:
            root = frontier.root()
            note = sign_checkpoint(signer.of(log), index + 1, root)
            heads[index + 1] = {"note": note, "root": root, "frontier": frontier.to_bytes(), "at": at}
    tiles = [
        {"log": log, "level": key.level, "number": key.number, "hashes": hashes}
        for key, hashes in (edge.take_full() | edge.growing()).items()
    ]
    blocks = [_block(log, number, entries) for number in range(len(entries) // WIDTH)]
    async with db.admin.begin() as conn:
        for table in _FOLLOWING:
            await conn.exec_driver_sql(f"TRUNCATE audit.{table}")
        for table, rows in (("entry", entries), ("sequence", sequence), ("tile", tiles), ("block", blocks)):
            await _insert(conn, table, rows)
        await conn.exec_driver_sql("UPDATE audit.writer SET counter = 0, last_leaf = decode(repeat('00', 32), 'hex')")
        for slot, (counter, leaf) in ends.items():
            values = {"counter": counter, "leaf": leaf, "slot": slot}
            query = "UPDATE audit.writer SET counter = :counter, last_leaf = :leaf WHERE slot = :slot"
            await conn.execute(text(query), values)
        await _checkpoints(conn, log, checkpoints.kept, heads)
        values = {"size": frontier.size, "frontier": frontier.to_bytes()}
        query = """
            UPDATE audit.tree SET size = :size, frontier = :frontier,
                checkpoints = (SELECT count(*) FROM audit.checkpoint)
        """
        await conn.execute(text(query), values)


async def _checkpoints(
    conn: AsyncConnection, log: int, kept: Collection[int], heads: dict[int, dict[str, Any]]
) -> None:
    for table in ("checkpoint", "cosignature"):
        await conn.execute(text(f"DELETE FROM audit.{table} WHERE size <> ALL(:kept)"), {"kept": list(kept)})
    rows = [{"log": log, "size": size, "number": 0, **head} for size, head in heads.items()]
    count = (await conn.exec_driver_sql("SELECT count(*) FROM audit.checkpoint")).scalar_one()
    await _insert(conn, "checkpoint", [{**row, "number": number} for number, row in enumerate(rows, count)])


async def _insert(conn: AsyncConnection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    driver = await driver_of(conn)
    async with driver.cursor() as cursor, cursor.copy(f"COPY audit.{table} ({', '.join(rows[0])}) FROM STDIN") as copy:
        for row in rows:
            await copy.write_row(tuple(row.values()))


def _block(log: int, number: int, entries: list[dict[str, Any]]) -> dict[str, Any]:
    rows = entries[number * WIDTH : (number + 1) * WIDTH]
    times = [row["at"] for row in rows]
    terms = sorted({term for row in rows for term in row["terms"]})
    return {"log": log, "number": number, "first_at": min(times), "last_at": max(times), "terms": terms}


async def copy_tables(db: AuditDatabase, schema: str, tables: Sequence[str] = TABLES) -> None:
    """Keep tables of the log as they are now."""
    async with db.admin.begin() as conn:
        await conn.exec_driver_sql(f"CREATE SCHEMA {schema}")
        for table in tables:
            await conn.exec_driver_sql(f"CREATE TABLE {schema}.{table} AS TABLE audit.{table}")


async def put_back(db: AuditDatabase, schema: str, tables: Sequence[str] = TABLES) -> None:
    """Make the log what it was when its tables were kept."""
    async with db.admin.begin() as conn:
        for table in tables:
            await conn.exec_driver_sql(f"TRUNCATE audit.{table}")
            await conn.exec_driver_sql(f"INSERT INTO audit.{table} TABLE {schema}.{table}")
