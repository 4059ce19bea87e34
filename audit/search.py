"""Reads entries back with their detail, for readers whose right to it somebody else has decided and logged."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.envelope import open_detail, read_envelope
from audit.keys import unwrap_key
from audit.models import LOG_SUBJECT, LoggedEntry

_RECENT = text(
    """
    SELECT e.id, s.index, e.envelope, e.detail, k.subject, k.wrapped_key
    FROM audit.entry AS e
    LEFT JOIN audit.sequence AS s ON s.entry_id = e.id
    LEFT JOIN audit.subject_key AS k
        ON k.pseudonym = coalesce(e.pseudonym, (SELECT pseudonym FROM audit.subject_key WHERE subject = :log))
    WHERE (CAST(:before AS uuid) IS NULL OR e.id < :before) AND (CAST(:type AS text) IS NULL OR e.type = :type)
    ORDER BY e.id DESC
    LIMIT :limit
    """
)


async def recent(
    conn: AsyncConnection, kek: bytes, limit: int, before: UUID | None = None, type: str | None = None
) -> list[LoggedEntry]:
    """Return the newest entries first, those with an id before ``before`` and of one type if these are given.

    ``detail`` is ``None`` where the subject's key was destroyed; nothing is masked. Raises
    :class:`~schemas.errors.DecryptionError` under another key-encryption key or for a detail that was changed, and
    :class:`~audit.errors.LogBroken` for one that is not what its envelope commits to.
    """
    values = {"log": LOG_SUBJECT, "before": before, "type": type, "limit": limit}
    return [_read(tuple(row), kek) for row in await conn.execute(_RECENT, values)]


_ONE = text(
    """
    SELECT e.id, s.index, e.envelope, e.detail, k.subject, k.wrapped_key
    FROM audit.entry AS e
    LEFT JOIN audit.sequence AS s ON s.entry_id = e.id
    LEFT JOIN audit.subject_key AS k
        ON k.pseudonym = coalesce(e.pseudonym, (SELECT pseudonym FROM audit.subject_key WHERE subject = :log))
    WHERE e.id = :id
    """
)


async def one(conn: AsyncConnection, kek: bytes, entry_id: UUID) -> tuple[LoggedEntry, UUID | None] | None:
    """Return an entry and the internal id of the person it is about, or ``None`` where there is no such entry.

    The person is ``None`` for an entry about nobody, and once their key was destroyed. Raises as :func:`recent`.
    """
    row = (await conn.execute(_ONE, {"log": LOG_SUBJECT, "id": entry_id})).one_or_none()
    if row is None:
        return None
    return _read(tuple(row), kek), None if row.subject in (None, LOG_SUBJECT) else row.subject


def _read(row: tuple[Any, ...], kek: bytes) -> LoggedEntry:
    entry_id, index, data, detail, subject, wrapped = row
    envelope = read_envelope(data)
    groups = None if wrapped is None else open_detail(envelope, detail, unwrap_key(kek, subject, wrapped))
    return LoggedEntry(entry_id, index, envelope, groups)
