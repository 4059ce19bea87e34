"""Checks the whole stored log: recomputes everything that can be recomputed and names the first wrong entry."""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from psycopg.pq import TransactionStatus
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.checkpoint import Signer
from audit.connection import Driver, driver_of
from audit.findings import STATE, WAITING
from audit.merkle import Frontier
from audit.models import Report
from audit.tiles import Edge, TileKey, TileReader, edge_tiles
from audit.verify import NotValid
from audit.walk import Block, Start, StoredCheckpoint, StoredEntry, Walk
from schemas.text import _, translated

_CHUNK = 4_000
_LAST_INDEX = (1 << 63) - 1
_AT = """to_char({0} AT TIME ZONE 'UTC', 'BC YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_ENTRY = f"""
e.id::text, e.envelope, e.leaf_hash, e.detail, e.type, e.outcome, {_AT.format("e.at")}, e.pseudonym::text,
e.writer_slot, e.writer_counter, e.terms
"""
# All queries below are put together from the constants above, never from input.
_NUMBERED = f"""
SELECT s.index, s.entry_id::text, s.leaf_hash, {_ENTRY}
FROM (
    SELECT index, entry_id, leaf_hash FROM audit.sequence
    WHERE log = %s AND index > %s AND index <= %s ORDER BY index LIMIT %s
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
FROM audit.checkpoint WHERE log = %s AND size > %s AND size <= %s ORDER BY size, number
"""  # noqa: S608
_LOGS = """
SELECT log FROM audit.tree
UNION SELECT DISTINCT log FROM audit.checkpoint UNION SELECT DISTINCT log FROM audit.sequence ORDER BY log
"""
_SIZES = """
SELECT (SELECT size FROM audit.tree WHERE log = %(log)s),
    coalesce((SELECT max(size) FROM audit.checkpoint WHERE log = %(log)s), 0)
"""
_PRUNED = "SELECT minimum, chains FROM audit.pruned WHERE log = %s"
_BLOCKS = f"""
SELECT number, {_AT.format("first_at")}, {_AT.format("last_at")}, terms
FROM audit.block WHERE log = %s AND number >= %s AND number <= %s
"""  # noqa: S608
_TILES = "SELECT level, number, hashes FROM audit.tile WHERE log = %s AND level = %s AND number >= %s AND number < %s"
_PENDING = """
SELECT p.entry_id, s.index, e.id IS NULL
FROM audit.pending AS p
LEFT JOIN audit.sequence AS s ON s.entry_id = p.entry_id
LEFT JOIN audit.entry AS e ON e.id = p.entry_id
"""
_WRITERS = "SELECT slot, counter, last_leaf FROM audit.writer"
_TREE = "SELECT size, frontier, checkpoints FROM audit.tree WHERE log = %s"

Progress = Callable[[int, int], None]


async def check_log(conn: AsyncConnection, signer: Signer, progress: Progress | None = None) -> Report:
    """Recompute the logs of all years and compare them with every stored row, while others go on writing.

    ``signer`` tells the keys of the checkpoints and what this machine last signed; nothing is signed. ``progress`` is
    called with entries done and entries in all. Memory does not grow with the log. Raises :class:`ValueError` if
    ``conn`` is in a transaction; database errors come through.
    """
    driver = await driver_of(conn)
    if driver.info.transaction_status != TransactionStatus.IDLE:
        raise ValueError("the connection is in a transaction")
    walk = Walk()
    years = [log for (log,) in await _look(driver, _LOGS)]
    for log in years[:-1]:
        steps = _Steps(conn, driver, walk, log, progress)
        await steps.begin(signer)
        async with _one_snapshot(driver):
            await steps.rest()
            await steps.leave(closed=True)
    # What a checkpoint covers does not change any more, so it is read in short transactions: one snapshot for
    # minutes would keep dead rows of the busy small tables alive and slow every writer down.
    steps = _Steps(conn, driver, walk, years[-1] if years else None, progress)
    if years:
        await steps.begin(signer)
        await steps.signed_part()
    async with _one_snapshot(driver):
        if years:
            await steps.rest()
            await steps.leave(closed=False)
        return await _finish(driver, walk)


@asynccontextmanager
async def _one_snapshot(driver: Driver) -> AsyncIterator[None]:
    async with driver.transaction():
        await driver.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


class _Steps:
    """Where a walk has come to in one log of the database."""

    def __init__(
        self, conn: AsyncConnection, driver: Driver, walk: Walk, log: int | None, progress: Progress | None
    ) -> None:
        self.driver, self.walk, self.log = driver, walk, log
        self.size = self.signed = self.covered = 0
        self.last = -1
        self._conn, self._progress = conn, progress

    async def begin(self, signer: Signer) -> None:
        """Enter the log, behind what was pruned of it."""
        pruned = await _look(self.driver, _PRUNED, (self.log,))
        minimum, chains = (pruned[0][0], pruned[0][1]) if pruned else (0, "{}")
        frontier, edge = Frontier(), Edge()
        if minimum:
            reader = TileReader(self._conn, self.log or 0, minimum)
            frontier = await reader.frontier()
            edge = Edge(minimum, [(key, await reader.tile(key)) for key, _width in edge_tiles(minimum)])
            await self._conn.rollback()
        self.last, self.covered = minimum - 1, 0
        ends = {int(slot): (end[0], a2b_base64(end[1])) for slot, end in orjson.loads(chains).items()}
        try:
            self.walk.remembered = signer.remembered(self.log or 0)
        except NotValid as error:
            self.walk.findings.problem("signature", None, None, translated(error.what), STATE)
        self.walk.begin(Start(self.log or 0, signer.verifier_of(self.log or 0), frontier, edge, ends))

    async def signed_part(self) -> None:
        """Walk over what checkpoints cover, in short transactions."""
        await self._sizes()
        while await self._chunk(self.signed - 1):
            pass

    async def rest(self) -> None:
        """Walk over what is left, in the snapshot that the caller holds."""
        await self._sizes()
        while await self._chunk(_LAST_INDEX):
            pass

    async def _sizes(self) -> None:
        async with self.driver.transaction():
            [(size, self.signed)] = await rows_of(self.driver, _SIZES, {"log": self.log})
        self.size = size or 0

    async def _chunk(self, upto: int) -> bool:
        """Walk over the next numbers up to and with ``upto``; False when there were none."""
        async with self.driver.transaction():
            rows = await rows_of(self.driver, _NUMBERED, (self.log, self.last, upto, _CHUNK))
            if not rows:
                return False
            self.last = rows[-1][0]
            due = await rows_of(self.driver, _CHECKPOINTS, (self.log, self.covered, self.last + 1))
        self.covered = self.last + 1
        self.walk.expect(map(StoredCheckpoint._make, due))
        for index, entry_id, leaf, *stored in rows:
            row = None if stored[0] is None else StoredEntry._make(stored)
            self.walk.numbered(index, entry_id, leaf, row, self.size)
        await self._compare(self.walk.edge.take_full())
        await self._compare_blocks()
        if self._progress is not None:
            self._progress(self.walk.entries, max(self.size, self.walk.entries))
        return True

    async def leave(self, *, closed: bool) -> None:
        """Look at everything of the log that is not in its numbered part."""
        walk = self.walk
        for index, entry_id, leaf, *stored in await rows_of(
            self.driver, _NUMBERED, (self.log, -_LAST_INDEX - 1, -1, _CHUNK)
        ):
            row = None if stored[0] is None else StoredEntry._make(stored)
            walk.numbered(index, entry_id, leaf, row, self.size)
        walk.skip_to(self.size)
        below = await rows_of(self.driver, _CHECKPOINTS, (self.log, -_LAST_INDEX - 1, 0))
        beyond = await rows_of(self.driver, _CHECKPOINTS, (self.log, self.covered, _LAST_INDEX))
        walk.expect(map(StoredCheckpoint._make, [*below, *beyond]))
        walk.leave(await rows_of(self.driver, _TREE, (self.log,)), closed=closed)
        await self._compare(walk.edge.growing())

    async def _compare(self, tiles: dict[TileKey, bytes]) -> None:
        """Hold the stored tiles to those of the walk."""
        for level in {key.level for key in tiles}:
            numbers = [key.number for key in tiles if key.level == level]
            async with self.driver.transaction():
                rows = await rows_of(self.driver, _TILES, (self.log, level, min(numbers), max(numbers) + 1))
            stored = {TileKey(*row[:2]): row[2] for row in rows}
            for number in numbers:
                key = TileKey(level, number)
                # A growing tile may have grown since; what it had then must still be its beginning.
                found = stored.get(key, b"")[: len(tiles[key])]
                self.walk.tile(level, number, found, tiles[key])

    async def _compare_blocks(self) -> None:
        """Hold the stored blocks to what occurs in the entries of the walk."""
        expected, self.walk.blocks = self.walk.blocks, {}
        if not expected:
            return
        async with self.driver.transaction():
            rows = await rows_of(self.driver, _BLOCKS, (self.log, min(expected), max(expected)))
        stored = {number: Block(first, last, set(terms)) for number, first, last, terms in rows}
        for number, block in expected.items():
            self.walk.block(number, stored.get(number), block)


async def _finish(driver: Driver, walk: Walk) -> Report:
    """Look, in one snapshot, at what has no number, and at what the writers remember."""
    walk.findings.log = None
    writers = await rows_of(driver, _WRITERS)
    counters = {slot: counter for slot, counter, _leaf in writers}
    async for waiting, *stored in _stream(driver, _UNNUMBERED):
        walk.unnumbered(StoredEntry._make(stored), waiting, counters)
    pending = removed = 0
    async for entry_id, index, absent in _stream(driver, _PENDING):
        pending += 1
        removed += absent
        if index is not None:
            what = _("la entrada tiene número y sigue en espera")
            walk.findings.problem("duplicated", index, entry_id, what)
        elif absent:
            walk.findings.problem("missing", None, entry_id, _("la entrada en espera fue quitada"), WAITING)
    walk.writers(writers, named=removed > 0)
    return Report(walk.entries, pending, walk.checkpoints, walk.frontier.root(), walk.findings.conclude())


async def _look(driver: Driver, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    async with driver.transaction():
        return await rows_of(driver, query, values)


async def rows_of(driver: Driver, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
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
