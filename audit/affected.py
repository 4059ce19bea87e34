"""Finds in the log whom a period of exchanges was about, and what was exchanged about one person.

Whose right it is to read it somebody else has decided and logged. Details are opened beside the event loop, one subject
after the other, so that memory does not grow with the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.envelope import open_detail, read_envelope
from audit.keys import Epochs
from audit.models import Groups
from audit.terms import parties

_BATCH = 500
# Denied and failed exchanges handed nothing over, and an intent is followed by the entry of what came of it.
_OF_PERIOD = text(
    """
    SELECT e.pseudonym, e.envelope, e.detail, k.subject, k.wrapped_key, k.epoch
    FROM audit.entry AS e JOIN audit.subject_key AS k ON k.pseudonym = e.pseudonym
    WHERE e.at >= :since AND e.at < :until
      AND e.outcome NOT IN ('deny', 'failed') AND e.type NOT LIKE '%.intent'
    ORDER BY e.pseudonym, e.id
    """
)
_OF_SUBJECT = text(
    """
    SELECT e.pseudonym, e.envelope, e.detail, k.subject, k.wrapped_key, k.epoch
    FROM audit.subject_key AS k JOIN audit.entry AS e ON e.pseudonym = k.pseudonym
    WHERE k.subject = :subject AND k.wrapped_key IS NOT NULL
      AND e.outcome NOT IN ('deny', 'failed') AND e.type NOT LIKE '%.intent'
    ORDER BY e.id
    """
)

_Row = tuple[UUID, bytes, bytes, UUID, bytes | None, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which exchanges are meant: ``since`` included, ``until`` excluded; ``None`` and the empty set leave open.

    ``institution`` is a party to the exchange in any part: it asked, was asked for, held or received.
    """

    since: datetime
    until: datetime
    client: str | None = None
    institution: str | None = None
    datasets: frozenset[str] = frozenset()

    def covers(self, groups: Groups) -> bool:
        """Say whether an entry with this detail is meant."""
        actor, what = groups.get("actor", {}), groups.get("what", {})
        if self.client is not None and actor.get("client") != self.client:
            return False
        if self.institution is not None and self.institution not in parties(groups):
            return False
        return not self.datasets or what.get("dataset") in self.datasets


async def affected(conn: AsyncConnection, epochs: Epochs, scope: Scope) -> AsyncGenerator[UUID | None, None]:
    """Yield the internal id of every subject that something in scope was exchanged about, each once.

    ``None`` stands for a subject of the period whose key was destroyed: whether the exchange was in scope can no longer
    be told. Raises :class:`~schemas.errors.DecryptionError` under another epoch's key or for a detail that was
    changed, and :class:`~audit.errors.LogBroken` for one that is not what its envelope commits to.
    """
    settled: UUID | None = None
    values = {"since": scope.since, "until": scope.until}
    async with conn.stream(_OF_PERIOD, values) as result:
        async for rows in result.partitions(_BATCH):
            found, settled = await asyncio.to_thread(_matching, [tuple(row) for row in rows], epochs, scope, settled)
            for subject in found:
                yield subject


async def about(conn: AsyncConnection, epochs: Epochs, subject: UUID) -> AsyncGenerator[tuple[str, Groups], None]:
    """Yield type and detail of what was exchanged about one subject, oldest first; raises as :func:`affected`.

    Nothing where the subject's key was destroyed.
    """
    async with conn.stream(_OF_SUBJECT, {"subject": subject}) as result:
        async for rows in result.partitions(_BATCH):
            for opened in await asyncio.to_thread(_opened, [tuple(row) for row in rows], epochs):
                yield opened


def _matching(
    rows: Sequence[_Row], epochs: Epochs, scope: Scope, settled: UUID | None
) -> tuple[list[UUID | None], UUID | None]:
    """Return the subjects found in rows ordered by pseudonym, and the pseudonym that needs no further look."""
    found: list[UUID | None] = []
    key: bytes | None = None
    of: UUID | None = None
    for pseudonym, data, detail, subject, wrapped, epoch in rows:
        if pseudonym == settled:
            continue
        if pseudonym != of:
            key, of = epochs.opened(epoch, subject, wrapped), pseudonym
        if key is None:
            found.append(None)
            settled = pseudonym
            continue
        if scope.covers(open_detail(read_envelope(data), detail, key)):
            found.append(subject)
            settled = pseudonym
    return found, settled


def _opened(rows: Sequence[_Row], epochs: Epochs) -> list[tuple[str, Groups]]:
    opened: list[tuple[str, Groups]] = []
    for _pseudonym, data, detail, subject, wrapped, epoch in rows:
        key = epochs.opened(epoch, subject, wrapped)
        if key is not None:
            envelope = read_envelope(data)
            opened.append((str(envelope["type"]), open_detail(envelope, detail, key)))
    return opened
