"""The lanes to institutions, shared by all workers: places, rates, pauses, silences, what a lost worker held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest_asyncio
from sqlalchemy import text

from gateway.clock import utc_now
from gateway.database import CONNECT_OPTIONS, Database, application_url
from gateway.delivery import lanes, queue
from gateway.delivery.plan import Plan
from gateway.delivery.queue import Job, Lane
from gateway.delivery.status import status
from gateway.delivery.worker import _rescue
from gateway.jobs import job_app
from gateway.settings import Settings
from schemas.ids import uuid7
from tests.house import until

PLAN = Plan(first_wait_s=5, attempts=20)
NAME, OTHER = "MSPBS", "MDS"


class Yard:
    """A queue of deliveries, and workers that take from it."""

    def __init__(self, database: Database, driver: psycopg.AsyncConnection[Any]) -> None:
        self.database, self.driver = database, driver

    async def fill(self, number: int, name: str = NAME, lock: str | None = None) -> None:
        for _ in range(number):
            key = str(uuid7())
            await self.driver.execute(
                "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, lock, args)"
                " VALUES (%s, 'deliver', %s, jsonb_build_object('referral_id', %s::text))",
                ("to:" + name, lock or key, key),
            )

    async def worker(self) -> int:
        cursor = await self.driver.execute("SELECT jobs.procrastinate_register_worker_v1()")
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def take(
        self,
        worker: int,
        *,
        at: datetime | None = None,
        places: int = 8,
        wanted: int = 100,
        rate: float | None = None,
        names: tuple[str, ...] = (NAME,),
    ) -> list[Job]:
        return await queue.take(
            self.driver, worker, [Lane(name, wanted, places, rate) for name in names], at or utc_now()
        )

    async def silences(self, number: int, at: datetime) -> None:
        for _ in range(number):
            async with self.database.transaction() as connection:
                await lanes.silent(connection, NAME, PLAN, at)


@pytest_asyncio.fixture
async def yard(settings: Settings) -> AsyncIterator[Yard]:
    url = application_url(settings)
    database = Database(url, pool_size=2)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, options=CONNECT_OPTIONS) as driver:
        await driver.execute("DELETE FROM jobs.procrastinate_jobs")
        await driver.execute("DELETE FROM jobs.procrastinate_workers")
        await driver.execute("DELETE FROM siis.delivery_lane")
        async with database.transaction() as connection:
            await lanes.ensure(connection)
        yield Yard(database, driver)
    await database.close()


async def test_all_workers_together_take_no_more_than_an_institution_has_places(yard: Yard) -> None:
    await yard.fill(20)
    first, second = await yard.worker(), await yard.worker()
    assert len(await yard.take(first, places=5, wanted=3)) == 3
    assert len(await yard.take(second, places=5)) == 2
    assert await yard.take(second, places=5) == []


async def test_two_workers_that_take_at_the_same_moment_get_different_jobs_within_the_places(
    yard: Yard, settings: Settings
) -> None:
    await yard.fill(40)
    workers = [await yard.worker() for _ in range(8)]
    url = application_url(settings)

    async def taking(worker: int) -> list[Job]:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True, options=CONNECT_OPTIONS) as driver:
            return [
                job for _ in range(5) for job in await queue.take(driver, worker, [Lane(NAME, 3, 10, None)], utc_now())
            ]

    found = [job.id for group in await asyncio.gather(*map(taking, workers)) for job in group]
    # Who meets another at a row passes it by: what is left then goes to who comes next.
    found += [job.id for job in await taking(workers[0])]
    assert len(found) == len(set(found)) == 10


async def test_a_lost_workers_places_are_free_again_and_its_job_says_that_it_was_begun(yard: Yard) -> None:
    await yard.fill(4)
    lost, living = await yard.worker(), await yard.worker()
    held = await yard.take(lost, places=4)
    assert await yard.take(living, places=4) == []
    await yard.driver.execute(
        "UPDATE jobs.procrastinate_workers SET last_heartbeat = now() - interval '1 minute' WHERE id = %s", (lost,)
    )
    async with job_app(yard.database.url).open_async() as app:
        rescuing = asyncio.create_task(_rescue(app))
        found: list[Job] = []

        async def freed() -> bool:
            found.extend(await yard.take(living, places=4))
            return len(found) == 4

        await until(freed)
        rescuing.cancel()
        await asyncio.gather(rescuing, return_exceptions=True)
    assert {job.id for job in found} == {job.id for job in held}
    assert not any(job.lost_before for job in held)
    assert all(job.lost_before for job in found)


async def test_what_was_put_back_after_an_attempt_counts_as_never_begun(yard: Yard) -> None:
    await yard.fill(1)
    worker = await yard.worker()
    [job] = await yard.take(worker)
    await queue.again(yard.driver, job, None)
    [again] = await yard.take(worker)
    assert (again.id, again.lost_before) == (job.id, False)


async def test_one_message_of_a_referral_is_under_way_at_a_time(yard: Yard) -> None:
    await yard.fill(3, lock="one-referral")
    worker = await yard.worker()
    taken = await yard.take(worker)
    assert len(taken) == 1
    assert await yard.take(worker) == []


async def test_a_paused_institution_gets_nothing_others_go_on_and_later_it_is_not_flooded(yard: Yard) -> None:
    await yard.fill(200)
    await yard.fill(2, OTHER)
    worker, at = await yard.worker(), utc_now()
    async with yard.database.transaction() as connection:
        assert await lanes.pause(connection, NAME, True, at, "UTGS")
        assert not await lanes.pause(connection, NAME, True, at, "UTGS")
    taken = await yard.take(worker, names=(NAME, OTHER))
    assert {job.institution for job in taken} == {OTHER}
    async with yard.database.transaction() as connection:
        assert await lanes.pause(connection, NAME, False, at, "UTGS")
    seconds = [0.0, 1.0, 2.0, 3.0, 60.0]
    per_second = [len(await yard.take(worker, at=at + timedelta(seconds=second), places=1000)) for second in seconds]
    assert per_second == [1, 2, 4, 8, 100]


async def test_a_rate_holds_for_all_workers_together(yard: Yard) -> None:
    await yard.fill(30)
    first, second, at = await yard.worker(), await yard.worker(), utc_now()
    await yard.take(first, rate=5, places=100, at=at)
    later = at + timedelta(seconds=10)
    assert len(await yard.take(first, rate=5, places=100, at=later)) == 5
    assert await yard.take(second, rate=5, places=100, at=later) == []
    assert len(await yard.take(second, rate=5, places=100, at=later + timedelta(seconds=0.4))) == 2


async def test_an_institution_that_does_not_answer_is_tried_with_one_message_and_woken_when_it_does(yard: Yard) -> None:
    await yard.fill(10)
    worker, at = await yard.worker(), utc_now()
    await yard.silences(4, at)
    [job] = await yard.take(worker, at=at, wanted=1)
    assert job.troubled
    await yard.silences(1, at)
    # What was under way when it closed does not close it further.
    await yard.silences(20, at)
    assert await yard.take(worker, at=at + timedelta(seconds=4)) == []
    await queue.again(yard.driver, job, timedelta(hours=6))
    [probe] = await yard.take(worker, at=at + timedelta(seconds=6))
    await yard.silences(1, at + timedelta(seconds=6))
    assert await yard.take(worker, at=at + timedelta(seconds=15)) == []
    async with yard.database.connection() as connection:
        [seen] = [lane for lane in await status(connection) if lane.institution == NAME]
    assert (seen.silent, seen.under_way, seen.waiting) == (True, 1, 0)
    await queue.again(yard.driver, probe, timedelta(hours=6))
    answer = at + timedelta(seconds=17)
    async with yard.database.transaction() as connection:
        await lanes.answered(connection, NAME, answer)
    # All ten are due, also the two that were to wait for hours; they come at a growing rate.
    times = [answer + timedelta(seconds=second) for second in (0, 1, 2, 3)]
    assert [len(await yard.take(worker, at=moment, places=100)) for moment in times] == [1, 2, 4, 3]


async def test_ids_alone_stand_in_the_queue(yard: Yard) -> None:
    await yard.fill(1)
    async with yard.database.connection() as connection:
        rows = (await connection.execute(text("SELECT args FROM jobs.procrastinate_jobs"))).scalars().all()
    assert [set(row) for row in rows] == [{"referral_id"}]
