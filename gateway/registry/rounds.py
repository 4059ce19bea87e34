"""Computes status when it is due: each day of whom time alone has changed, of everybody when the catalogue changed.

One process at a time does it; the counts of the achievements are kept with each round.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from uuid import UUID

import psycopg
import structlog
from prometheus_client import Gauge
from sqlalchemy import insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.catalogue.models import Service
from gateway.catalogue.service import services as catalogue_services
from gateway.clock import local_day, utc_now
from gateway.database import Database
from gateway.registry.achievements import keep_counts
from gateway.registry.mass import Busy, Outcome, Unfinished, classify_all
from gateway.registry.recompute import arrived
from gateway.registry.status_tables import status_run
from schemas.codes import code_list
from schemas.ids import uuid7

_EVERY_S = 60.0
_LOCK = 5117
_BATCH = 500
#: With more units than this to look at, computing everybody at once is quicker than one after the other.
_MANY = 50_000

_DUE = "SELECT unit AS id, kind FROM siis.status WHERE due_on <= :day"
# Registered without any form, by a referral: nothing has arrived of them that would have computed them.
_MISSING = """
SELECT id, 'person' AS kind FROM siis.person AS p
WHERE names IS NOT NULL AND NOT EXISTS (SELECT FROM siis.status AS s WHERE s.unit = p.id)
UNION ALL
SELECT id, 'household' FROM siis.household AS h WHERE NOT EXISTS (SELECT FROM siis.status AS s WHERE s.unit = h.id)
UNION ALL
SELECT id, 'community' FROM siis.community AS c WHERE NOT EXISTS (SELECT FROM siis.status AS s WHERE s.unit = c.id)
"""
# Facts that a computation of everybody did not see. What arrived meanwhile may have changed nothing then, and left no
# trace by which the computation, with another catalogue, could have known that it was the older one.
_UNSEEN = """
WITH recent AS (
    SELECT person_id, household_id, community_id, (
        (pg_snapshot_xmax(CAST(:snapshot AS pg_snapshot))::text::bigint >> 32 << 32) | xmin::text::bigint
    )::text::xid8 AS written
    FROM siis.fact WHERE recorded_at > CAST(:at AS timestamptz) - interval '1 hour'
)
SELECT DISTINCT CASE WHEN person_id IS NOT NULL THEN 'person' WHEN household_id IS NOT NULL THEN 'household'
    ELSE 'community' END AS kind, coalesce(person_id, household_id, community_id) AS id
FROM recent WHERE NOT pg_visible_in_snapshot(written, CAST(:snapshot AS pg_snapshot))
"""
_log = structlog.get_logger(__name__)
_kept = Gauge("siis_status_run_timestamp_seconds", "When everybody's status was last brought up to date; 0: not known")


class Underway(Exception):
    """Another process computes everybody at this moment."""


class StatusRounds:
    """Brings the stored status of everybody up to date."""

    def __init__(self, database: Database, folder: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        """Prepare; ``folder`` is the data folder, where a computation of everybody has its temporary files."""
        self._database, self._folder, self._now = database, folder / "classify", now

    async def everybody(self, because: str) -> Outcome:
        """Compute everybody and keep the counts; waits while another process does."""
        async with self._alone("SELECT true FROM pg_advisory_xact_lock(:lock)"):
            return await self._everybody(because, self._now())

    async def due(self) -> int | None:
        """Do what is due since the last round: return how many units were looked at, None when nothing was due yet.

        Raises :class:`Underway`.
        """
        async with self._alone("SELECT pg_try_advisory_xact_lock(:lock)"):
            at = self._now()
            async with self._database.connection() as connection:
                services = await catalogue_services(connection)
                last = (
                    await connection.execute(
                        select(status_run.c.at, status_run.c.day, status_run.c.catalogue)
                        .order_by(status_run.c.at.desc())
                        .limit(1)
                    )
                ).one_or_none()
            if last is not None:
                _kept.set(last.at.timestamp())
            if last is None or last.catalogue != _digest(services):
                return (await self._everybody("catalogue", at)).units
            if last.day >= local_day(at):
                return None
            return await self._round(services, at)

    async def run(self, stop: asyncio.Event) -> None:
        """Do what is due, looking once a minute, until ``stop``."""
        while not stop.is_set():
            try:
                await self.due()
            except Underway:
                pass
            except (SQLAlchemyError, psycopg.Error, OSError, Busy, Unfinished) as error:
                # What was written stays and is right; the next look goes on from there.
                _log.warning("status.round_cut_off", error=type(error).__name__)
            try:
                await asyncio.wait_for(stop.wait(), _EVERY_S)
            except TimeoutError:
                continue

    @asynccontextmanager
    async def _alone(self, lock: str) -> AsyncIterator[None]:
        async with self._database.transaction() as connection:
            if not await connection.scalar(text(lock), {"lock": _LOCK}):
                raise Underway
            yield

    async def _everybody(self, because: str, at: datetime) -> Outcome:
        async with self._database.connection() as connection:
            services = await catalogue_services(connection)
        outcome = await asyncio.to_thread(
            classify_all, self._database.url, services, folder=self._folder, at=at, because=because
        )
        async with self._database.connection() as connection:
            unseen = await connection.execute(text(_UNSEEN), {"snapshot": outcome.snapshot, "at": at})
            found = [(row.kind, row.id) for row in unseen]
        changed = outcome.changed + await self._one_by_one(services, found, at, because)
        await self._keep(services, at, changed)
        return outcome

    async def _round(self, services: dict[str, Service], at: datetime) -> int:
        async with self._database.connection() as connection:
            values = {"day": local_day(at), "limit": _MANY + 1}
            due = await connection.execute(text(f"{_DUE} LIMIT :limit"), values)
            found = [(row.kind, row.id) for row in due]
            missing = await connection.execute(text(f"{_MISSING} LIMIT :limit"), {"limit": _MANY + 1})
            found += [(row.kind, row.id) for row in missing]
        if len(found) > _MANY:
            return (await self._everybody("time", at)).units
        await self._keep(services, at, await self._one_by_one(services, found, at, "time"))
        return len(found)

    async def _one_by_one(
        self, services: dict[str, Service], found: list[tuple[str, UUID]], at: datetime, because: str
    ) -> int:
        """Compute units in batches, each in a transaction of its own; return how many changed."""
        changed = 0
        for first in range(0, len(found), _BATCH):
            units: dict[str, list[UUID]] = {"person": [], "household": [], "community": []}
            for kind, unit in found[first : first + _BATCH]:
                units[kind].append(unit)
            async with self._database.transaction() as connection:
                done = await arrived(
                    connection,
                    services,
                    persons=units["person"],
                    households=units["household"],
                    communities=units["community"],
                    at=at,
                    because=because,
                )
            changed += len(done)
        return changed

    async def _keep(self, services: Mapping[str, Service], at: datetime, changed: int) -> None:
        run_id = uuid7()
        values = {"id": run_id, "at": at, "day": local_day(at), "catalogue": _digest(services), "changed": changed}
        async with self._database.transaction() as connection:
            await connection.execute(insert(status_run).values(**values))
            await keep_counts(connection, run_id)
        _kept.set(at.timestamp())


def _digest(services: Mapping[str, Service]) -> str:
    """Return a digest of everything but the facts that the rule looks at."""
    looked_at = [
        (
            each.code,
            sorted(each.categories),
            each.requires,
            each.from_age,
            each.to_age,
            each.coverage_days,
            sorted(each.outside_core),
        )
        for _code, each in sorted(services.items())
    ]
    lists = [code_list("life-cycle"), code_list("instruments")]
    return hashlib.sha256(repr((looked_at, lists)).encode()).hexdigest()
