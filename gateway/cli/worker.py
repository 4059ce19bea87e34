"""``siis worker``: the process that delivers, polls, and numbers the log."""

from __future__ import annotations

import asyncio
import signal

import typer
import uvloop
from prometheus_client import start_http_server

from audit import integrator
from gateway.cli.context import calm_collector
from gateway.settings import load_settings
from schemas.text import _

app = typer.Typer(add_completion=False)


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
        tasks.create_task(integrator.run(runtime.database.engine, runtime.signer, runtime.audit, stop))
        tasks.create_task(runtime.witnessing.run(stop))
        tasks.create_task(runtime.replies.run(runtime.adapters, settings.poll_interval_s, stop))
        tasks.create_task(runtime.registers.run(runtime.adapters, settings.poll_interval_s, stop))
        concurrency = settings.worker_concurrency
        calls = Calls(runtime.database, runtime.vault)
        tasks.create_task(
            run_jobs(
                runtime.database.url,
                runtime.delivery,
                concurrency=concurrency,
                stop=stop,
                more=[lambda jobs: add_task(jobs, calls)],
            )
        )
