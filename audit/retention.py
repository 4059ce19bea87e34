"""Takes the oldest entries of a log away when their term is over, so that every proof ever given still verifies.

Only below a number that is a multiple of 256, and only what a checkpoint covers: tiles, checkpoints and cosignatures
stay, and with them consistency and the frontier at that number. For the role that owns the tables.
"""

from __future__ import annotations

from binascii import b2a_base64
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.tiles import WIDTH, TileReader
from schemas.canonical import canonical_json

_LOGS = text(
    "SELECT t.log, coalesce(p.minimum, 0), p.chains FROM audit.tree AS t LEFT JOIN audit.pruned AS p USING (log)"
)
# The first entry that must stay, and how far checkpoints reach.
_FIRST_TO_STAY = text(
    """
    SELECT min(s.index) FROM audit.entry AS e JOIN audit.sequence AS s ON s.entry_id = e.id
    WHERE s.log = :log AND e.at >= :before
    """
)
_COVERED = text("SELECT coalesce(max(size), 0) FROM audit.checkpoint WHERE log = :log")
_ENDS = text(
    """
    SELECT DISTINCT ON (e.writer_slot) e.writer_slot, e.writer_counter, e.leaf_hash
    FROM audit.sequence AS s JOIN audit.entry AS e ON e.id = s.entry_id
    WHERE s.log = :log AND s.index >= :since AND s.index < :minimum
    ORDER BY e.writer_slot, e.writer_counter DESC
    """
)
_BEGIN = text(
    """
    INSERT INTO audit.pruned (log, minimum, chains, at) VALUES (:log, :minimum, :chains, :at)
    ON CONFLICT (log) DO UPDATE SET minimum = excluded.minimum, chains = excluded.chains, at = excluded.at
    """
)
# The entries first: that they were pruned is seen by their numbers.
_TAKE_ENTRIES = text(
    """
    DELETE FROM audit.entry WHERE id IN (
        SELECT s.entry_id FROM audit.sequence AS s WHERE s.log = :log AND s.index >= :first AND s.index < :end
    )
    """
)
_TAKE_NUMBERS = text("DELETE FROM audit.sequence WHERE log = :log AND index >= :first AND index < :end")
_TAKE_BLOCKS = text("DELETE FROM audit.block WHERE log = :log AND number < :number")
_FIRST_LEFT = text("SELECT min(index) FROM audit.sequence WHERE log = :log AND index < :minimum")
_PRUNED_LOGS = text("SELECT log FROM audit.pruned ORDER BY log")
_MINIMUM = text("SELECT minimum FROM audit.pruned WHERE log = :log")
_OLDEST_LEFT = text(
    "SELECT entry_id FROM audit.sequence WHERE EXISTS (SELECT FROM audit.pruned) ORDER BY log, index LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Pruning:
    """What would be taken from a log: the entries below ``minimum``; ``root`` is that of the tree of this size."""

    log: int
    entries: int
    minimum: int
    root: bytes
    chains: str


async def plan(conn: AsyncConnection, before: datetime) -> list[Pruning]:
    """Return what can be pruned of each log: full tiles of entries older than ``before`` that a checkpoint covers.

    Raises :class:`~audit.errors.LogBroken` where a tile is missing.
    """
    found = []
    for log, already, chains in (await conn.execute(_LOGS)).all():
        covered = await conn.scalar(_COVERED, {"log": log}) or 0
        first = await conn.scalar(_FIRST_TO_STAY, {"log": log, "before": before})
        minimum = min(covered, covered if first is None else first) // WIDTH * WIDTH
        if minimum <= already:
            continue
        ends = {} if chains is None else orjson.loads(chains)
        rows = await conn.execute(_ENDS, {"log": log, "since": already, "minimum": minimum})
        for slot, counter, leaf in rows:
            ends[str(slot)] = [counter, b2a_base64(bytes(leaf), newline=False).decode()]
        root = await TileReader(conn, log, minimum).root()
        found.append(Pruning(log, minimum - already, minimum, root, canonical_json(ends).decode()))
    return found


async def begin(conn: AsyncConnection, pruning: Pruning, at: datetime) -> None:
    """Note in the caller's transaction that a log is pruned; from the commit on its checks begin at the minimum."""
    values = {"log": pruning.log, "minimum": pruning.minimum, "chains": pruning.chains, "at": at}
    await conn.execute(_BEGIN, values)


async def pruned_logs(conn: AsyncConnection) -> list[int]:
    """Return the logs that were ever pruned."""
    return list(await conn.scalars(_PRUNED_LOGS))


async def take(conn: AsyncConnection, log: int, limit: int) -> int:
    """Take away some ``limit`` of the entries of a log that is pruned; return how many numbers there were.

    To be called, each time in a transaction of its own, until it returns 0: what was cut off is gone on with.
    """
    minimum = await conn.scalar(_MINIMUM, {"log": log}) or 0
    first = await conn.scalar(_FIRST_LEFT, {"log": log, "minimum": minimum})
    if first is None:
        await conn.execute(_TAKE_BLOCKS, {"log": log, "number": minimum // WIDTH})
        return 0
    span = {"log": log, "first": first, "end": min(first + limit, minimum)}
    await conn.execute(_TAKE_ENTRIES, span)
    return (await conn.execute(_TAKE_NUMBERS, span)).rowcount


async def was_pruned(conn: AsyncConnection, entry_id: UUID) -> bool:
    """Say of an entry that is not there whether it may have been pruned: its id is older than the oldest one left.

    An id tells when it was made (RFC 9562, version 7), not that there ever was such an entry.
    """
    oldest = await conn.scalar(_OLDEST_LEFT)
    return oldest is not None and entry_id.version == oldest.version and entry_id < oldest
