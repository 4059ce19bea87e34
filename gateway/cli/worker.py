"""``siis worker``: the process that delivers, polls, and numbers the log."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
import typer
import uvloop
from prometheus_client import Counter, start_http_server

from audit import integrator
from gateway.cli.context import calm_collector
from gateway.errors import place_of
from gateway.settings import load_settings
from schemas.text import _

app = typer.Typer(add_completion=False)

_log = structlog.get_logger(__name__)
_failures = Counter("siis_worker_task_failures_total", "Defects that ended a task of the worker", ["task"])
_AGAIN_S = 5.0


@app.command(help=_("Entregar referencias, recoger contrarreferencias y tomar registros."))
def worker() -> None:
    """Deliver referrals and poll for counter-referrals until interrupted; jobs under way are finished first."""
    uvloop.run(_work())


async def _work() -> None:
    from gateway.delivery.worker import run_jobs
    from gateway.runtime import open_runtime
    from gateway.standards.govstack.webhooks import Calls, add_task

    settings = load_settings()
    if settings.worker_metrics_port:
        start_http_server(settings.worker_metrics_port, settings.host)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with open_runtime(settings) as runtime, asyncio.TaskGroup() as tasks:
        calm_collector()
        pace, calls = settings.poll_interval_s, Calls(runtime.database, runtime.vault)
        delivering = partial(
            run_jobs,
            runtime.database.url,
            runtime.delivery,
            concurrency=settings.worker_concurrency,
            stop=stop,
            more=[lambda jobs: add_task(jobs, calls)],
        )
        for task, run in {
            "integrator": partial(integrator.run, runtime.database.engine, runtime.signer, runtime.audit, stop),
            "witnesses": partial(runtime.witnessing.run, stop),
            "deadlines": partial(runtime.deadlines.run, stop),
            "replies": partial(runtime.replies.run, runtime.adapters, pace, stop),
            "registers": partial(runtime.registers.run, runtime.adapters, pace, stop),
            "crossings": partial(runtime.crossing.run, runtime.adapters, pace, stop),
            "events": partial(runtime.push.run, stop),
            "statuses": partial(runtime.status_rounds.run, stop),
            "deliveries": delivering,
        }.items():
            tasks.create_task(_kept(task, run, stop))


async def _kept(name: str, run: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Run one of the worker's tasks to its end; a defect in it is told, and it begins again; no other stops by it."""
    while not stop.is_set():
        try:
            await run()
            # Some have nothing to do here, and end at once.
            return
        except Exception as error:  # noqa: BLE001
            # Its text may hold anything, so only its kind is told.
            _failures.labels(name).inc()
            _log.error("worker.task_failed", task=name, kind=type(error).__name__, where=place_of(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _AGAIN_S)
