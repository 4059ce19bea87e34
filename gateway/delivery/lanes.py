"""Keeps, for all workers together, which institutions answer: one that does not is left alone, then met with care.

After several silences in a row its lane closes; one message then tries it, at most once a minute. When it answers, all
that waits becomes due, at a rate that doubles every second from one message on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import case, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue.tables import institution
from gateway.delivery.plan import Plan
from gateway.delivery.tables import lane

#: So many silences in a row close a lane.
SILENCES = 5
_WAKE = text(
    """
    UPDATE jobs.procrastinate_jobs SET scheduled_at = NULL
    WHERE queue_name = 'to:' || :institution AND status = 'todo' AND scheduled_at > now()
    """
)


async def ensure(connection: AsyncConnection) -> None:
    """Make a lane for every institution of the catalogue that has none."""
    known = select(institution.c.code).where(institution.c.code.not_in(select(lane.c.institution)))
    await connection.execute(insert(lane).from_select(["institution"], known).on_conflict_do_nothing())


async def silent(
    connection: AsyncConnection, name: str, plan: Plan, at: datetime, retry_after_s: float | None = None
) -> None:
    """Note that an institution did not answer; close its lane when that is no accident any more.

    What was under way when it closed and fails now closes it no further.
    """
    open_now = or_(lane.c.closed_until.is_(None), lane.c.closed_until <= at)
    row = (
        await connection.execute(
            update(lane)
            .where(lane.c.institution == name, open_now)
            .values(failures=lane.c.failures + 1)
            .returning(lane.c.failures, lane.c.closings)
        )
    ).one_or_none()
    if row is None or (row.failures < SILENCES and row.closings == 0):
        return
    wait = max(plan.closed(row.closings), timedelta(seconds=min(retry_after_s or 0.0, 3600.0)))
    await connection.execute(
        update(lane).where(lane.c.institution == name).values(closings=row.closings + 1, closed_until=at + wait)
    )


async def answered(connection: AsyncConnection, name: str, at: datetime) -> None:
    """Note that an institution answers again; what waits for it becomes due when its lane was closed."""
    was_closed = lane.c.closings > 0
    reopened = await connection.scalar(
        update(lane)
        .where(lane.c.institution == name, lane.c.failures > 0)
        .values(
            failures=0,
            closings=0,
            closed_until=None,
            reopened_at=case((was_closed, at), else_=lane.c.reopened_at),
            stock=case((was_closed, 1.0), else_=lane.c.stock),
            stocked_at=case((was_closed, at), else_=lane.c.stocked_at),
        )
        .returning(lane.c.reopened_at)
    )
    if reopened == at:
        await connection.execute(_WAKE, {"institution": name})


async def count(connection: AsyncConnection, transmitted: Mapping[str, int], retried: Mapping[str, int]) -> None:
    """Add to what was transmitted and tried again since the lanes were made."""
    for name in sorted({*transmitted, *retried}):
        await connection.execute(
            update(lane)
            .where(lane.c.institution == name)
            .values(
                transmitted=lane.c.transmitted + transmitted.get(name, 0),
                retried=lane.c.retried + retried.get(name, 0),
            )
        )


async def pause(connection: AsyncConnection, name: str, paused: bool, at: datetime, by: str | None) -> bool:
    """Pause an institution's lane, or let it go on; say whether that changed anything. What is under way is finished.

    A lane that goes on after a pause is filled at a growing rate, as after a silence.
    """
    values = (
        {"paused": True, "paused_at": at, "paused_by": by}
        if paused
        else {"paused": False, "paused_at": None, "paused_by": None, "reopened_at": at, "stock": 1.0, "stocked_at": at}
    )
    await connection.execute(insert(lane).values(institution=name).on_conflict_do_nothing())
    changed = await connection.execute(
        update(lane).where(lane.c.institution == name, lane.c.paused.is_(not paused)).values(values)
    )
    return bool(changed.rowcount)


async def busy(connection: AsyncConnection) -> dict[str, int]:
    """Return how many messages are under way to each institution."""
    rows = await connection.execute(
        text("SELECT substr(queue_name, 4), count(*) FROM jobs.procrastinate_jobs WHERE status = 'doing' GROUP BY 1")
    )
    return {name: number for name, number in rows if name}
