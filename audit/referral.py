"""Reads what belongs to the entries of a referral: whether all have their number, whom they are about, time stamps."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.terms import term
from audit.tiles import TileReader

_WAITING = text(
    """
    SELECT EXISTS (
        SELECT FROM audit.pending AS p JOIN audit.entry AS e ON e.id = p.entry_id
        WHERE e.terms @> ARRAY[CAST(:term AS text)]
    )
    """
)
_SUBJECT = text("SELECT subject FROM audit.subject_key WHERE pseudonym = :pseudonym")
_STAMP = text(
    """
    SELECT t.size, t.response, c.note FROM audit.time_stamp AS t
    JOIN audit.checkpoint AS c ON c.log = t.log AND c.size = t.size
    WHERE t.log = :log AND t.size > :index AND t.size <= :head
    ORDER BY t.size LIMIT 1
    """
)


@dataclass(frozen=True, slots=True)
class Stamped:
    """A checkpoint that a time-stamp authority saw (RFC 3161), and the proof that a newer one continues it."""

    log: int
    size: int
    note: str
    response: bytes
    consistency: tuple[bytes, ...]


def referral_term(referral: UUID) -> str:
    """Return the search term that every entry of a referral carries."""
    return term("referral", str(referral))


async def waits(conn: AsyncConnection, referral: UUID) -> bool:
    """Say whether an entry of a referral still waits for its number."""
    return bool(await conn.scalar(_WAITING, {"term": referral_term(referral)}))


async def subject_of(conn: AsyncConnection, pseudonym: UUID) -> UUID | None:
    """Return the internal id of the person behind a pseudonym of the log."""
    found: UUID | None = await conn.scalar(_SUBJECT, {"pseudonym": pseudonym})
    return found


async def stamped(conn: AsyncConnection, log: int, index: int, head: int) -> Stamped | None:
    """Return the first time-stamped checkpoint that covers an entry and that the tree of ``head`` leaves continues."""
    row = (await conn.execute(_STAMP, {"log": log, "index": index, "head": head})).one_or_none()
    if row is None:
        return None
    hashes = await TileReader(conn, log, head).consistency(row.size)
    return Stamped(log, row.size, row.note, bytes(row.response), tuple(hashes))
