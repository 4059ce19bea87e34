"""Says how delivery to each institution stands: how much waits and since when, what failed, what is paused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client import Gauge
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_waiting = Gauge("siis_delivery_waiting", "Messages not transmitted yet", ["recipient"])
_oldest = Gauge("siis_delivery_oldest_seconds", "Age of the oldest message not transmitted yet", ["recipient"])
_dead = Gauge("siis_delivery_dead", "Messages that wait for a person's decision", ["recipient"])
_paused = Gauge("siis_delivery_paused", "Whether somebody paused it", ["recipient"])
_silent = Gauge("siis_delivery_silent", "Whether the institution does not answer", ["recipient"])

# What waits is few, and both tables have it by recipient in an index.
_STATUS = text(
    """
    WITH letters AS (
        SELECT recipient, delivery, created_at FROM siis.referral WHERE delivery IN ('pending', 'dead')
        UNION ALL
        SELECT recipient, delivery, created_at FROM siis.message WHERE delivery IN ('pending', 'dead')
    ), sums AS (
        SELECT recipient AS institution, count(*) FILTER (WHERE delivery = 'pending') AS waiting,
            min(created_at) FILTER (WHERE delivery = 'pending') AS oldest,
            count(*) FILTER (WHERE delivery = 'dead') AS dead
        FROM letters GROUP BY 1
    ), busy AS (
        SELECT substr(queue_name, 4) AS institution, count(*) AS under_way
        FROM jobs.procrastinate_jobs WHERE status = 'doing' AND queue_name LIKE 'to:%' GROUP BY 1
    )
    SELECT institution, coalesce(s.waiting, 0) AS waiting, s.oldest, coalesce(s.dead, 0) AS dead,
        coalesce(b.under_way, 0) AS under_way, coalesce(l.paused, false) AS paused, l.paused_at, l.paused_by,
        coalesce(l.closings, 0) > 0 AS silent, l.closed_until, coalesce(l.transmitted, 0) AS transmitted,
        coalesce(l.retried, 0) AS retried
    FROM siis.delivery_lane AS l FULL JOIN sums AS s USING (institution) LEFT JOIN busy AS b USING (institution)
    WHERE CAST(:only AS text) IS NULL OR institution = :only
    ORDER BY institution
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """How delivery to one institution stands.

    ``waiting`` not transmitted yet, ``under_way`` of them in a worker's hands, ``dead`` wait for a person;
    ``transmitted`` and ``retried`` since the lane was made, up to what a killed worker had not told yet.
    """

    institution: str
    waiting: int
    oldest: datetime | None
    under_way: int
    dead: int
    paused: bool
    paused_at: datetime | None
    paused_by: str | None
    silent: bool
    closed_until: datetime | None
    transmitted: int
    retried: int

    def as_json(self, at: datetime) -> dict[str, Any]:
        """Return it as the API and the command show it, with the age of the oldest in seconds."""
        age = None if self.oldest is None else max(int((at - self.oldest).total_seconds()), 0)
        return {
            "institution": self.institution,
            "waiting": self.waiting,
            "oldest_s": age,
            "under_way": self.under_way,
            "dead": self.dead,
            "paused": self.paused,
            "paused_at": None if self.paused_at is None else self.paused_at.isoformat(),
            "paused_by": self.paused_by,
            "silent": self.silent,
            "next_try_at": None if not self.silent or self.closed_until is None else self.closed_until.isoformat(),
            "transmitted": self.transmitted,
            "retried": self.retried,
        }


async def status(connection: AsyncConnection, only: str | None = None) -> list[LaneStatus]:
    """Return how delivery stands to every institution, or to one, by code."""
    return [LaneStatus(**row._mapping) for row in await connection.execute(_STATUS, {"only": only})]


async def refresh_metrics(connection: AsyncConnection, at: datetime) -> None:
    """Show in the metrics how delivery stands; every worker shows the same, so take the largest."""
    show(await status(connection), at)


def show(lanes: Iterable[LaneStatus], at: datetime) -> None:
    """Set the metrics."""
    for lane in lanes:
        told = lane.as_json(at)
        for gauge, value in (
            (_waiting, lane.waiting),
            (_oldest, told["oldest_s"] or 0),
            (_dead, lane.dead),
            (_paused, lane.paused),
            (_silent, lane.silent),
        ):
            gauge.labels(lane.institution).set(value)
