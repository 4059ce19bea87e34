"""Makes what the log tells of a person unreadable, by destroying the key it is encrypted under; every proof stays.

For the role that owns the tables: the application may not change a subject's row. What was destroyed is still in
backups of the database, wrapped, until the key of its epoch is destroyed too (:func:`rewrap`).
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.keys import Epochs
from audit.tables import KEY_CHANNEL

_DESTROY = text(
    """
    UPDATE audit.subject_key SET wrapped_key = NULL, erased_at = :at
    WHERE subject = :subject AND erased_at IS NULL
    RETURNING pseudonym
    """
)
_COUNT = text("SELECT count(*) FROM audit.entry WHERE pseudonym = :pseudonym")
_ANNOUNCE = text("SELECT pg_notify(:channel, '')")
_ERASED = text("SELECT subject FROM audit.subject_key WHERE erased_at >= :since")
_LIST = text(
    """
    SELECT k.pseudonym, k.erased_at, (SELECT count(*) FROM audit.entry AS e WHERE e.pseudonym = k.pseudonym)
    FROM audit.subject_key AS k WHERE k.erased_at IS NOT NULL ORDER BY k.erased_at DESC, k.pseudonym
    """
)
_NEWEST = text(
    """
    SELECT max(e.at) FROM audit.entry AS e JOIN audit.subject_key AS k ON k.pseudonym = e.pseudonym
    WHERE k.subject = :subject AND split_part(e.type, '.', 1) = ANY(CAST(:kinds AS text[]))
    """
)
_EPOCHS = text("SELECT number FROM audit.epoch WHERE destroyed_at IS NULL ORDER BY number")
_OPEN_EPOCH = text("INSERT INTO audit.epoch (number, since) VALUES (:number, :at) ON CONFLICT DO NOTHING")
_CLOSE_EPOCH = text("UPDATE audit.epoch SET destroyed_at = :at WHERE number = :number AND destroyed_at IS NULL")
_OLD_KEYS = text(
    """
    SELECT subject, wrapped_key, epoch FROM audit.subject_key
    WHERE epoch < :epoch AND wrapped_key IS NOT NULL
    LIMIT :limit FOR UPDATE
    """
)
_REWRAP = text(
    """
    UPDATE audit.subject_key AS k SET wrapped_key = made.wrapped, epoch = :epoch
    FROM unnest(CAST(:subjects AS uuid[]), CAST(:wrapped AS bytea[])) AS made (subject, wrapped)
    WHERE k.subject = made.subject
    """
)
# Waits for whoever is inserting a key now; whoever comes later finds the new epoch.
_ALONE = text("LOCK TABLE audit.subject_key IN EXCLUSIVE MODE")
_LEFT = text("SELECT EXISTS (SELECT FROM audit.subject_key WHERE epoch < :epoch AND wrapped_key IS NOT NULL)")


class Destroyed(NamedTuple):
    """A destroyed key: the person's pseudonym in the log, and how many entries are about the person."""

    pseudonym: UUID
    entries: int


class Erased(NamedTuple):
    """A person whose key was destroyed, as the log still knows them."""

    pseudonym: UUID
    at: datetime
    entries: int


async def destroy_key(conn: AsyncConnection, subject: UUID, at: datetime) -> Destroyed | None:
    """Destroy a subject's key in the caller's transaction; ``None`` where the log has none (any more).

    Whoever holds the key in memory learns of it when this commits.
    """
    pseudonym = await conn.scalar(_DESTROY, {"subject": subject, "at": at})
    if pseudonym is None:
        return None
    entries = await conn.scalar(_COUNT, {"pseudonym": pseudonym})
    await announce(conn)
    return Destroyed(pseudonym, entries or 0)


async def announce(conn: AsyncConnection) -> None:
    """Tell every process, when this commits, to look at keys and epochs again."""
    await conn.execute(_ANNOUNCE, {"channel": KEY_CHANNEL})


async def erased_since(conn: AsyncConnection, since: datetime) -> list[UUID]:
    """Return whose key was destroyed since an instant."""
    return list(await conn.scalars(_ERASED, {"since": since}))


async def list_erased(conn: AsyncConnection) -> list[Erased]:
    """Return all whose key was destroyed, the last one first; their pseudonym is all that is known of them."""
    return [Erased(*row) for row in await conn.execute(_LIST)]


async def newest_entry(conn: AsyncConnection, subject: UUID, kinds: list[str]) -> datetime | None:
    """Return when the log last told something of some kinds (what stands before the dot of a type) about a person."""
    found: datetime | None = await conn.scalar(_NEWEST, {"subject": subject, "kinds": kinds})
    return found


async def epochs_in_use(conn: AsyncConnection) -> list[int]:
    """Return the epochs whose key exists, the newest last; more than one while an epoch is being closed."""
    return list(await conn.scalars(_EPOCHS))


async def open_epoch(conn: AsyncConnection, number: int, at: datetime) -> None:
    """Let new keys be wrapped under another epoch from the commit on; its key must be where every process finds it."""
    await conn.execute(_OPEN_EPOCH, {"number": number, "at": at})
    await announce(conn)


async def rewrap(conn: AsyncConnection, epochs: Epochs, number: int, limit: int) -> int:
    """Wrap up to ``limit`` live keys of older epochs under that of ``number``; return how many there were.

    Raises :class:`~schemas.errors.DecryptionError` under another key of an epoch, and :class:`KeyError` with the epoch
    of a key that nobody can open any more.
    """
    rows = (await conn.execute(_OLD_KEYS, {"epoch": number, "limit": limit})).all()
    subjects, wrapped = [], []
    for row in rows:
        key = epochs.opened(row.epoch, row.subject, row.wrapped_key)
        if key is None:
            raise KeyError(row.epoch)
        subjects.append(row.subject)
        wrapped.append(epochs.wrap(row.subject, key))
    if rows:
        await conn.execute(_REWRAP, {"epoch": number, "subjects": subjects, "wrapped": wrapped})
    return len(rows)


async def none_left(conn: AsyncConnection, number: int) -> bool:
    """Say, with nobody writing keys meanwhile, whether every live key is wrapped under epoch ``number`` or later."""
    await conn.execute(_ALONE)
    return not await conn.scalar(_LEFT, {"epoch": number})


async def close_epoch(conn: AsyncConnection, number: int, at: datetime) -> None:
    """Note that an epoch's key was destroyed, in the caller's transaction."""
    await conn.execute(_CLOSE_EPOCH, {"number": number, "at": at})
    await announce(conn)
