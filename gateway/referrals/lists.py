"""Reads lists of referrals: those an institution may claim, its own, and which of them repeat another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import func, null, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.referrals.models import Claimable, Line, Referral
from gateway.referrals.states import TERMINAL
from gateway.referrals.tables import referral
from gateway.registry.tables import person

#: The delivery of what its recipient has, and of what it may not have and does not learn of.
TRANSMITTED, WITHHELD = "transmitted", "withheld"

_other, _mine, _absorbed = referral.alias("other"), person.alias("mine"), person.alias("absorbed")
_ROOT = func.coalesce(_mine.c.merged_into, _mine.c.id)
# Whom the person of a referral was found to be, and everybody found to be them; a union, for each its index.
_SAME_PERSONS = union_all(
    select(_ROOT).where(_mine.c.id == referral.c.person_id).correlate(referral),
    select(_absorbed.c.id)
    .where(_mine.c.id == referral.c.person_id, _absorbed.c.merged_into == _ROOT)
    .correlate(referral),
)
# One rule for what is told of one referral and in lists.
_REPEATS = (
    select(_other.c.id)
    .where(
        _other.c.person_id.in_(_SAME_PERSONS),
        _other.c.service == referral.c.service,
        _other.c.recipient == referral.c.recipient,
        _other.c.id < referral.c.id,
        _other.c.delivery != WITHHELD,
        _other.c.state.not_in(sorted(TERMINAL)),
    )
    .order_by(_other.c.id)
    .limit(1)
    .scalar_subquery()
)


async def earlier_equal(connection: AsyncConnection, current: Referral) -> UUID | None:
    """Return the first earlier referral of the same person and service to the same recipient that is under way."""
    found: UUID | None = await connection.scalar(select(_REPEATS).where(referral.c.id == current.id))
    return found


async def claimable(
    connection: AsyncConnection, services: Sequence[str], *, after: UUID | None, limit: int
) -> list[Claimable]:
    """Return open referrals that one of these services may claim, oldest first, with those services alone."""
    query = select(
        referral.c.id,
        referral.c.candidates,
        referral.c.department,
        referral.c.district,
        referral.c.priority,
        referral.c.category,
        referral.c.created_at,
        referral.c.due_on,
    ).where(
        text("state = 'open'"),
        referral.c.texts.is_not(None),
        referral.c.candidates.overlap(list(services)),
    )
    if after is not None:
        query = query.where(referral.c.id > after)
    rows = await connection.execute(query.order_by(referral.c.id).limit(limit))
    mine = frozenset(services)
    return [Claimable(row.id, tuple(code for code in row.candidates if code in mine), *row[2:]) for row in rows]


async def untransmitted(connection: AsyncConnection, ids: Collection[UUID]) -> list[Referral]:
    """Return those of these referrals that were not transmitted to their recipient."""
    columns = (referral.c[name] for name in Referral.__dataclass_fields__)
    rows = await connection.execute(
        select(*columns).where(referral.c.id.in_(list(ids)), referral.c.delivery != TRANSMITTED)
    )
    return [Referral(**row._mapping) for row in rows]


async def lines(
    connection: AsyncConnection,
    institution: str,
    *,
    sent: bool,
    states: Sequence[str],
    after: UUID | None,
    limit: int,
) -> list[Line]:
    """Return an institution's referrals, sent or received, oldest first; ``states`` empty: in any.

    Of received ones it is told which repeats an earlier one to it that is under way; what may not be sent to it, not.
    """
    own = [name for name in Line.__dataclass_fields__ if name != "duplicate_of"]
    mine = [(referral.c.requester if sent else referral.c.recipient) == institution, referral.c.texts.is_not(None)]
    if not sent:
        mine.append(referral.c.delivery != WITHHELD)
    repeats = (null() if sent else _REPEATS).label("duplicate_of")
    query = select(*(referral.c[name] for name in own), repeats).where(*mine)
    if states:
        query = query.where(referral.c.state.in_(states))
    if after is not None:
        query = query.where(referral.c.id > after)
    rows = await connection.execute(query.order_by(referral.c.id).limit(limit))
    return [Line(**row._mapping) for row in rows]
