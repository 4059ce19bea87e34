"""Finds in the log whom a period of exchanges was about, and what was exchanged about one person.

Whose right it is to read it somebody else has decided and logged. Details are opened beside the event loop, one subject
after the other, so that memory does not grow with the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.envelope import open_detail, read_envelope
from audit.keys import unwrap_key

_BATCH = 500
# Denied and failed exchanges handed nothing over, and an intent is followed by the entry of what came of it.
_OF_PERIOD = text(
    """
    SELECT e.pseudonym, e.envelope, e.detail, k.subject, k.wrapped_key
    FROM audit.entry AS e JOIN audit.subject_key AS k ON k.pseudonym = e.pseudonym
    WHERE e.at >= :since AND e.at < :until
      AND e.outcome NOT IN ('deny', 'failed') AND e.type NOT LIKE '%.intent'
    ORDER BY e.pseudonym, e.id
    """
)
_OF_SUBJECT = text(
    """
    SELECT e.pseudonym, e.envelope, e.detail, k.subject, k.wrapped_key
    FROM audit.subject_key AS k JOIN audit.entry AS e ON e.pseudonym = k.pseudonym
    WHERE k.subject = :subject AND k.wrapped_key IS NOT NULL
      AND e.outcome NOT IN ('deny', 'failed') AND e.type NOT LIKE '%.intent'
    ORDER BY e.id
    """
)

Groups = Mapping[str, Mapping[str, Any]]
_Row = tuple[UUID, bytes, bytes, UUID, bytes | None]


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


def parties(groups: Groups) -> frozenset[str]:
    """Return the institutions that an entry's detail names: who asked, for whom, who held, who received."""
    actor, what, exchange = (groups.get(name, {}) for name in ("actor", "what", "exchange"))
    named = (actor.get("institution"), actor.get("on_behalf_of"), what.get("holder"), exchange.get("recipient"))
    return frozenset(name for name in named if name)


async def affected(conn: AsyncConnection, kek: bytes, scope: Scope) -> AsyncGenerator[UUID | None, None]:
    """Yield the internal id of every subject that something in scope was exchanged about, each once.

    ``None`` stands for a subject of the period whose key was destroyed: whether the exchange was in scope can no longer
    be told. Raises :class:`~schemas.errors.DecryptionError` under another key-encryption key or for a detail that was
    changed, and :class:`~audit.errors.LogBroken` for one that is not what its envelope commits to.
    """
    settled: UUID | None = None
    values = {"since": scope.since, "until": scope.until}
    async with conn.stream(_OF_PERIOD, values) as result:
        async for rows in result.partitions(_BATCH):
            found, settled = await asyncio.to_thread(_matching, [tuple(row) for row in rows], kek, scope, settled)
            for subject in found:
                yield subject


async def about(conn: AsyncConnection, kek: bytes, subject: UUID) -> AsyncGenerator[tuple[str, Groups], None]:
    """Yield type and detail of what was exchanged about one subject, oldest first; raises as :func:`affected`.

    Nothing where the subject's key was destroyed.
    """
    async with conn.stream(_OF_SUBJECT, {"subject": subject}) as result:
        async for rows in result.partitions(_BATCH):
            for opened in await asyncio.to_thread(_opened, [tuple(row) for row in rows], kek):
                yield opened


def _matching(
    rows: Sequence[_Row], kek: bytes, scope: Scope, settled: UUID | None
) -> tuple[list[UUID | None], UUID | None]:
    """Return the subjects found in rows ordered by pseudonym, and the pseudonym that needs no further look."""
    found: list[UUID | None] = []
    key, of = b"", None
    for pseudonym, data, detail, subject, wrapped in rows:
        if pseudonym == settled:
            continue
        if wrapped is None:
            found.append(None)
            settled = pseudonym
            continue
        if pseudonym != of:
            key, of = unwrap_key(kek, subject, wrapped), pseudonym
        if scope.covers(open_detail(read_envelope(data), detail, key)):
            found.append(subject)
            settled = pseudonym
    return found, settled


def _opened(rows: Sequence[_Row], kek: bytes) -> list[tuple[str, Groups]]:
    opened: list[tuple[str, Groups]] = []
    for _pseudonym, data, detail, subject, wrapped in rows:
        if wrapped is not None:
            envelope = read_envelope(data)
            opened.append((str(envelope["type"]), open_detail(envelope, detail, unwrap_key(kek, subject, wrapped))))
    return opened
