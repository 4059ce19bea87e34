"""Takes deliveries for a worker and puts them back: the job library's rows are the leases of the institutions' places.

A row under way belongs to a worker that says every two seconds that it lives; so what a killed worker held is free
within seconds, and counting these rows says how many places of an institution are taken, whoever took them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.database import driver_connection

_TAKE = "SELECT job, referral, institution, starts, troubled FROM siis.take_deliveries(%s, %s, %s, %s, %s, %s)"
# Behind a message that was concluded the next one of the same referral may wait: then the job goes on with that.
_NEXT = """
EXISTS (
    SELECT FROM siis.message AS m
    WHERE m.referral_id = %(referral)s AND m.delivery = 'pending' AND NOT EXISTS (
        SELECT FROM siis.message AS e
        WHERE e.referral_id = m.referral_id AND e.number < m.number AND e.delivery = 'dead'
            AND e.delivery_reason IS DISTINCT FROM 'not-supported'
    )
)
"""
_DONE = f"DELETE FROM jobs.procrastinate_jobs WHERE id = %(job)s AND NOT {_NEXT}"  # noqa: S608 — text of ours
_DROP = "DELETE FROM jobs.procrastinate_jobs WHERE id = %(job)s"
_AGAIN = """
UPDATE jobs.procrastinate_jobs SET status = 'todo', worker_id = NULL, attempts = %(starts)s,
    scheduled_at = now() + %(wait)s::interval
WHERE id = %(job)s AND status = 'doing'
"""


@dataclass(slots=True)
class Job:
    """A delivery that a worker has in hand.

    ``starts``: how often it was begun since its last conclusion, this time included; more than once means that a
    worker was lost in the middle, and that the message may have gone out. ``troubled``: the institution has not
    answered lately. ``sent``: in this start the message has begun to leave.
    """

    id: int
    referral_id: UUID
    institution: str
    starts: int
    troubled: bool
    sent: bool = False

    @property
    def lost_before(self) -> bool:
        """Whether an earlier start was never concluded."""
        return self.starts > 1


@dataclass(frozen=True, slots=True)
class Lane:
    """What a worker may take for an institution: how many it wants, and what the institution's manifest allows in all.

    ``per_second`` is ``None`` where there is no limit.
    """

    institution: str
    wanted: int
    places: int
    per_second: float | None


async def take(driver: psycopg.AsyncConnection[Any], worker_id: int, lanes: Sequence[Lane], at: datetime) -> list[Job]:
    """Take what is due for the institutions, within their places and rates over all workers."""
    columns = ([getattr(lane, name) for lane in lanes] for name in ("institution", "wanted", "places", "per_second"))
    cursor = await driver.execute(_TAKE, (worker_id, at, *columns), binary=True)
    return [Job(*row) for row in await cursor.fetchall()]


async def conclude(connection: AsyncConnection, job: Job) -> None:
    """End a job in the transaction that concludes its message, or let it go on with the referral's next message."""
    driver = await driver_connection(connection)
    values = {"job": job.id, "referral": job.referral_id}
    if (await driver.execute(_DONE, values, prepare=True)).rowcount == 0:
        await again(driver, job, None)


async def drop(connection: AsyncConnection, job: Job) -> None:
    """End a job behind which nothing may be sent."""
    await (await driver_connection(connection)).execute(_DROP, {"job": job.id})


async def put_off(connection: AsyncConnection, job: Job, wait: timedelta, *, starts: int = 0) -> None:
    """Let a job wait in the caller's transaction; ``starts`` of it are not concluded."""
    await again(await driver_connection(connection), job, wait, starts=starts)


async def again(driver: psycopg.AsyncConnection[Any], job: Job, wait: timedelta | None, *, starts: int = 0) -> None:
    """Put a job back, to be taken after ``wait``; ``starts`` of it are not concluded."""
    await driver.execute(_AGAIN, {"job": job.id, "wait": wait, "starts": starts})
