"""Emergency accesses (break-glass): opened for one user, person, dataset and incident, a day at most, and reviewed.

Every function works on the connection handed in and commits nothing; changes return what the log must say. Whether the
glass may be broken at all is the decision's.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.errors import EmergencyEnded, EmergencyRefused, NotInForce
from consent.models import Actor, EmergencyClaim
from consent.roles import EMERGENCY, take_role_away
from consent.tables import break_glass
from consent.transaction import instant
from schemas.codes import require_code
from schemas.ids import uuid7

Verdict = Literal["justified", "not-justified"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
OPEN_FOR = timedelta(hours=24)
_WEEK = timedelta(days=7)


class Emergency(NamedTuple):
    """An emergency access as its reviewer sees it; ``subject`` is our internal id, ``verdict`` None until reviewed."""

    id: UUID
    institution: str
    user: str
    client: str
    subject: UUID
    holder: str
    dataset: str
    fields: tuple[str, ...]
    reason: str
    incident: str
    opened_at: datetime
    expires_at: datetime
    verdict: Verdict | None
    reviewed_by: str | None
    reviewed_at: datetime | None


class Waiting(NamedTuple):
    """How many emergencies of an institution wait for review, and since when the oldest does."""

    emergencies: int
    oldest: datetime


async def open_glass(
    conn: AsyncConnection,
    *,
    institution: str,
    user: str,
    client: str,
    subject: UUID,
    holder: str,
    dataset: str,
    fields: Iterable[str],
    claim: EmergencyClaim,
    at: datetime,
) -> dict[str, Any]:
    """Open an emergency access, or use the one this user has for the same person, dataset and incident.

    ``added`` of the result are the fields that the access did not reach before. Raises :class:`EmergencyEnded` once its
    day is over, after a verdict against it, or for more fields than its reviewer saw; :class:`UnknownCode` for a reason
    that does not exist.
    """
    require_code("emergency-reasons", claim.reason)
    wanted, expires_at = sorted(set(fields)), at + OPEN_FOR
    same = {"institution": institution, "user": user, "subject": subject, "dataset": dataset}
    same["incident"] = claim.incident
    opened = await conn.scalar(
        upsert(break_glass)
        .values(
            id=uuid7(),
            client=client,
            holder=holder,
            fields=wanted,
            reason=claim.reason,
            opened_at=at,
            expires_at=expires_at,
            **same,
        )
        .on_conflict_do_nothing()
        .returning(break_glass.c.id)
    )
    said = {
        "event": "breakglass.opened",
        "subject": str(subject),
        "id": str(opened),
        "institution": institution,
        "user": user,
        "holder": holder,
        "dataset": dataset,
        "fields": wanted,
        "added": wanted,
        "reason": claim.reason,
        "incident": claim.incident,
        "expires_at": instant(expires_at),
    }
    if opened is not None:
        return said
    row = break_glass.c
    query = select(row.id, row.fields, row.expires_at, row.verdict).filter_by(**same).with_for_update()
    glass = (await conn.execute(query)).one()
    added = sorted(set(wanted) - set(glass.fields))
    if at >= glass.expires_at or glass.verdict == "not-justified" or (added and glass.verdict is not None):
        raise EmergencyEnded(str(glass.id))
    if added:
        wider = sorted({*glass.fields, *added})
        await conn.execute(update(break_glass).where(row.id == glass.id).values(fields=wider))
    ends = instant(glass.expires_at)
    return {**said, "event": "breakglass.used", "id": str(glass.id), "added": added, "expires_at": ends}


async def mark_noticed(conn: AsyncConnection, emergency: UUID, *, at: datetime) -> None:
    """Note when the officers were first told of an emergency."""
    row = break_glass.c
    await conn.execute(update(break_glass).where(row.id == emergency, row.noticed_at.is_(None)).values(noticed_at=at))


async def review(
    conn: AsyncConnection, actor: Actor, emergency: UUID, *, verdict: Verdict, at: datetime
) -> dict[str, Any]:
    """Give the verdict on an emergency; one against it takes the emergency role from who opened it, at once.

    Raises :class:`NotInForce` for one that does not exist or is another institution's, and :class:`EmergencyRefused`
    with ``own-emergency`` (four eyes) or ``emergency-reviewed``.
    """
    row = break_glass.c
    query = select(row.institution, row.user, row.subject, row.dataset, row.reviewed_at).where(row.id == emergency)
    glass = (await conn.execute(query.with_for_update())).one_or_none()
    if glass is None or actor.institution not in (None, glass.institution):
        raise NotInForce(str(emergency))
    if (actor.institution, actor.user) == (glass.institution, glass.user):
        raise EmergencyRefused("own-emergency")
    if glass.reviewed_at is not None:
        raise EmergencyRefused("emergency-reviewed")
    await conn.execute(
        update(break_glass).where(row.id == emergency).values(verdict=verdict, reviewed_by=str(actor), reviewed_at=at)
    )
    revoked = None
    if verdict == "not-justified":
        whose = {"institution": glass.institution, "user": glass.user}
        revoked = await take_role_away(conn, actor, role=EMERGENCY, at=at, **whose)
    return {
        "event": "breakglass.reviewed",
        "subject": str(glass.subject),
        "id": str(emergency),
        "institution": glass.institution,
        "user": glass.user,
        "dataset": glass.dataset,
        "verdict": verdict,
        "role_revoked": None if revoked is None else str(revoked),
    }


async def list_emergencies(
    conn: AsyncConnection, *, institution: str | None, after: UUID | None = None, limit: int = 50
) -> list[Emergency]:
    """Return the emergencies of one institution, or of all (``None``), by id, from behind ``after``."""
    row = break_glass.c
    query = select(*(row[name] for name in Emergency._fields)).order_by(row.id).limit(limit)
    if institution is not None:
        query = query.where(row.institution == institution)
    if after is not None:
        query = query.where(row.id > after)
    found = (Emergency(*each) for each in await conn.execute(query))
    return [each._replace(fields=tuple(each.fields)) for each in found]


async def opened_in_a_week(
    conn: AsyncConnection, *, institution: str | None, at: datetime
) -> dict[tuple[str, str], int]:
    """Return how many emergencies each (institution, user) opened in the seven days before ``at``."""
    row = break_glass.c
    query = (
        select(row.institution, row.user, func.count())
        .where(row.opened_at > at - _WEEK, row.opened_at <= at)
        .group_by(row.institution, row.user)
        .order_by(row.institution, row.user)
    )
    if institution is not None:
        query = query.where(row.institution == institution)
    return {(where, user): count for where, user, count in await conn.execute(query)}


async def unreviewed_since(conn: AsyncConnection) -> dict[tuple[str, str], datetime]:
    """Return since when the oldest emergency of each (institution, user) waits for review."""
    row = break_glass.c
    query = (
        select(row.institution, row.user, func.min(row.opened_at))
        .where(row.reviewed_at.is_(None))
        .group_by(row.institution, row.user)
    )
    return {(institution, user): oldest for institution, user, oldest in await conn.execute(query)}


async def waiting_for_review(conn: AsyncConnection) -> dict[str, Waiting]:
    """Return, per institution, how many emergencies wait for review and since when."""
    row = break_glass.c
    query = (
        select(row.institution, func.count(), func.min(row.opened_at))
        .where(row.reviewed_at.is_(None))
        .group_by(row.institution)
    )
    return {institution: Waiting(count, oldest) for institution, count, oldest in await conn.execute(query)}
