"""Reads what the entries of a period say, person after person, so that a report on it needs no memory of the whole.

Whose right it is to read it somebody else has decided and logged; details are opened beside the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.envelope import open_detail, read_envelope
from audit.keys import Epochs
from audit.models import LOG_SUBJECT, Groups
from audit.terms import term

_BATCH = 500
_OF_PERIOD = text(
    """
    SELECT e.id, e.at, e.type, e.outcome, e.pseudonym, e.envelope, e.detail, k.subject, k.wrapped_key, k.epoch
    FROM audit.entry AS e
    LEFT JOIN audit.subject_key AS k
        ON k.pseudonym = coalesce(e.pseudonym, (SELECT pseudonym FROM audit.subject_key WHERE subject = :log))
    WHERE e.at >= :since AND e.at < :until AND e.type = ANY(:types)
        AND (CAST(:party AS text) IS NULL OR e.terms @> ARRAY[CAST(:party AS text)])
    ORDER BY e.pseudonym NULLS FIRST, e.id
    """
)
_USERS = text(
    """
    SELECT DISTINCT t.term
    FROM audit.entry AS e CROSS JOIN LATERAL unnest(e.terms) AS t (term)
    WHERE e.at >= :since AND e.at < :until AND t.term LIKE 'user=%'
    """
)


@dataclass(frozen=True, slots=True)
class Deed:
    """What one entry says: ``pseudonym`` and ``subject`` (our internal id) of the person it is about, if any.

    ``groups`` is ``None`` where the person's key was destroyed.
    """

    entry_id: UUID
    at: datetime
    type: str
    outcome: str
    pseudonym: UUID | None
    subject: UUID | None
    groups: Groups | None


async def activity(
    conn: AsyncConnection,
    epochs: Epochs,
    types: Sequence[str],
    since: datetime,
    until: datetime,
    institution: str | None = None,
) -> AsyncGenerator[list[Deed], None]:
    """Yield, in groups, the entries of these types from ``since`` up to but without ``until``.

    Only those that ``institution`` is party to, if it is given: those of others must not even be counted.
    They come by person, each person's by time, first those about nobody. Raises
    :class:`~schemas.errors.DecryptionError` for a detail that was changed and :class:`~audit.errors.LogBroken` for one
    that is not what its envelope commits to.
    """
    party = None if institution is None else term("party", institution)
    values = {"log": LOG_SUBJECT, "since": since, "until": until, "types": list(types), "party": party}
    async with conn.stream(_OF_PERIOD, values) as result:
        async for rows in result.partitions(_BATCH):
            yield await asyncio.to_thread(_opened, [tuple(row) for row in rows], epochs)


async def users(conn: AsyncConnection, since: datetime, until: datetime) -> frozenset[str]:
    """Return the search terms of the users who did anything in a period (:func:`audit.terms.user_term`)."""
    return frozenset(row.term for row in await conn.execute(_USERS, {"since": since, "until": until}))


def _opened(rows: Sequence[tuple[Any, ...]], epochs: Epochs) -> list[Deed]:
    deeds: list[Deed] = []
    key: bytes | None = None
    opened_for: object = ()
    for entry_id, at, kind, outcome, pseudonym, data, detail, subject, wrapped, epoch in rows:
        # Opening a person's key costs as much as opening one of their entries.
        if pseudonym != opened_for:
            key, opened_for = epochs.opened(epoch, subject, wrapped), pseudonym
        groups = None if key is None else open_detail(read_envelope(data), detail, key)
        person = None if pseudonym is None else subject
        deeds.append(Deed(entry_id, at, kind, outcome, pseudonym, person, groups))
    return deeds
