"""Gives receipts again: of one entry, and page by page of those an institution was party to, by their place in the log.

Nothing is opened for it: who was party, of what kind, and about which dataset stands in an entry's search terms.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Receipt
from audit.terms import term

#: Before the first entry of the first log.
BEGINNING = (0, -1)
_BLOCK = 256
# So many blocks are looked into at once: enough for a page of most, and never the whole log for one page.
_BLOCKS_AT_ONCE = 16

_OF = text("SELECT leaf_hash, pseudonym FROM audit.entry WHERE id = :entry_id")
_LOGS = text("SELECT log, size FROM audit.tree WHERE log >= :log ORDER BY log")
_BLOCKS = text(
    """
    SELECT number FROM audit.block
    WHERE log = :log AND number >= :number AND terms @> CAST(:party AS text[]) AND terms && CAST(:types AS text[])
    ORDER BY number LIMIT :limit
    """
)
_GROWING = text("SELECT coalesce(max(number) + 1, 0) FROM audit.block WHERE log = :log")
_ENTRIES = text(
    """
    SELECT s.log, s.index AS number, e.id, e.leaf_hash, e.at, e.type
    FROM unnest(CAST(:blocks AS bigint[])) AS block
    JOIN audit.sequence AS s ON s.log = :log AND s.index >= block * 256 AND s.index < (block + 1) * 256
    JOIN audit.entry AS e ON e.id = s.entry_id
    WHERE s.index > :after AND e.terms @> CAST(:party AS text[])
        AND (e.terms && CAST(:types AS text[])
            OR (e.terms && CAST(:held_types AS text[]) AND e.terms && CAST(:held AS text[])))
    ORDER BY s.index LIMIT :limit
    """
)


class Wanted(NamedTuple):
    """Which entries of a party: those of ``types``, and those of ``held_types`` about the datasets it holds."""

    types: Collection[str]
    held_types: Collection[str]
    held: Collection[str]


class Numbered(NamedTuple):
    """The receipt of an entry with its place: log (a year) and number; ``at`` (UTC) and ``type`` are the entry's."""

    log: int
    number: int
    entry_id: UUID
    leaf_hash: bytes
    at: datetime
    type: str


async def of(conn: AsyncConnection, entry_id: UUID) -> Receipt | None:
    """Return the receipt of an entry as it was given at first, or ``None`` where there is no such entry."""
    row = (await conn.execute(_OF, {"entry_id": entry_id})).one_or_none()
    return None if row is None else Receipt(entry_id, bytes(row.leaf_hash), row.pseudonym)


async def page(
    conn: AsyncConnection, party: str, wanted: Wanted, *, after: tuple[int, int], limit: int
) -> list[Numbered]:
    """Return up to ``limit`` numbered entries of a party behind ``after`` (log and number), in the order of the logs.

    A number is never given to an entry behind one that was numbered: whoever goes on where a page ended misses none.
    """
    types = [term("type", name) for name in wanted.types]
    held_types = [term("type", name) for name in wanted.held_types]
    told = {
        "party": [term("party", party)],
        "types": types,
        "held_types": held_types,
        "held": [term("dataset", name) for name in wanted.held],
    }
    found: list[Numbered] = []
    for log, size in (await conn.execute(_LOGS, {"log": after[0]})).all():
        behind = after[1] if log == after[0] else -1
        number = (behind + 1) // _BLOCK
        growing = await conn.scalar(_GROWING, {"log": log})
        while len(found) < limit and number * _BLOCK < size:
            asked = {"log": log, "number": number, "party": told["party"], "types": types + held_types}
            rows = await conn.execute(_BLOCKS, {**asked, "limit": _BLOCKS_AT_ONCE})
            blocks = [row.number for row in rows]
            if len(blocks) < _BLOCKS_AT_ONCE:
                # The block that still grows, and any that was filled meanwhile, are not in the table yet.
                blocks = sorted({*blocks, *range(max(growing, number), size // _BLOCK + 1)})
            if not blocks:
                break
            asked = {**told, "log": log, "after": behind, "blocks": blocks, "limit": limit - len(found)}
            rows = await conn.execute(_ENTRIES, asked)
            found += [Numbered(row.log, row.number, row.id, bytes(row.leaf_hash), row.at, row.type) for row in rows]
            number = blocks[-1] + 1
    return found
