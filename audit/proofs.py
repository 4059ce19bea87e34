"""Proves to others that an entry is in the log: its place, the checkpoint that covers it, and the path between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.tiles import TileReader
from audit.verify import NotValid, Policy, open_checkpoint

_PLACE = text("SELECT log, index AS number, leaf_hash FROM audit.sequence WHERE entry_id = :entry_id")
_LOGS = text("SELECT log FROM audit.tree ORDER BY log")
# Checkpoints that cover the entry, those that witnesses signed first and the newest of each first.
_CHECKPOINTS = text(
    """
    SELECT c.size, c.note, c.root, s.lines
    FROM (
        (SELECT size, array_agg(line ORDER BY witness) AS lines FROM audit.cosignature
        WHERE log = :log AND size > :index GROUP BY size ORDER BY size DESC LIMIT :limit)
        UNION ALL
        (SELECT size, '{}' FROM audit.checkpoint WHERE log = :log AND size > :index ORDER BY size DESC LIMIT 1)
    ) AS s JOIN audit.checkpoint AS c ON c.log = :log AND c.size = s.size
    ORDER BY cardinality(s.lines) = 0, c.size DESC
    """
)
# A witness that is away for longer than so many rounds is missed by proofs as well.
_LOOKED_AT = 60


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands: the log (a year), its number there from 0, and its leaf hash."""

    log: int
    index: int
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A checkpoint as the log gives it away: the note with the log's signature and those of witnesses."""

    log: int
    size: int
    root: bytes
    note: str


@dataclass(frozen=True, slots=True)
class Proof:
    """That an entry is in a log: its place, the checkpoint, and the inclusion proof (RFC 9162 clause 2.1.3)."""

    place: Place
    head: SignedHead
    hashes: tuple[bytes, ...]


async def logs(conn: AsyncConnection) -> list[int]:
    """Return the years of the logs there are, oldest first; the last one is the one written to."""
    return [row.log for row in await conn.execute(_LOGS)]


async def place_of(conn: AsyncConnection, entry_id: UUID) -> Place | None:
    """Return where an entry stands, or ``None`` while it waits for its number (or is not in the log at all)."""
    row = (await conn.execute(_PLACE, {"entry_id": entry_id})).one_or_none()
    return None if row is None else Place(row.log, row.number, bytes(row.leaf_hash))


def accepted_by(policy: Policy) -> Callable[[str], bool]:
    """Return what says of a note whether it is a checkpoint that a policy accepts."""

    def accepted(note: str) -> bool:
        try:
            open_checkpoint(note, policy)
        except NotValid:
            return False
        return True

    return accepted


async def signed_head(
    conn: AsyncConnection, log: int, covering: int = -1, accepted: Callable[[str], bool] | None = None
) -> SignedHead | None:
    """Return the newest checkpoint of a log that covers the entry at ``covering``, best one that is ``accepted``.

    Without one that is, the newest that any witness signed, and else the newest. ``None`` while none covers it.
    """
    values = {"log": log, "index": covering, "limit": 1 if accepted is None else _LOOKED_AT}
    first: SignedHead | None = None
    for size, note, root, lines in await conn.execute(_CHECKPOINTS, values):
        head = SignedHead(log, size, bytes(root), note + "".join(f"{line}\n" for line in lines))
        if accepted is None or accepted(head.note):
            return head
        first = first or head
    return first


async def prove(conn: AsyncConnection, entry_id: UUID, accepted: Callable[[str], bool] | None = None) -> Proof | None:
    """Prove that an entry is in the log; ``None`` until a checkpoint covers it, a second or two after it was made."""
    place = await place_of(conn, entry_id)
    if place is None:
        return None
    head = await signed_head(conn, place.log, place.index, accepted)
    if head is None:
        return None
    hashes = await TileReader(conn, place.log, head.size).inclusion(place.index)
    return Proof(place, head, tuple(hashes))
