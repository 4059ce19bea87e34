"""The two ways into the log: staged in the caller's transaction, or appended in a commit shared by all who wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.batch import Batcher
from audit.connection import Driver, OwnConnection, driver_of, within_budget
from audit.envelope import Link, Row, Sealed, finish, seal
from audit.errors import AuditError, AuditUnavailable, DuplicateEntry
from audit.keys import Epochs, SubjectKeys
from audit.models import Entry, Receipt
from audit.tables import INTEGRATOR_SLOT, WRITER_SLOTS

_GROUP = 1_000
_BOUND = 10_000

# Every connection prefers a slot of its own, so that one that stages twice finds the slot it holds already.
_NEXT_SLOT = f"""
SELECT slot, counter, last_leaf FROM audit.writer WHERE slot < {WRITER_SLOTS}
ORDER BY (slot + pg_backend_pid()) % {WRITER_SLOTS} LIMIT 1 FOR UPDATE
"""  # noqa: S608 — a constant of ours
_FREE_SLOT = f"{_NEXT_SLOT} SKIP LOCKED"
_STAGE = """
SELECT audit.stage(
    %(id)s, %(opening)s, %(detail)s, %(type)s, %(outcome)s, %(at)s, %(pseudonym)s, CAST(%(terms)s AS text[])
)
"""
_COPY = """
COPY audit.entry (id, envelope, leaf_hash, detail, type, outcome, at, pseudonym, writer_slot, writer_counter, terms)
FROM STDIN (FORMAT BINARY)
"""
_COPY_TYPES = ("uuid", "bytea", "bytea", "bytea", "text", "text", "timestamptz", "uuid", "int4", "int8", "text[]")
_ADVANCE = """
WITH waiting AS (INSERT INTO audit.pending (entry_id) SELECT unnest(%s::uuid[]))
UPDATE audit.writer SET counter = %s, last_leaf = %s WHERE slot = %s
"""
_OWN_SLOT = "SELECT slot, counter, last_leaf FROM audit.writer WHERE slot = %s FOR UPDATE"
_MOVE = "UPDATE audit.writer SET counter = %s, last_leaf = %s WHERE slot = %s"


class AuditLog:
    """The log as the rest of the program sees it; one per process, made in the running event loop."""

    def __init__(self, engine: AsyncEngine, epochs: Epochs, recorder: str) -> None:
        """``epochs`` are the keys that wrap data keys; ``recorder`` is the name of this gateway instance.

        Two connections are kept beside the pool of ``engine``, with its settings.
        """
        self._recorder = recorder
        self._keys = SubjectKeys(engine, epochs)
        self._connection = OwnConnection(engine)
        self._batcher: Batcher[Sealed, Receipt] = Batcher(self._flush, group=_GROUP, bound=_BOUND)

    async def start(self) -> None:
        """Reach the database now, so that a start fails and not the first request; raises AuditUnavailable."""
        await self._keys.start()

    async def close(self) -> None:
        """Commit what waits, then close our connections."""
        await self._batcher.close()
        await self._keys.close()
        await self._connection.drop()

    async def stage(self, conn: AsyncConnection, entry: Entry) -> Receipt:
        """Write an entry in the caller's transaction: it is in the log if and only if that transaction commits.

        Holds one of the writer slots until then, so stage last. The transaction must be READ COMMITTED. Raises
        :class:`AuditUnavailable` or :class:`DuplicateEntry`, after which the transaction can only roll back, and
        :class:`SubjectErased`.
        """
        sealed = await self._seal(entry)
        values = {
            "id": entry.id,
            "opening": sealed.opening,
            "detail": sealed.detail,
            "type": entry.type,
            "outcome": entry.outcome,
            "at": entry.at,
            "pseudonym": sealed.pseudonym,
            "terms": sealed.terms,
        }
        try:
            if not conn.in_transaction():
                # Otherwise its commit would know of nothing to commit.
                await conn.begin()
            # Past SQLAlchemy, whose execution takes several times as long as the database needs.
            cursor = await (await driver_of(conn)).execute(_STAGE, values, binary=True)
            [leaf] = await cursor.fetchone() or (b"",)
        except psycopg.errors.UniqueViolation as error:
            raise DuplicateEntry(entry.id) from error
        except (SQLAlchemyError, psycopg.Error, OSError) as error:
            raise AuditUnavailable("the entry could not be staged") from error
        return Receipt(entry.id, leaf, sealed.pseudonym)

    async def append(self, entry: Entry) -> Receipt:
        """Write an entry by itself and return once it is committed to disk.

        Everybody waiting shares one transaction. Raises :class:`AuditUnavailable` (the entry may or may not be
        found in the log later, but nothing may be released on it), :class:`DuplicateEntry`,
        :class:`SubjectErased`.
        """
        [receipt] = await self._batcher.submit([await self._seal(entry)])
        return receipt

    async def append_many(self, entries: Sequence[Entry]) -> list[Receipt]:
        """Write entries that belong together, in order and in one transaction; raises as :meth:`append`."""
        if not entries:
            return []
        keys = await self._keys.of_all(entry.subject for entry in entries)
        own = (await self._keys.of(None)).key
        sealed = [seal(entry, key, self._recorder, own) for entry, key in zip(entries, keys, strict=True)]
        return await self._batcher.submit(sealed)

    async def write_first(self, driver: Driver, entry: Entry) -> Receipt:
        """Write an entry in the driver's transaction behind the integrator's own last one, without waiting in line.

        For the process that numbers, which numbers it in the same transaction.
        """
        sealed = await self._seal(entry)
        async with driver.cursor(binary=True) as cursor:
            await cursor.execute(_OWN_SLOT, (INTEGRATOR_SLOT,))
            slot = await cursor.fetchone()
            if slot is None:
                raise psycopg.DataError("the log has no writer slot for who numbers")
            row = finish(sealed, Link(*slot))
            await _write(cursor, [row])
            await cursor.execute(_MOVE, (row.link.counter, row.link.leaf, row.link.slot))
        return _receipt(row)

    def forget(self, subjects: Iterable[UUID]) -> None:
        """Drop keys from memory, so that an entry about a person whose key was destroyed is refused from now on."""
        self._keys.forget(subjects)

    async def search_key(self) -> bytes:
        """Return the key under which users' names are search terms (:func:`audit.terms.user_term`)."""
        return (await self._keys.of(None)).key

    async def _seal(self, entry: Entry) -> Sealed:
        own = await self._keys.of(None)
        return seal(entry, await self._keys.of(entry.subject), self._recorder, own.key)

    async def _flush(self, group: list[Sealed]) -> Sequence[Receipt | AuditError]:
        try:
            async with self._connection as driver:
                return await within_budget(_commit(driver, group))
        except psycopg.errors.UniqueViolation as error:
            if len(group) == 1:
                return [_duplicate(group[0], error)]
        except (SQLAlchemyError, psycopg.Error, OSError) as error:
            raise AuditUnavailable("the entries could not be committed") from error
        # One caller's duplicate must not cost the others their entries: halve until it stands alone.
        middle = len(group) // 2
        return [*await self._flush(group[:middle]), *await self._flush(group[middle:])]


def _duplicate(sealed: Sealed, cause: BaseException) -> DuplicateEntry:
    error = DuplicateEntry(sealed.entry.id)
    error.__cause__ = cause
    return error


async def _commit(driver: Driver, group: list[Sealed]) -> list[Receipt]:
    """Write a group behind one writer's last entry, in one transaction."""
    async with driver.cursor() as cursor:
        # Two statements in one round trip, which the simple protocol allows as long as there are no parameters.
        await cursor.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED; {_FREE_SLOT}")
        cursor.nextset()
        slot = await cursor.fetchone()
        if slot is None:
            await cursor.execute(_NEXT_SLOT)
            slot = await cursor.fetchone()
        if slot is None:
            raise psycopg.DataError("the log has no writer slots")
        link = Link(*slot)
        rows = []
        for sealed in group:
            rows.append(finish(sealed, link))
            link = rows[-1].link
        await _write(cursor, rows)
        async with driver.pipeline():
            ids = [sealed.entry.id for sealed in group]
            await cursor.execute(_ADVANCE, (ids, link.counter, link.leaf, link.slot))
            await cursor.execute("COMMIT")
    return [_receipt(row) for row in rows]


async def _write(cursor: psycopg.AsyncCursor[tuple[Any, ...]], rows: list[Row]) -> None:
    async with cursor.copy(_COPY) as copy:
        copy.set_types(_COPY_TYPES)
        for row in rows:
            await copy.write_row(_columns(row))


def _columns(row: Row) -> tuple[Any, ...]:
    entry, link = row.sealed.entry, row.link
    return (
        entry.id,
        row.envelope,
        link.leaf,
        row.sealed.detail,
        entry.type,
        entry.outcome,
        entry.at,
        row.sealed.pseudonym,
        link.slot,
        link.counter,
        row.sealed.terms,
    )


def _receipt(row: Row) -> Receipt:
    return Receipt(row.sealed.entry.id, row.link.leaf, row.sealed.pseudonym)
