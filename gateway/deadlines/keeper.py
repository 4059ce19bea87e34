"""Keeps the deadlines of referrals: a reminder before the last day, overdue after it, and then who must look into it.

A day ends in Paraguay. Each step is one event of the referral and one mark on its row, written together: a keeper that
dies leaves none of both, and of several keepers each takes other referrals (SKIP LOCKED).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

import structlog
from prometheus_client import Gauge
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.service import AuditLog
from gateway import evidence
from gateway.catalogue.models import COORDINATOR
from gateway.clock import local_day, utc_now
from gateway.database import Database
from gateway.governance import notices
from gateway.governance.notices import NewNotice
from gateway.referrals import states, store
from gateway.referrals.models import Referral
from gateway.referrals.nominal import PRIORITY_TRACK
from gateway.referrals.tables import referral
from gateway.vault import Vault

#: Calendar days before the last one when the recipient is reminded, and after it when supervisors learn of it.
REMIND_BEFORE, ESCALATE_AFTER = timedelta(days=2), timedelta(days=5)
_INTERVAL_S = 60.0
_BATCH = 200
_SUPERVISOR, _MEMBER = "supervisor", "board-member"
# Nobody can be late with what was never to be sent.
_NOT_SENT = ("withheld", "rejected")

Mark = Literal["reminder", "overdue", "escalated"]
#: Gives the institutions that act for the boards of a department and district.
Boards = Callable[[AsyncConnection, str | None, str | None], Awaitable[frozenset[str]]]

_log = structlog.get_logger(__name__)
_overdue = Gauge("siis_referrals_overdue", "Open referrals past their last day", ["recipient"])


class Swept(NamedTuple):
    """How many referrals got which mark in one round."""

    reminder: int = 0
    overdue: int = 0
    escalated: int = 0


class Deadlines:
    """The keeper of one process."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        audit: AuditLog,
        boards: Boards,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database, self._vault, self._audit, self._boards, self._now = database, vault, audit, boards, now

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep every minute until ``stop``; a database that is away is tried again."""
        seen: frozenset[str] = frozenset()
        while not stop.is_set():
            try:
                await self.sweep(stop)
                seen = await self.count_overdue(seen)
            except (SQLAlchemyError, OSError) as error:
                _log.warning("deadlines.not_kept", error=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _INTERVAL_S)

    async def sweep(self, stop: asyncio.Event | None = None) -> Swept:
        """Mark every referral whose time has come, in batches; returns how many."""
        done = {}
        for mark in _MARKS:
            done[mark] = 0
            while stop is None or not stop.is_set():
                marked = await self._batch(mark)
                done[mark] += marked
                if marked < _BATCH:
                    break
        return Swept(**done)

    async def count_overdue(self, seen: frozenset[str] = frozenset()) -> frozenset[str]:
        """Set the metric from the database; who was ``seen`` before and is late with nothing now is set to nought."""
        row = referral.c
        late = select(row.recipient, func.count()).where(*_open(), row.due_on < local_day(self._now()))
        async with self._database.connection() as connection:
            found = {each.recipient: each[1] for each in await connection.execute(late.group_by(row.recipient))}
        for recipient in seen | found.keys():
            _overdue.labels(recipient).set(found.get(recipient, 0))
        return seen | found.keys()

    async def _batch(self, mark: Mark) -> int:
        at = self._now()
        column, due = _MARKS[mark]
        columns = [referral.c[name] for name in Referral.__dataclass_fields__]
        query = (
            select(*columns)
            .where(*_open(), referral.c[column].is_(None), due(referral.c.due_on, local_day(at)))
            .order_by(referral.c.due_on)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        async with self._database.transaction() as connection:
            found = [Referral(**row._mapping) for row in await connection.execute(query)]
            for current in found:
                entry_id = await self._escalate(connection, current, at) if mark == "escalated" else None
                facts = {} if current.due_on is None else {"due_on": current.due_on.isoformat()}
                await store.add_event(
                    connection, self._vault, current, mark, actor=COORDINATOR, at=at, facts=facts, entry_id=entry_id
                )
                await store.change(connection, current.id, **{column: at})
        return len(found)

    async def _escalate(self, connection: AsyncConnection, current: Referral, at: datetime) -> UUID:
        """Tell the supervisors of both sides and the boards of the place; return the entry that says so."""
        boards: frozenset[str] = frozenset()
        if current.priority == PRIORITY_TRACK:
            boards = await self._boards(connection, current.department, current.district)
        told = {(institution, _SUPERVISOR) for institution in (current.requester, current.recipient)}
        told |= {(institution, _MEMBER) for institution in boards}
        entry = evidence.entry(
            "referral.escalated",
            "done",
            at=at,
            policy_version="none",
            subject=current.person_id,
            actor={"channel": "gateway", "institution": COORDINATOR},
            exchange={
                "referral": str(current.id),
                "requester": current.requester,
                "recipient": current.recipient,
                "state_before": current.state,
                "state_after": current.state,
                "due_on": None if current.due_on is None else current.due_on.isoformat(),
                "told": sorted(f"{institution}/{role}" for institution, role in told),
            },
        )
        await notices.write(
            connection,
            [
                NewNotice(
                    kind="overdue-referral",
                    origin=COORDINATOR,
                    reference=current.id,
                    entry_id=entry.id,
                    subject=current.person_id,
                    audience_institution=institution,
                    audience_role=role,
                )
                for institution, role in sorted(told)
            ],
            at=at,
        )
        await self._audit.stage(connection, entry)
        return entry.id


def _open() -> tuple[ColumnElement[bool], ...]:
    row = referral.c
    return (
        row.closed_at.is_(None),
        row.state.not_in(states.TERMINAL),
        row.delivery.not_in(_NOT_SENT),
        row.texts.is_not(None),
    )


# In the order of a referral's life; whoever comes late is not reminded of a day that is over.
_MARKS: dict[Mark, tuple[str, Callable[[ColumnElement[date | None], date], ColumnElement[bool]]]] = {
    "reminder": ("reminded_at", lambda due, today: due.between(today, today + REMIND_BEFORE)),
    "overdue": ("overdue_at", lambda due, today: due < today),
    "escalated": ("escalated_at", lambda due, today: due < today - ESCALATE_AFTER),
}
