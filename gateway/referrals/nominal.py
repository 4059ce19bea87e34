"""Lists referrals for reports and boards: which ones are asked for, and their rows without anything of the person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.clock import PARAGUAY, local_day
from gateway.referrals import states
from gateway.referrals.models import Referral
from gateway.referrals.tables import referral

#: The priority of referrals that go also to the board of the place (Canal Verde).
PRIORITY_TRACK = "priority_track"
_MOMENTS = ("received_at", "accepted_at", "closed_at", "reminded_at", "overdue_at", "escalated_at")
_EXTRA = (*_MOMENTS, "outcome", "end_reason", "no_shows")
_COLUMNS = tuple(referral.c[name] for name in (*Referral.__dataclass_fields__, *_EXTRA))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which referrals: ``since`` and ``until`` (both included) are the days in Paraguay on which they were made.

    From behind the id ``after``, by id, ``limit`` at most. ``overdue``: only open ones past their last day.
    """

    limit: int
    after: UUID | None = None
    states: frozenset[str] = frozenset()
    service: str | None = None
    department: str | None = None
    district: str | None = None
    since: date | None = None
    until: date | None = None
    overdue: bool = False

    def said(self) -> dict[str, Any]:
        """Return what the log says of it: codes and days."""
        chosen: dict[str, Any] = {
            "states": sorted(self.states) or None,
            "service": self.service,
            "department": self.department,
            "district": self.district,
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "overdue": self.overdue or None,
        }
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Listed:
    """A referral with the milestones that a list shows."""

    current: Referral
    milestones: dict[str, Any]


async def listed(connection: AsyncConnection, whose: ColumnElement[bool], asked: Filter, at: datetime) -> list[Listed]:
    """Return the referrals of a condition that a filter lets through, by id; never those of somebody erased."""
    query = select(*_COLUMNS).where(whose, referral.c.texts.is_not(None), *_filtered(asked, at))
    rows = await connection.execute(query.order_by(referral.c.id).limit(asked.limit))
    names = Referral.__dataclass_fields__
    return [
        Listed(
            Referral(**{name: getattr(row, name) for name in names}),
            {name: getattr(row, name) for name in _EXTRA},
        )
        for row in rows
    ]


def row_json(item: Listed, at: datetime) -> dict[str, Any]:
    """Return a referral as lists show it: codes and moments, and nothing of a case, which is not its parties' own."""
    current = item.current
    return {
        "id": str(current.id),
        "service": current.service,
        "requester": current.requester,
        "recipient": current.recipient,
        "priority": current.priority,
        "reason": current.reason_code,
        "state": current.state,
        "delivery": current.delivery,
        "created_at": current.created_at.isoformat(),
        "due_on": None if current.due_on is None else current.due_on.isoformat(),
        "overdue": is_overdue(current, at),
        "department": current.department,
        "district": current.district,
        "category": current.category,
        **{name: _instant(item.milestones[name]) for name in _MOMENTS},
        "outcome": item.milestones["outcome"],
        "end_reason": item.milestones["end_reason"],
        "no_shows": item.milestones["no_shows"],
    }


def is_overdue(current: Referral, at: datetime) -> bool:
    """Say whether a referral is still open after its last day, which ends in Paraguay."""
    return current.due_on is not None and current.state not in states.TERMINAL and local_day(at) > current.due_on


def _filtered(asked: Filter, at: datetime) -> list[ColumnElement[bool]]:
    row, chosen = referral.c, list[ColumnElement[bool]]()
    if asked.after is not None:
        chosen.append(row.id > asked.after)
    if asked.states:
        chosen.append(row.state.in_(sorted(asked.states)))
    for name in ("service", "department", "district"):
        value = getattr(asked, name)
        if value is not None:
            chosen.append(row[name] == value)
    if asked.since is not None:
        chosen.append(row.created_at >= _midnight(asked.since))
    if asked.until is not None:
        chosen.append(row.created_at < _midnight(asked.until + timedelta(days=1)))
    if asked.overdue:
        chosen.append(and_(row.closed_at.is_(None), row.state.not_in(states.TERMINAL), row.due_on < local_day(at)))
    return chosen


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, PARAGUAY)


def _instant(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
