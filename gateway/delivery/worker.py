"""The worker process: runs delivery jobs, gives those of a dead worker back, until it is told to stop."""

from __future__ import annotations

import asyncio
from uuid import UUID

import procrastinate
import structlog

from gateway.delivery.service import Delivery
from gateway.jobs import DELIVER

_log = structlog.get_logger(__name__)
HEARTBEAT_S = 2.0
STALLED_S = 8.0


async def run_jobs(app: procrastinate.App, delivery: Delivery, *, concurrency: int, stop: asyncio.Event) -> None:
    """Work off delivery jobs until ``stop`` is set; running ones are finished first."""

    # Only trouble of our own (the database away) raises out of a delivery: tried again, for as long as it takes.
    @app.task(name=DELIVER, retry=procrastinate.RetryStrategy(max_attempts=1000, wait=2, linear_wait=1))
    async def deliver(referral_id: str) -> None:
        await delivery.deliver(UUID(referral_id))

    async with app.open_async():
        worker = asyncio.create_task(
            app.run_worker_async(
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
            await asyncio.wait({worker, stopped}, return_when=asyncio.FIRST_COMPLETED)
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
