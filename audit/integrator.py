"""Numbers what waits: one process at a time takes pending entries into the tree and signs what the log has become.

Each year has a log of its own. The first entry of a new one holds the last checkpoint of the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import structlog
from prometheus_client import Counter
from psycopg.pq import TransactionStatus
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.checkpoint import Signer, sign_checkpoint
from audit.connection import Driver, OwnConnection, driver_of
from audit.errors import AuditUnavailable, LogBroken
from audit.merkle import Frontier
from audit.models import Entry
from audit.service import AuditLog
from audit.tiles import WIDTH, Edge, TileKey, edge_tiles
from audit.verify import NotValid, open_signed

GROUP = 2_000
# Finding what waits costs a look at all of it, so a long backlog is read in larger pieces than it is numbered in.
BACKLOG = 20_000
CHECKPOINT_EVERY_S = 1.0
# "SIISLOG" in ASCII: whoever holds this advisory lock integrates.
_LOCK = 0x53494953_4C4F47
# Who integrates asks the database several times a second; silent for so long, its process hangs or its host is gone.
SILENT_S = 5.0

# Taken from the waiting rows, never as "id greater than the last": ids become visible out of order. Within a writer
# the order is that of its counter, which is the order of its commits, so chains stay whole. OFFSET 0 and the scalar
# subquery hold the planner to one index look-up per waiting row, whatever it believes about tables that only grow.
_WAITING = """
SELECT p.entry_id, e.leaf_hash
FROM audit.pending AS p
CROSS JOIN LATERAL (
    SELECT leaf_hash, writer_slot, writer_counter FROM audit.entry WHERE id = p.entry_id OFFSET 0
) AS e
WHERE (SELECT s.index FROM audit.sequence AS s WHERE s.entry_id = p.entry_id LIMIT 1) IS NULL
ORDER BY e.writer_slot, e.writer_counter, p.entry_id
LIMIT %s
"""
_TREE = """
SELECT log, size, frontier, checkpoints,
    (SELECT coalesce(max(index) + 1, 0) FROM audit.sequence AS s WHERE s.log = t.log),
    (SELECT minimum FROM audit.pruned AS p WHERE p.log = t.log)
FROM audit.tree AS t ORDER BY log DESC LIMIT 1 FOR UPDATE
"""
_EDGES = """
SELECT t.level, t.number, t.hashes
FROM audit.tile AS t JOIN unnest(%s::smallint[], %s::bigint[]) AS wanted (level, number)
    ON t.level = wanted.level AND t.number = wanted.number
WHERE t.log = %s
"""
_SAVE_TILES = """
INSERT INTO audit.tile (log, level, number, hashes)
SELECT %s, level, number, hashes FROM unnest(%s::smallint[], %s::bigint[], %s::bytea[]) AS t (level, number, hashes)
ON CONFLICT (log, level, number) DO UPDATE SET hashes = excluded.hashes
"""
# What occurs in the blocks that are full now, once per block.
_SAVE_BLOCKS = f"""
INSERT INTO audit.block (log, number, first_at, last_at, terms)
SELECT %(log)s, s.index / {WIDTH}, min(e.at), max(e.at), coalesce(array_agg(DISTINCT t.term), '{{}}')
FROM audit.sequence AS s
JOIN audit.entry AS e ON e.id = s.entry_id
LEFT JOIN LATERAL unnest(e.terms) AS t (term) ON true
WHERE s.log = %(log)s AND s.index >= %(first)s AND s.index < %(end)s
GROUP BY s.index / {WIDTH}
"""  # noqa: S608 — a constant of ours
_LAST_CHECKPOINT = """
SELECT size, number, note, root, frontier FROM audit.checkpoint WHERE log = %s ORDER BY number DESC LIMIT 1
"""
_LEAVES = "SELECT leaf_hash FROM audit.sequence WHERE log = %s AND index >= %s AND index < %s ORDER BY index"
_INSERT_CHECKPOINT = """
INSERT INTO audit.checkpoint (log, size, number, note, root, frontier, at)
SELECT s.log, %s, %s, %s, %s, %s, e.at
FROM audit.sequence AS s JOIN audit.entry AS e ON e.id = s.entry_id WHERE s.log = %s AND s.index = %s
"""
_SAVE_TREE = "UPDATE audit.tree SET size = %s, frontier = %s WHERE log = %s"
_NEW_TREE = "INSERT INTO audit.tree (log, size, frontier, checkpoints) VALUES (%s, 0, '', 0) ON CONFLICT DO NOTHING"
# A lock lives as long as its connection, and that one as long as the host seems to: a silent holder is cut off.
_CUT_OFF = """
SELECT pg_terminate_backend(a.pid)
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.objsubid = 1 AND l.granted
    AND a.state <> 'active' AND a.state_change < clock_timestamp() - make_interval(secs => %s)
"""

Waiting = tuple[UUID, bytes]

_log = structlog.get_logger(__name__)
_broken = Counter("siis_audit_log_broken_total", "Looks at a log that contradicts itself; it is not written to")


@dataclass(frozen=True, slots=True)
class Tree:
    """The stored state of a log: its year, right edge, how many checkpoints were signed, what was pruned below."""

    log: int
    frontier: Frontier
    checkpoints: int
    minimum: int


def utc_now() -> datetime:
    """Return the current instant; its year in UTC says which log is written to."""
    return datetime.now(UTC)


async def run(
    engine: AsyncEngine,
    signer: Signer,
    log: AuditLog,
    stop: asyncio.Event,
    interval: float = 0.2,
    now: Callable[[], datetime] = utc_now,
) -> None:
    """Integrate until ``stop`` is set, looking every ``interval`` seconds; one process works, others wait.

    Whoever waits takes over when the worker's connection ends, and ends it when the worker is silent for
    :data:`SILENT_S` seconds. A database that is away is tried again; a log that contradicts itself is left alone and
    complained about until a person looks at it.
    """
    connection = OwnConnection(engine)
    while not stop.is_set():
        try:
            async with connection as driver:
                await _serve(Integrator(driver, signer, log, now), stop, interval)
        except LogBroken as error:
            _broken.inc()
            _log.error("audit.log_broken", reason=str(error))
        except (SQLAlchemyError, psycopg.Error, OSError, AuditUnavailable) as error:
            _log.warning("audit.integrator_without_database", error=type(error).__name__)
        await _pause(stop, CHECKPOINT_EVERY_S)
    await connection.drop()


async def integrate_once(
    conn: AsyncConnection, signer: Signer, log: AuditLog, now: Callable[[], datetime] = utc_now
) -> int:
    """Number everything that waits now and sign; return how many entries were numbered.

    Does nothing while another process integrates. Raises :class:`LogBroken`, and :class:`ValueError` if ``conn`` is
    in a transaction.
    """
    driver = await driver_of(conn)
    if driver.info.transaction_status != TransactionStatus.IDLE:
        raise ValueError("the connection is in a transaction")
    if not await _scalar(driver, "SELECT pg_try_advisory_lock(%s)"):
        return 0
    try:
        work = Integrator(driver, signer, log, now)
        total = await work.number_all()
        await work.sign_if_grown()
    finally:
        await _scalar(driver, "SELECT pg_advisory_unlock(%s)")
    return total


async def _serve(work: Integrator, stop: asyncio.Event, interval: float) -> None:
    """Wait for the lock, then integrate on the connection that holds it: losing one is losing the other."""
    clock = asyncio.get_running_loop().time
    looked_at = clock()
    while not await _scalar(work.driver, "SELECT pg_try_advisory_lock(%s)"):
        if clock() - looked_at >= CHECKPOINT_EVERY_S:
            await _cut_off(work.driver)
            looked_at = clock()
        if await _pause(stop, interval):
            return
    _log.info("audit.integrating")
    signed_at = clock() - CHECKPOINT_EVERY_S
    stopping = False
    while not stopping:
        # Read before the work, so that what was committed before the stop is still numbered and signed.
        stopping = stop.is_set()
        await work.number_all()
        if (stopping or clock() - signed_at >= CHECKPOINT_EVERY_S) and await work.sign_if_grown():
            signed_at = clock()
        if not stopping:
            await _pause(stop, interval)


async def _cut_off(driver: Driver) -> None:
    async with driver.transaction(), driver.cursor() as cursor:
        await cursor.execute(_CUT_OFF, (_LOCK >> 32, _LOCK & 0xFFFFFFFF, SILENT_S))
        if await cursor.fetchone() is not None:
            _log.warning("audit.silent_integrator_cut_off")


async def waiting(driver: Driver) -> list[Waiting]:
    """Return what waits for its number, in the order of numbering, as much as is taken in one go."""
    async with driver.transaction(), driver.cursor(binary=True) as cursor:
        await cursor.execute(_WAITING, (BACKLOG,))
        return await cursor.fetchall()


class Integrator:
    """What the holder of the lock does, each step in a transaction of its own."""

    def __init__(self, driver: Driver, signer: Signer, log: AuditLog, now: Callable[[], datetime]) -> None:
        self.driver = driver
        self._signer, self._log, self._now = signer, log, now

    async def number_all(self) -> int:
        """Number what waits, in the log of the year; return how many entries were numbered."""
        await self._open_log()
        total = 0
        while (numbered := await self._number_waiting()) >= BACKLOG:
            total += numbered
        return total + numbered

    async def _number_waiting(self) -> int:
        rows = await waiting(self.driver)
        for start in range(0, len(rows), GROUP):
            await self.number(rows[start : start + GROUP])
        return len(rows)

    async def _open_log(self) -> None:
        """Make the log of the year if there is none; it begins with the last checkpoint of the one before."""
        year = self._now().astimezone(UTC).year
        async with self.driver.transaction():
            tree = await _locked_tree(self.driver)
            if tree is not None and tree.log >= year:
                return
            if tree is None or tree.frontier.size == 0:
                await self.driver.execute(_NEW_TREE, (year,))
                return
        # What waits still belongs to the old log: from here on its end is signed and nothing is added to it.
        while await self._number_waiting():
            pass
        await self.sign_if_grown()
        async with self.driver.transaction(), self.driver.cursor(binary=True) as cursor:
            closed = await self._tree()
            await cursor.execute(_LAST_CHECKPOINT, (closed.log,))
            last = await cursor.fetchone()
            if last is None or last[0] != closed.frontier.size:
                raise LogBroken("the log of last year is not signed to its end")
            opening = Entry(
                at=self._now(),
                type="log.opened",
                outcome="done",
                policy_version="none",
                statement={"log": year, "previous": closed.log, "checkpoint": last[2]},
            )
            await cursor.execute(_NEW_TREE, (year,))
            receipt = await self._log.write_first(self.driver, opening)
            await self._take(Tree(year, Frontier(), 0, 0), [(receipt.entry_id, receipt.leaf_hash)])

    async def number(self, rows: list[Waiting]) -> None:
        """Take waiting entries into the tree.

        Raises :class:`LogBroken` if tree, tiles and sequence disagree about the log.
        """
        async with self.driver.transaction():
            await self._take(await self._tree(), rows)
            ids = [row[0] for row in rows]
            await self.driver.execute("DELETE FROM audit.pending WHERE entry_id = ANY(%s)", (ids,))

    async def _take(self, tree: Tree, rows: list[Waiting]) -> None:
        frontier, first = tree.frontier, tree.frontier.size
        edge = await self._edge(tree)
        async with self.driver.cursor(binary=True) as cursor:
            copying = "COPY audit.sequence (log, index, entry_id, leaf_hash) FROM STDIN (FORMAT BINARY)"
            async with cursor.copy(copying) as copy:
                copy.set_types(("int2", "int8", "uuid", "bytea"))
                for index, (entry_id, leaf) in enumerate(rows, first):
                    await copy.write_row((tree.log, index, entry_id, leaf))
                    frontier.append(leaf)
                    edge.append(leaf)
            tiles = edge.take_full() | edge.growing()
            levels, numbers = [key.level for key in tiles], [key.number for key in tiles]
            await cursor.execute(_SAVE_TILES, (tree.log, levels, numbers, list(tiles.values())))
            span = {"log": tree.log, "first": first // WIDTH * WIDTH, "end": frontier.size // WIDTH * WIDTH}
            if span["first"] < span["end"]:
                await cursor.execute(_SAVE_BLOCKS, span)
            await cursor.execute(_SAVE_TREE, (frontier.size, frontier.to_bytes(), tree.log))

    async def _edge(self, tree: Tree) -> Edge:
        keys = [key for key, _width in edge_tiles(tree.frontier.size)]
        async with self.driver.cursor(binary=True) as cursor:
            await cursor.execute(_EDGES, ([key.level for key in keys], [key.number for key in keys], tree.log))
            found = [(TileKey(level, number), hashes) for level, number, hashes in await cursor.fetchall()]
        return Edge(tree.frontier.size, found)

    async def sign_if_grown(self) -> bool:
        """Sign a checkpoint if the log is larger than the last one says; return whether it was.

        A log may sign only what its previous checkpoint is a prefix of (C2SP tlog-checkpoint). So the tree is rebuilt
        from that checkpoint, whose frontier gives the signed root, and the leaves since. Raises :class:`LogBroken` if
        the outcome is not the stored tree.
        """
        async with self.driver.transaction(), self.driver.cursor(binary=True) as cursor:
            tree = await self._tree()
            signer = self._signer.of(tree.log)
            await cursor.execute(_LAST_CHECKPOINT, (tree.log,))
            last = await cursor.fetchone()
            if (last is None) != (tree.checkpoints == 0) or (last is not None and last[1] != tree.checkpoints - 1):
                raise LogBroken("checkpoints are missing")
            rebuilt = Frontier() if last is None else _signed_frontier(last, signer)
            if rebuilt.size == tree.frontier.size:
                return False
            await self._require_remembered(tree.log)
            await self._extend(rebuilt, tree)
            if rebuilt.size != tree.frontier.size or rebuilt.hashes != tree.frontier.hashes:
                raise LogBroken("the last checkpoint is not a prefix of the log")
            size, root = tree.frontier.size, tree.frontier.root()
            note = sign_checkpoint(signer, size, root)
            values = (size, tree.checkpoints, note, root, tree.frontier.to_bytes(), tree.log, size - 1)
            await cursor.execute(_INSERT_CHECKPOINT, values)
            if cursor.rowcount != 1:
                raise LogBroken("the newest entry is missing")
            await cursor.execute("UPDATE audit.tree SET checkpoints = checkpoints + 1 WHERE log = %s", (tree.log,))
        # After the commit: a file ahead of the database would stop an honest log for ever.
        try:
            self._signer.remember(tree.log, note)
        except OSError as error:
            # The checkpoint is signed and stored; only a restored older copy would go unnoticed until it is mended.
            _log.error("audit.signed_not_remembered", error=type(error).__name__)
        return True

    async def _require_remembered(self, log: int) -> None:
        """Raise :class:`LogBroken` unless the log holds what this machine last signed of it."""
        try:
            last = self._signer.remembered(log)
        except NotValid as error:
            raise LogBroken("what was signed last cannot be read") from error
        if last is None:
            return
        async with self.driver.cursor(binary=True) as cursor:
            await cursor.execute("SELECT root FROM audit.checkpoint WHERE log = %s AND size = %s", (log, last.size))
            row = await cursor.fetchone()
        if row is None or row[0] != last.root:
            raise LogBroken("the log does not hold what was signed last")

    async def _extend(self, frontier: Frontier, tree: Tree) -> None:
        async with self.driver.cursor(name="audit_leaves", binary=True) as cursor:
            cursor.itersize = GROUP
            await cursor.execute(_LEAVES, (tree.log, frontier.size, tree.frontier.size))
            async for (leaf,) in cursor:
                frontier.append(leaf)

    async def _tree(self) -> Tree:
        tree = await _locked_tree(self.driver)
        if tree is None:
            raise LogBroken("the state of the tree is missing")
        return tree


def _signed_frontier(row: tuple[int, int, str, bytes, bytes], signer: Signer) -> Frontier:
    size, _, note, root, data = row
    try:
        checkpoint = open_signed(note, signer.verifier)
        frontier = Frontier(size, data)
    except ValueError as error:
        raise LogBroken("the last checkpoint is not ours") from error
    if (checkpoint.size, checkpoint.root) != (size, root) or frontier.root() != root:
        raise LogBroken("the last checkpoint contradicts itself")
    return frontier


async def _locked_tree(driver: Driver) -> Tree | None:
    """Lock the newest log's tree and return it, ``None`` before there is any."""
    async with driver.cursor(binary=True) as cursor:
        await cursor.execute(_TREE)
        row = await cursor.fetchone()
    if row is None:
        return None
    log, size, frontier, checkpoints, numbered, minimum = row
    if size != max(numbered, minimum or 0):
        raise LogBroken("tree and sequence differ in size")
    try:
        return Tree(log, Frontier(size, frontier), checkpoints, minimum or 0)
    except ValueError as error:
        raise LogBroken("the stored frontier does not fit its size") from error


async def _scalar(driver: Driver, query: str) -> bool:
    async with driver.transaction(), driver.cursor() as cursor:
        await cursor.execute(query, (_LOCK,))
        row = await cursor.fetchone()
    return bool(row and row[0])


async def _pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for the stop, at most so long; return whether it came."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()
