"""``siis serve``: the HTTP process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from typing import Annotated

import typer
import uvicorn
import uvloop
from starlette.types import ASGIApp

from audit import integrator
from gateway.cli.context import calm_collector
from gateway.settings import load_settings
from schemas.text import _

app = typer.Typer(add_completion=False)


@app.command(help=_("Servir las interfaces HTTP."))
def serve(
    host: Annotated[str | None, typer.Option(help=_("Dirección donde escuchar."))] = None,
    port: Annotated[int | None, typer.Option(help=_("Puerto donde escuchar."))] = None,
) -> None:
    """Serve the HTTP interfaces until interrupted; requests under way are finished first."""
    settings = load_settings()
    uvloop.run(_serve(host or settings.host, settings.port if port is None else port))


class Server(uvicorn.Server):
    """A server that ends with exit code 0 when it is asked to: the library would raise the signal again."""

    @classmethod
    def of(cls, app: ASGIApp, host: str, port: int) -> Server:
        """Make the server of an application, with the limits that hold before a request is read."""
        return cls(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http="httptools",
                lifespan="off",
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=20,
                h11_max_incomplete_event_size=16 * 1024,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Finish the requests under way at SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self.handle_exit, name, None)
        yield


async def _serve(host: str, port: int) -> None:
    from gateway.api.app import create_app
    from gateway.runtime import open_runtime

    settings = load_settings()
    async with open_runtime(settings) as runtime:
        stop = asyncio.Event()
        running = integrator.run(runtime.database.engine, runtime.signer, runtime.audit, stop)
        integrating = asyncio.create_task(running)
        witnessing = asyncio.create_task(runtime.witnessing.run(stop))
        calm_collector()
        try:
            await Server.of(create_app(runtime), host, port).serve()
        finally:
            stop.set()
            await integrating
            await witnessing
