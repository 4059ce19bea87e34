"""Numbers what waits: one process at a time takes pending entries into the tree and signs what the log has become."""

from __future__ import annotations

import asyncio
import contextlib
from uuid import UUID

import psycopg
import structlog
from psycopg.pq import TransactionStatus
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.checkpoint import Signer, open_checkpoint, sign_checkpoint
from audit.connection import Driver, OwnConnection, driver_of
from audit.errors import InvalidNote, LogBroken
from audit.merkle import Frontier

GROUP = 2_000
# Finding what waits costs a look at all of it, so a long backlog is read in larger pieces than it is numbered in.
BACKLOG = 20_000
CHECKPOINT_EVERY_S = 1.0
# "SIISLOG" in ASCII: whoever holds this advisory lock integrates.
_LOCK = 0x53494953_4C4F47

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
SELECT size, frontier, checkpoints, (SELECT coalesce(max(index) + 1, 0) FROM audit.sequence)
FROM audit.tree FOR UPDATE
"""
_LAST_CHECKPOINT = "SELECT size, number, note, root, frontier FROM audit.checkpoint ORDER BY number DESC LIMIT 1"
_LEAVES = "SELECT leaf_hash FROM audit.sequence WHERE index >= %s AND index < %s ORDER BY index"
_INSERT_CHECKPOINT = """
INSERT INTO audit.checkpoint (size, number, note, root, frontier, at)
SELECT %s, %s, %s, %s, %s, e.at
FROM audit.sequence AS s JOIN audit.entry AS e ON e.id = s.entry_id WHERE s.index = %s
"""

Waiting = tuple[UUID, bytes]

_log = structlog.get_logger(__name__)


async def run(engine: AsyncEngine, signer: Signer, stop: asyncio.Event, interval: float = 0.2) -> None:
    """Integrate until ``stop`` is set, looking every ``interval`` seconds; one process works, others wait.

    Whoever waits takes over when the worker's connection ends, for whatever reason. A database that is away is
    tried again; a log that contradicts itself is left alone and complained about until a person looks at it.
    """
    connection = OwnConnection(engine)
    while not stop.is_set():
        try:
            async with connection as driver:
                await _serve(driver, signer, stop, interval)
        except LogBroken as error:
            _log.error("audit.log_broken", reason=str(error))
        except (SQLAlchemyError, psycopg.Error, OSError) as error:
            _log.warning("audit.integrator_without_database", error=type(error).__name__)
        await _pause(stop, CHECKPOINT_EVERY_S)
    await connection.drop()


async def integrate_once(conn: AsyncConnection, signer: Signer) -> int:
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
        total = await _number_all(driver)
        await sign_if_grown(driver, signer)
    finally:
        await _scalar(driver, "SELECT pg_advisory_unlock(%s)")
    return total


async def _serve(driver: Driver, signer: Signer, stop: asyncio.Event, interval: float) -> None:
    """Wait for the lock, then integrate on the connection that holds it: losing one is losing the other."""
    while not await _scalar(driver, "SELECT pg_try_advisory_lock(%s)"):
        if await _pause(stop, interval):
            return
    _log.info("audit.integrating")
    clock = asyncio.get_running_loop().time
    signed_at = clock() - CHECKPOINT_EVERY_S
    stopping = False
    while not stopping:
        # Read before the work, so that what was committed before the stop is still numbered and signed.
        stopping = stop.is_set()
        await _number_all(driver)
        if (stopping or clock() - signed_at >= CHECKPOINT_EVERY_S) and await sign_if_grown(driver, signer):
            signed_at = clock()
        if not stopping:
            await _pause(stop, interval)


async def _number_all(driver: Driver) -> int:
    total = 0
    while rows := await waiting(driver):
        for start in range(0, len(rows), GROUP):
            await number(driver, rows[start : start + GROUP])
        total += len(rows)
        if len(rows) < BACKLOG:
            break
    return total


async def waiting(driver: Driver) -> list[Waiting]:
    """Return what waits for its number, in the order of numbering, as much as is taken in one go."""
    async with driver.transaction(), driver.cursor(binary=True) as cursor:
        await cursor.execute(_WAITING, (BACKLOG,))
        return await cursor.fetchall()


async def number(driver: Driver, rows: list[Waiting]) -> None:
    """Take waiting entries into the tree, in one transaction. Only the holder of the lock may.

    Raises :class:`LogBroken` if tree and sequence disagree about the size of the log.
    """
    async with driver.transaction(), driver.cursor(binary=True) as cursor:
        frontier, _ = await _locked_tree(driver)
        first = frontier.size
        async with cursor.copy("COPY audit.sequence (index, entry_id, leaf_hash) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(("int8", "uuid", "bytea"))
            for index, (entry_id, leaf) in enumerate(rows, first):
                await copy.write_row((index, entry_id, leaf))
                frontier.append(leaf)
        await cursor.execute("UPDATE audit.tree SET size = %s, frontier = %s", (frontier.size, frontier.to_bytes()))
        await cursor.execute("DELETE FROM audit.pending WHERE entry_id = ANY(%s)", ([row[0] for row in rows],))


async def sign_if_grown(driver: Driver, signer: Signer) -> bool:
    """Sign a checkpoint if the log is larger than the last one says; return whether it was.

    A log may sign only what its previous checkpoint is a prefix of (C2SP tlog-checkpoint). So the tree is rebuilt
    from that checkpoint, whose frontier gives the signed root, and the leaves since. Raises :class:`LogBroken` if
    the outcome is not the stored tree.
    """
    async with driver.transaction(), driver.cursor(binary=True) as cursor:
        tree, signed = await _locked_tree(driver)
        await cursor.execute(_LAST_CHECKPOINT)
        last = await cursor.fetchone()
        if (last is None) != (signed == 0) or (last is not None and last[1] != signed - 1):
            raise LogBroken("checkpoints are missing")
        rebuilt = Frontier() if last is None else _signed_frontier(last, signer)
        if rebuilt.size == tree.size:
            return False
        await _extend(driver, rebuilt, tree.size)
        if rebuilt.size != tree.size or rebuilt.hashes != tree.hashes:
            raise LogBroken("the last checkpoint is not a prefix of the log")
        root = tree.root()
        note = sign_checkpoint(signer, tree.size, root)
        values = (tree.size, signed, note, root, tree.to_bytes(), tree.size - 1)
        await cursor.execute(_INSERT_CHECKPOINT, values)
        if cursor.rowcount != 1:
            raise LogBroken("the newest entry is missing")
        await cursor.execute("UPDATE audit.tree SET checkpoints = checkpoints + 1")
    return True


def _signed_frontier(row: tuple[int, int, str, bytes, bytes], signer: Signer) -> Frontier:
    size, _, note, root, data = row
    try:
        checkpoint = open_checkpoint(note, signer.origin, signer.public_key)
        frontier = Frontier(size, data)
    except (InvalidNote, ValueError) as error:
        raise LogBroken("the last checkpoint is not ours") from error
    if (checkpoint.size, checkpoint.root) != (size, root) or frontier.root() != root:
        raise LogBroken("the last checkpoint contradicts itself")
    return frontier


async def _extend(driver: Driver, frontier: Frontier, size: int) -> None:
    async with driver.cursor(name="audit_leaves", binary=True) as cursor:
        cursor.itersize = GROUP
        await cursor.execute(_LEAVES, (frontier.size, size))
        async for (leaf,) in cursor:
            frontier.append(leaf)


async def _locked_tree(driver: Driver) -> tuple[Frontier, int]:
    """Lock the tree; return its frontier and the number of checkpoints signed so far."""
    async with driver.cursor(binary=True) as cursor:
        await cursor.execute(_TREE)
        row = await cursor.fetchone()
    if row is None or row[0] != row[3]:
        raise LogBroken("tree and sequence differ in size")
    try:
        return Frontier(row[0], row[1]), row[2]
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
