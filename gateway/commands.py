"""A command that creates is done once: its repetition under the same Idempotency-Key gets the first answer again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Column, DateTime, Integer, LargeBinary, Table, Text, bindparam, func, insert, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.models import RECEIPT_HEADER
from audit.models import Receipt
from gateway import errors, evidence
from gateway.database import Prepared, metadata
from schemas.canonical import sha256

idempotency = Table(
    "idempotency",
    metadata,
    Column("client_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_sha256", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    Column("answer", JSONB, nullable=False, comment="ids and receipts only"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

_REMEMBER = Prepared(insert(idempotency), ("client_id", "key", "request_sha256", "status", "answer"))
_REMEMBERED = Prepared(
    select(idempotency.c.request_sha256, idempotency.c.status, idempotency.c.answer).where(
        idempotency.c.client_id == bindparam("client"), idempotency.c.key == bindparam("key")
    )
)
_LOCK_KEY = Prepared(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 5112))"))


@dataclass(frozen=True, slots=True)
class Command:
    """A command that creates, with what makes its repetition harmless: the caller's key and the bytes received."""

    client_id: str
    key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to a command; ``replayed`` when the same command had been done before."""

    status: int
    answer: dict[str, Any]
    replayed: bool


async def remembered(connection: AsyncConnection, command: Command, *, lock: bool = True) -> Done | None:
    """Return the earlier answer to the same command, or None; raises Conflict when its key had another body.

    Takes a lock on the key until the transaction ends, so two commands with one key run one after the other. Without
    the lock the later of two fails at :func:`remember`, if not before, and whoever asked so tries once more.
    """
    if lock:
        await _LOCK_KEY.run(connection, {"name": f"{command.client_id}\x1f{command.key}"})
    found = await _REMEMBERED.run(connection, {"client": command.client_id, "key": command.key})
    row = await found.fetchone()
    if row is None:
        return None
    request_sha256, status, answer = row
    if request_sha256 != sha256(command.body):
        raise errors.Conflict("idempotency-key-reused")
    return Done(status, answer, replayed=True)


async def remember(connection: AsyncConnection, command: Command, done: Done) -> None:
    """Keep the answer to a command for its repetition; it may hold ids and receipts only."""
    row = {
        "client_id": command.client_id,
        "key": command.key,
        "request_sha256": sha256(command.body),
        "status": done.status,
        "answer": done.answer,
    }
    await _REMEMBER.run(connection, row)


def receipt_json(receipt: Receipt) -> dict[str, str]:
    """Return a receipt as every answer shows it: entry id, leaf hash (hexadecimal), and where its proof appears.

    The address is below the gateway's own, and has the proof a second or two later, once a checkpoint covers the entry.
    """
    proof = evidence.proof_address(receipt.entry_id)
    return {"entry_id": str(receipt.entry_id), "leaf_hash": receipt.leaf_hash.hex(), "proof": proof}


def receipt_headers(shown: Mapping[str, str] | None) -> dict[str, str]:
    """Return the header that carries a receipt (as JSON has it) with an answer whose own format has no room for one."""
    if shown is None:
        return {}
    proof = evidence.proof_address(UUID(shown["entry_id"]))
    return {RECEIPT_HEADER: f"entry_id={shown['entry_id']};leaf={shown['leaf_hash']};proof={proof}"}
