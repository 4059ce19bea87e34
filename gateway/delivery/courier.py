"""The part of a worker that delivers: takes what institutions can take, carries it out, and says that it lives.

What is taken is bounded for each institution by itself, so one that is slow, paused or down holds no place of another.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections import Counter
from datetime import timedelta
from typing import Any

import procrastinate
import psycopg
import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from audit.errors import AuditUnavailable
from gateway.database import CONNECT_OPTIONS
from gateway.delivery import lanes, queue
from gateway.delivery.queue import Job
from gateway.delivery.service import Delivery
from gateway.delivery.status import refresh_metrics
from gateway.delivery.tables import lane

_log = structlog.get_logger(__name__)
HEARTBEAT_S = 2.0
# Nobody is notified of what arrives: the commits that did it would wait for one another, down to the disk.
_LOOK_S, _PAUSE_S, _KEEP_S, _LAST_S = 0.2, 0.02, 15.0, 30.0
# Trouble of ours, as a database away, passes soon; after a defect somebody has to look first.
_TROUBLE_WAIT, _DEFECT_WAIT = timedelta(seconds=2), timedelta(minutes=5)
_Driver = psycopg.AsyncConnection[tuple[Any, ...]]
_TROUBLE = (AuditUnavailable, SQLAlchemyError, psycopg.Error, OSError)


class Courier:
    """Delivers for as long as its database answers; made anew after that."""

    def __init__(self, url: str, app: procrastinate.App, delivery: Delivery, *, concurrency: int) -> None:
        """``concurrency`` is how many messages to one institution this worker has under way at once."""
        self._url, self._app, self._delivery, self._concurrency = url, app, delivery, concurrency
        self._running: dict[asyncio.Task[None], Job] = {}
        self._held: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._known: frozenset[str] = frozenset()

    async def run(self, stop: asyncio.Event) -> None:
        """Take and deliver until ``stop`` is set; what is under way is finished first.

        Raises psycopg's or the job library's errors when the database goes away; what was under way is then taken
        again by whoever finds that this worker says nothing any more.
        """
        async with await self._connect() as driver:
            worker_id = await self._app.job_manager.register_worker()
            keeping = asyncio.create_task(self._keep(worker_id))
            taking = asyncio.create_task(self._take_on(driver, worker_id, stop))
            stopped = asyncio.create_task(stop.wait())
            tasks = (keeping, taking, stopped)
            try:
                done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopped}:
                    task.result()
                # Told to stop, it still finishes what it has.
                self._wake.set()
                await taking
                await self._finish(driver)
            finally:
                left = (*tasks, *self._running)
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)
        await self._count()
        await self._app.job_manager.unregister_worker(worker_id)

    async def _take_on(self, driver: _Driver, worker_id: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._wake.clear()
            wanted = self._delivery.lanes(self._known, lambda name: self._concurrency - self._held[name])
            jobs = await queue.take(driver, worker_id, wanted, self._delivery.now())
            for job in jobs:
                task = asyncio.create_task(self._delivery.deliver(job))
                self._running[task] = job
                self._held[job.institution] += 1
                task.add_done_callback(lambda _task: self._wake.set())
            # A moment's arrivals are taken together.
            await asyncio.sleep(_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_S)
            await self._put_away(driver)

    async def _put_away(self, driver: _Driver) -> None:
        """Let go of what is done; a job that could not be concluded is put back."""
        for task in [task for task in self._running if task.done()]:
            job = self._running.pop(task)
            self._held[job.institution] -= 1
            error = None if task.cancelled() else task.exception()
            if error is None:
                continue
            trouble = isinstance(error, _TROUBLE)
            where = traceback.extract_tb(error.__traceback__)[-1]
            _log.error(
                "delivery.trouble" if trouble else "delivery.defect",
                job=job.id,
                error=type(error).__name__,
                at=f"{where.filename}:{where.lineno}",
            )
            wait = _TROUBLE_WAIT if trouble else _DEFECT_WAIT
            await queue.again(driver, job, wait, starts=job.starts if job.sent else job.starts - 1)

    async def _finish(self, driver: _Driver) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=_LAST_S)
        await self._put_away(driver)

    async def _keep(self, worker_id: int) -> None:
        """Say that this worker lives, add up what it did, and look at the lanes now and then."""
        looked_at = 0.0
        while True:
            await self._app.job_manager.update_heartbeat(worker_id)
            await self._count()
            if time.monotonic() - looked_at >= _KEEP_S:
                looked_at = time.monotonic()
                await self._look()
            await asyncio.sleep(HEARTBEAT_S)

    async def _look(self) -> None:
        database = self._delivery.database
        async with database.transaction() as connection:
            await lanes.ensure(connection)
            self._known = frozenset((await connection.scalars(select(lane.c.institution))).all())
            await refresh_metrics(connection, self._delivery.now())

    async def _count(self) -> None:
        transmitted, retried = dict(self._delivery.transmitted), dict(self._delivery.retried)
        if not transmitted and not retried:
            return
        self._delivery.transmitted.clear()
        self._delivery.retried.clear()
        async with self._delivery.database.transaction() as connection:
            await lanes.count(connection, transmitted, retried)

    async def _connect(self) -> _Driver:
        return await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, options=CONNECT_OPTIONS, connect_timeout=5
        )
