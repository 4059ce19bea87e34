"""Checks the whole stored log: recomputes everything that can be recomputed and names the first wrong entry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from psycopg.pq import TransactionStatus
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.connection import Driver, driver_of
from audit.findings import WAITING
from audit.models import Report
from audit.walk import StoredCheckpoint, StoredEntry, Walk
from schemas.text import _

_CHUNK = 4_000
_LAST_INDEX = (1 << 63) - 1
_AT = """to_char({0} AT TIME ZONE 'UTC', 'BC YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_ENTRY = f"""
e.id::text, e.envelope, e.leaf_hash, e.detail, e.type, e.outcome, {_AT.format("e.at")}, e.pseudonym::text,
e.writer_slot, e.writer_counter
"""
# All queries below are put together from the constants above, never from input.
_NUMBERED = f"""
SELECT s.index, s.entry_id::text, s.leaf_hash, {_ENTRY}
FROM (
    SELECT index, entry_id, leaf_hash FROM audit.sequence
    WHERE index > %s AND index <= %s ORDER BY index LIMIT %s
) AS s
LEFT JOIN LATERAL (SELECT * FROM audit.entry WHERE id = s.entry_id OFFSET 0) AS e ON true
ORDER BY s.index
"""  # noqa: S608 — and OFFSET 0 keeps the planner from reading the whole table for each chunk
_UNNUMBERED = f"""
SELECT EXISTS (SELECT FROM audit.pending AS p WHERE p.entry_id = e.id), {_ENTRY}
FROM audit.entry AS e
WHERE NOT EXISTS (SELECT FROM audit.sequence AS s WHERE s.entry_id = e.id)
ORDER BY e.writer_slot, e.writer_counter, e.id
"""  # noqa: S608
_CHECKPOINTS = f"""
SELECT size, number, note, root, frontier, {_AT.format("at")}
FROM audit.checkpoint WHERE size > %s AND size <= %s ORDER BY size, number
"""  # noqa: S608
_SIZES = "SELECT (SELECT max(size) FROM audit.tree), coalesce((SELECT max(size) FROM audit.checkpoint), 0)"
_PENDING = """
SELECT p.entry_id, s.index, e.id IS NULL
FROM audit.pending AS p
LEFT JOIN audit.sequence AS s ON s.entry_id = p.entry_id
LEFT JOIN audit.entry AS e ON e.id = p.entry_id
"""
_WRITERS = "SELECT slot, counter, last_leaf FROM audit.writer"
_TREE = "SELECT size, frontier, checkpoints FROM audit.tree"

Progress = Callable[[int, int], None]


async def check_log(
    conn: AsyncConnection, public_key: Ed25519PublicKey, origin: str, progress: Progress | None = None
) -> Report:
    """Recompute the log and compare it with every stored row, while others go on writing to it.

    ``public_key`` and ``origin`` are those of the log's checkpoints. ``progress`` is called with entries done and
    entries in all. Memory does not grow with the log. Raises :class:`ValueError` if ``conn`` is in a transaction;
    database errors come through.
    """
    driver = await driver_of(conn)
    if driver.info.transaction_status != TransactionStatus.IDLE:
        raise ValueError("the connection is in a transaction")
    walk = Walk(public_key, origin)
    steps = _Steps(driver, walk, progress)
    # What a checkpoint covers does not change any more, so it is read in short transactions: one snapshot for
    # minutes would keep dead rows of the busy small tables alive and slow every writer down.
    await steps.sizes()
    while await steps.chunk(steps.signed - 1):
        pass
    async with driver.transaction():
        await driver.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await steps.sizes()
        while await steps.chunk(_LAST_INDEX):
            pass
        return await _finish(steps)


class _Steps:
    """Where a walk has come to in the database."""

    def __init__(self, driver: Driver, walk: Walk, progress: Progress | None) -> None:
        self.driver, self.walk = driver, walk
        self.size = self.signed = self.covered = 0
        self.last = -1
        self._progress = progress

    async def sizes(self) -> None:
        """Read how far tree and checkpoints have come."""
        async with self.driver.transaction():
            [(size, self.signed)] = await rows_of(self.driver, _SIZES)
        self.size = size or 0

    async def chunk(self, upto: int) -> bool:
        """Walk over the next numbers up to and with ``upto``; False when there were none."""
        async with self.driver.transaction():
            rows = await rows_of(self.driver, _NUMBERED, (self.last, upto, _CHUNK))
            if not rows:
                return False
            self.last = rows[-1][0]
            due = await rows_of(self.driver, _CHECKPOINTS, (self.covered, self.last + 1))
        self.covered = self.last + 1
        self.walk.expect(map(StoredCheckpoint._make, due))
        for index, entry_id, leaf, *stored in rows:
            row = None if stored[0] is None else StoredEntry._make(stored)
            self.walk.numbered(index, entry_id, leaf, row, self.size)
        if self._progress is not None:
            self._progress(self.walk.entries, max(self.size, self.walk.entries))
        return True


async def _finish(steps: _Steps) -> Report:
    """Look, in one snapshot, at everything that is not in the numbered part."""
    driver, walk = steps.driver, steps.walk
    for index, entry_id, leaf, *stored in await rows_of(driver, _NUMBERED, (-_LAST_INDEX - 1, -1, _CHUNK)):
        row = None if stored[0] is None else StoredEntry._make(stored)
        walk.numbered(index, entry_id, leaf, row, steps.size)
    walk.skip_to(steps.size)
    below = await rows_of(driver, _CHECKPOINTS, (-_LAST_INDEX - 1, 0))
    beyond = await rows_of(driver, _CHECKPOINTS, (steps.covered, _LAST_INDEX))
    walk.expect(map(StoredCheckpoint._make, [*below, *beyond]))
    writers = await rows_of(driver, _WRITERS)
    counters = {slot: counter for slot, counter, _leaf in writers}
    async for waiting, *stored in _stream(driver, _UNNUMBERED):
        walk.unnumbered(StoredEntry._make(stored), waiting, counters)
    pending = 0
    async for entry_id, index, absent in _stream(driver, _PENDING):
        pending += 1
        if index is not None:
            what = _("la entrada tiene número y sigue en espera")
            walk.findings.problem("duplicated", index, entry_id, what)
        elif absent:
            walk.findings.problem("missing", None, entry_id, _("la entrada en espera fue quitada"), WAITING)
    walk.finish(writers, await rows_of(driver, _TREE))
    return Report(walk.entries, pending, walk.checkpoints, walk.frontier.root(), walk.findings.conclude())


async def rows_of(driver: Driver, query: str, values: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
    """Run one of the queries above and return its rows."""
    async with driver.cursor(binary=True) as cursor:
        await cursor.execute(query, values)
        return await cursor.fetchall()


async def _stream(driver: Driver, query: str) -> AsyncIterator[tuple[Any, ...]]:
    async with driver.cursor(name="audit_check", binary=True) as cursor:
        cursor.itersize = _CHUNK
        await cursor.execute(query)
        async for row in cursor:
            yield row
