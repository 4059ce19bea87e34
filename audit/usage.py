"""Reads from the log what was done with one person's data, the newest first, each with its place in the log.

Whose right it is to read it somebody else has decided and logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.envelope import open_detail, read_envelope
from audit.keys import Epochs
from audit.models import LOG_SUBJECT, Groups

_BATCH = 200
_COLUMNS = """
    e.id, e.envelope, e.leaf_hash, e.detail, e.type, e.outcome, e.at, s.log, s.index,
    coalesce(s.index < (SELECT max(c.size) FROM audit.checkpoint AS c WHERE c.log = s.log), false),
    k.subject, k.wrapped_key, k.epoch
"""
_PERIOD = (
    "(CAST(:since AS timestamptz) IS NULL OR e.at >= :since) AND (CAST(:until AS timestamptz) IS NULL OR e.at < :until)"
)
_OF_PERSON = text(
    f"""
    SELECT {_COLUMNS}
    FROM audit.subject_key AS k
    JOIN audit.entry AS e ON e.pseudonym = k.pseudonym
    LEFT JOIN audit.sequence AS s ON s.entry_id = e.id
    WHERE k.subject = ANY(:subjects) AND k.wrapped_key IS NOT NULL
      AND (CAST(:before AS uuid) IS NULL OR e.id < :before) AND {_PERIOD}
    ORDER BY e.id DESC LIMIT :limit
    """  # noqa: S608 — constants of ours
)
_OF_TYPE = text(
    f"""
    SELECT {_COLUMNS}
    FROM audit.entry AS e
    JOIN audit.subject_key AS k ON k.subject = :subject
    LEFT JOIN audit.sequence AS s ON s.entry_id = e.id
    WHERE e.type = :type AND e.pseudonym IS NULL AND {_PERIOD}
    ORDER BY e.id DESC LIMIT :limit
    """  # noqa: S608 — constants of ours
)
_FIRST = text("SELECT at FROM audit.entry ORDER BY id LIMIT 1")


@dataclass(frozen=True, slots=True)
class Use:
    """An entry as read back: its place (``None`` while it waits), whether a checkpoint covers it, its detail."""

    entry_id: UUID
    type: str
    outcome: str
    at: datetime
    log: int | None
    index: int | None
    leaf_hash: bytes
    proven: bool
    groups: Groups


async def uses_of(
    conn: AsyncConnection,
    epochs: Epochs,
    subjects: Collection[UUID],
    *,
    before: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> AsyncGenerator[Use, None]:
    """Yield every entry about a person, newest first: those with an id before ``before``, from ``since`` (included) to
    ``until`` (excluded). ``subjects`` are the ids under which the log knows the person.

    Nothing of an id whose key was destroyed. Raises :class:`~schemas.errors.DecryptionError` under another epoch's
    key or for a detail that was changed, and :class:`~audit.errors.LogBroken` for one that is not what its envelope
    commits to.
    """
    values = {"subjects": list(subjects), "since": since, "until": until, "limit": _BATCH}
    behind = before
    while True:
        rows = [tuple(row) for row in await conn.execute(_OF_PERSON, {**values, "before": behind})]
        for use in await asyncio.to_thread(_opened, rows, epochs):
            yield use
        if len(rows) < _BATCH:
            return
        behind = rows[-1][0]


async def uses_of_type(
    conn: AsyncConnection, epochs: Epochs, type: str, *, since: datetime | None, until: datetime | None, limit: int
) -> list[Use]:
    """Return the newest entries of one type that are about nobody; raises as :func:`uses_of`."""
    values = {"subject": LOG_SUBJECT, "type": type, "since": since, "until": until, "limit": limit}
    return _opened([tuple(row) for row in await conn.execute(_OF_TYPE, values)], epochs)


async def first_at(conn: AsyncConnection) -> datetime | None:
    """Return the instant of the oldest entry that is kept, ``None`` for an empty log."""
    found: datetime | None = await conn.scalar(_FIRST)
    return found


def _opened(rows: Sequence[tuple[Any, ...]], epochs: Epochs) -> list[Use]:
    found = []
    for entry_id, data, leaf, detail, kind, outcome, at, log, index, proven, subject, wrapped, epoch in rows:
        key = epochs.opened(epoch, subject, wrapped)
        if key is not None:
            groups = open_detail(read_envelope(data), detail, key)
            found.append(Use(entry_id, kind, outcome, at, log, index, leaf, proven, groups))
    return found
