"""What a subscription has yet to be told: filled in order, taken in order within a referral, dropped when too old."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, case, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue.models import Service
from gateway.catalogue.service import services
from gateway.events.tables import event
from gateway.referrals import states
from gateway.referrals.nominal import PRIORITY_TRACK
from gateway.referrals.tables import referral
from gateway.subscriptions.audience import Boards, may_learn, message, wants
from gateway.subscriptions.models import Filter, Happened, Parties
from gateway.subscriptions.tables import subscription, waiting
from schemas.ids import uuid7

GAP = "subscription.gap"
_BATCH = 500
# One process at a time hands events on: two would give those of one referral to a subscription in the wrong order.
_ALONE = func.pg_try_advisory_xact_lock(6118)
_HAPPENED = tuple(event.c[name] for name in Happened.__dataclass_fields__)
# Nobody is a candidate any more once somebody claimed it.
_OPEN_TO = case((referral.c.state == states.OPEN, referral.c.candidates)).label("open_to")
_earlier = waiting.alias("earlier")
_before = and_(
    _earlier.c.subscription_id == waiting.c.subscription_id,
    _earlier.c.referral_id == waiting.c.referral_id,
    _earlier.c.position < waiting.c.position,
)
#: Holds of the first event of each referral that waits.
FIRST = ~exists().where(_before)


class Item(NamedTuple):
    """An event as it waits for a subscription, with what is said of it."""

    position: int
    event_id: UUID
    attempts: int
    message: dict[str, Any]


async def lock(connection: AsyncConnection, subscription_id: UUID) -> bool:
    """Lock a subscription before anything that waits for it: everybody in this order; say whether it is there."""
    mine = select(subscription.c.id).where(subscription.c.id == subscription_id)
    return await connection.scalar(mine.with_for_update()) is not None


async def hand_on(connection: AsyncConnection, boards: Boards, at: datetime) -> int:
    """Give pending events to the subscriptions that may learn of them and want to; return how many there were.

    They are taken from what is pending, not from behind a number, so one that is committed late is not left out.
    """
    if not await connection.scalar(select(_ALONE)):
        return 0
    pending = select(*_HAPPENED).where(event.c.pending).order_by(event.c.number).limit(_BATCH)
    happened = [_happened(row) for row in await connection.execute(pending)]
    if not happened:
        return 0
    # Locked in one order, and none can be deleted while it is given something.
    locked = select(subscription).order_by(subscription.c.id).with_for_update(key_share=True)
    subscribers = [(row, filter_of(row)) for row in await connection.execute(locked)]
    concerned = await _concerned(connection, boards, happened) if subscribers else {}
    given: list[dict[str, Any]] = []
    for row, wanted in subscribers:
        position = row.position
        for each in happened:
            now, acting = concerned[each.id]
            if may_learn(row.institution, each, now, acting) and wants(wanted, row.institution, each, now):
                position += 1
                given.append(
                    {
                        "subscription_id": row.id,
                        "position": position,
                        "event_id": each.id,
                        "referral_id": each.referral_id,
                        "due_at": at,
                    }
                )
        if position != row.position:
            await connection.execute(update(subscription).where(subscription.c.id == row.id).values(position=position))
    if given:
        await connection.execute(insert(waiting), given)
    done = update(event).where(event.c.id.in_([each.id for each in happened])).values(pending=False)
    await connection.execute(done)
    return len(happened)


async def take(
    connection: AsyncConnection, of: Row[Any], boards: Boards, at: datetime, *, limit: int, heads: bool = False
) -> list[Item]:
    """Return events that a subscription (its row, locked) is due, in their order.

    None of a referral while an earlier one of it is handed out or waits for its repetition; ``heads``: the first of
    each referral alone, those called least recently first. What the institution may no longer learn is removed.
    """
    free = FIRST if heads else ~exists().where(_before, _earlier.c.due_at > at)
    columns = (waiting.c.position, waiting.c.attempts)
    query = (
        select(*columns, *_HAPPENED)
        .join_from(waiting, event, event.c.id == waiting.c.event_id)
        .where(waiting.c.subscription_id == of.id, waiting.c.due_at <= at, free)
        .order_by(*((waiting.c.due_at,) if heads else ()), waiting.c.position)
        .limit(limit)
    )
    while True:
        rows = (await connection.execute(query)).all()
        found = [(row, Happened(*_plain(row[len(columns) :]))) for row in rows]
        concerned = await _concerned(connection, boards, [each for _row, each in found])
        items, foreign = [], []
        for row, each in found:
            now, acting = concerned[each.id]
            if may_learn(of.institution, each, now, acting):
                items.append(
                    Item(row.position, each.id, row.attempts, message(of.institution, each, now, row.position))
                )
            else:
                foreign.append(row.position)
        if foreign:
            await connection.execute(delete(waiting).where(_these(of.id, foreign)))
        if items or not foreign:
            return items


async def put_off(connection: AsyncConnection, subscription_id: UUID, items: Iterable[Item], until: datetime) -> None:
    """Let events wait until an instant; one more attempt is counted."""
    these = _these(subscription_id, [item.position for item in items])
    await connection.execute(update(waiting).where(these).values(due_at=until, attempts=waiting.c.attempts + 1))


async def confirm(connection: AsyncConnection, subscription_id: UUID, event_ids: Sequence[UUID]) -> int:
    """Take events off a subscription's queue; return how many were on it."""
    these = and_(waiting.c.subscription_id == subscription_id, waiting.c.event_id.in_(event_ids))
    return (await connection.execute(delete(waiting).where(these))).rowcount


async def drop_old(connection: AsyncConnection, before: datetime, at: datetime) -> None:
    """Drop events from before an instant; a subscription that had not taken some finds a gap told in their place."""
    old = event.c.at < before
    missed = select(waiting.c.subscription_id).join(event, event.c.id == waiting.c.event_id).where(old).distinct()
    for subscription_id in sorted((await connection.scalars(missed)).all()):
        await _drop(connection, subscription_id, old, before, at)
    unread = exists().where(waiting.c.event_id == event.c.id)
    await connection.execute(delete(event).where(old, event.c.pending.is_(False), ~unread))


async def _drop(
    connection: AsyncConnection, subscription_id: UUID, old: ColumnElement[bool], before: datetime, at: datetime
) -> None:
    lock = select(subscription.c.institution).where(subscription.c.id == subscription_id).with_for_update()
    institution = await connection.scalar(lock)
    gone = (
        delete(waiting)
        .where(waiting.c.subscription_id == subscription_id, event.c.id == waiting.c.event_id)
        # A gap told of earlier and not taken either grows, rather than standing beside the next one.
        .where(or_(old, event.c.type == GAP))
        .returning(waiting.c.position, event.c.type, event.c.facts)
    )
    rows = (await connection.execute(gone)).all()
    if institution is None or not rows:
        return
    gap_id = uuid7()
    dropped = sum(row.facts["dropped"] if row.type == GAP else 1 for row in rows)
    facts = {"dropped": dropped, "before": before.isoformat()}
    told = {"id": gap_id, "type": GAP, "at": at, "institutions": [institution], "facts": facts, "pending": False}
    await connection.execute(insert(event).values(told))
    await connection.execute(
        insert(waiting).values(
            subscription_id=subscription_id,
            position=max(row.position for row in rows),
            event_id=gap_id,
            due_at=at,
        )
    )


def filter_of(row: Row[Any]) -> Filter:
    """Return the filter of a subscription's row."""
    return Filter(**{name: frozenset(getattr(row, name)) for name in Filter.__dataclass_fields__})


async def _concerned(
    connection: AsyncConnection, boards: Boards, happened: Iterable[Happened]
) -> dict[UUID, tuple[Parties | None, frozenset[str]]]:
    """Return by event the parties of its referral as it stands, and who acts for the boards of its place."""
    ids = {each.referral_id for each in happened if each.referral_id is not None}
    # Without texts the person is erased, and the referral is nobody's.
    known = (referral.c.id.in_(ids), referral.c.texts.is_not(None))
    received = func.num_nonnulls(referral.c.received_at, referral.c.accepted_at) > 0
    columns = (referral.c.id, referral.c.requester, referral.c.recipient, received.label("received"), _OPEN_TO)
    rows = (await connection.execute(select(*columns).where(*known))).all() if ids else ()
    offered = await services(connection) if any(row.open_to for row in rows) else {}
    parties = {
        row.id: Parties(row.requester, row.recipient, row.received, _candidates(row.open_to, offered)) for row in rows
    }
    acting: dict[tuple[str | None, str | None], frozenset[str]] = {}
    found: dict[UUID, tuple[Parties | None, frozenset[str]]] = {}
    for each in happened:
        place = (each.department, each.district)
        on_track = each.facts.get("priority") == PRIORITY_TRACK
        if on_track and place not in acting:
            acting[place] = await boards(connection, *place)
        now = None if each.referral_id is None else parties.get(each.referral_id)
        found[each.id] = (now, acting[place] if on_track else frozenset())
    return found


def _candidates(codes: Iterable[str] | None, offered: Mapping[str, Service]) -> dict[str, frozenset[str]]:
    """Return the institutions that give these services, each with its own."""
    own = [(offered[code].institution, code) for code in codes or () if code in offered]
    return {name: frozenset(code for owner, code in own if owner == name) for name, _code in own}


def _these(subscription_id: UUID, positions: Sequence[int]) -> ColumnElement[bool]:
    return and_(waiting.c.subscription_id == subscription_id, waiting.c.position.in_(positions))


def _happened(row: Row[Any]) -> Happened:
    return Happened(*_plain(row))


def _plain(values: Iterable[Any]) -> list[Any]:
    return [frozenset(value) if isinstance(value, list) else value for value in values]
