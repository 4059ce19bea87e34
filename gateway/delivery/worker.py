"""The worker process: delivers, runs other jobs, gives those of a dead worker back, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from uuid import UUID

import procrastinate
import psycopg
import structlog
from psycopg_pool import PoolTimeout
from sqlalchemy.exc import SQLAlchemyError

from gateway.delivery.courier import HEARTBEAT_S, Courier
from gateway.delivery.service import Delivery
from gateway.jobs import OTHER_TASKS, RECALL, job_app

_log = structlog.get_logger(__name__)
STALLED_S = 8.0
_AWAY_S = 1.0
_AWAY = (procrastinate.exceptions.ProcrastinateException, SQLAlchemyError, psycopg.Error, PoolTimeout, OSError)


async def run_jobs(
    url: str,
    delivery: Delivery,
    *,
    concurrency: int,
    stop: asyncio.Event,
    more: Sequence[Callable[[procrastinate.App], None]] = (),
) -> None:
    """Work off jobs until ``stop`` is set; running ones are finished first. ``more`` add other tasks.

    A database that goes away is waited for: jobs under way then are given back when it returns.
    """
    while not stop.is_set():
        try:
            app = job_app(url)
            for add in more:
                add(app)
            await _run_until_stopped(url, app, delivery, concurrency, stop)
        except* _AWAY as group:
            _log.error("delivery.database_away", error=type(group.exceptions[0]).__name__)
        if not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _AWAY_S)


async def _run_until_stopped(
    url: str, app: procrastinate.App, delivery: Delivery, concurrency: int, stop: asyncio.Event
) -> None:
    # Only trouble of our own (the database away) raises out of a recall: tried again, for as long as it takes.
    @app.task(name=RECALL, retry=procrastinate.RetryStrategy(max_attempts=1000, wait=2, linear_wait=1))
    async def recall(referral_id: str) -> None:
        await delivery.recall(UUID(referral_id))

    async with app.open_async(), asyncio.TaskGroup() as tasks:
        tasks.create_task(Courier(url, app, delivery, concurrency=concurrency).run(stop))
        tasks.create_task(_others(app, concurrency, stop))


async def _others(app: procrastinate.App, concurrency: int, stop: asyncio.Event) -> None:
    """Run the library's own worker for all other tasks, and give back what dead workers held."""
    worker = asyncio.create_task(
        app.run_worker_async(
            queues=[OTHER_TASKS],
            concurrency=concurrency,
            install_signal_handlers=False,
            fetch_job_polling_interval=1.0,
            shutdown_graceful_timeout=30,
            update_heartbeat_interval=HEARTBEAT_S,
            stalled_worker_timeout=STALLED_S,
            delete_jobs="successful",
        )
    )
    rescue = asyncio.create_task(_rescue(app))
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _pending = await asyncio.wait({worker, rescue, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (rescue, stopped):
            task.cancel()
        # The library ends its worker gracefully on cancellation: running jobs are finished first.
        worker.cancel()
        await asyncio.gather(worker, rescue, stopped, return_exceptions=True)


async def _rescue(app: procrastinate.App) -> None:
    while True:
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_S):
            _log.warning("delivery.rescued", job=job.id)
            await app.job_manager.retry_job(job)
        await asyncio.sleep(HEARTBEAT_S)
