"""Runs one institution as a process: its sockets on loopback, the ready line, a clean end on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import orjson
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adapters.simulator.web import Application, Institution

_LOOPBACK = "127.0.0.1"
_GRACE_S = 1


class _Protocol(HttpToolsProtocol):
    """Hands the transport to the application, which needs it to cut a connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["siis.transport"] = self.transport


class _Server(uvicorn.Server):
    """Says when it listens, and leaves the signals to :func:`serve`, which has more to close than HTTP."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._ready, self._stopping = ready, stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping.set()
        await super().shutdown(sockets=sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(institution: Institution, port: int) -> None:
    """Serve until a signal; raise OSError if the port is taken."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(institution, port))


async def serve(institution: Institution, port: int) -> None:
    """Start the institution and its control API, print the ready line, and serve until SIGTERM or SIGINT."""
    service, control = _listen(port), _listen(0)
    address = f"{institution.scheme}://{_LOOPBACK}:{service.getsockname()[1]}"
    control_port = control.getsockname()[1]
    more = await institution.start(service)
    ready = {"name": institution.name, "address": address, "control": f"http://{_LOOPBACK}:{control_port}", **more}
    application = Application(institution, control_port)
    config = uvicorn.Config(
        cast(Any, application),
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config, lambda: print(orjson.dumps(ready).decode(), flush=True), application.stopping)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, setattr, server, "should_exit", True)
    try:
        await server.serve(sockets=[service, control] if institution.scheme == "http" else [control])
    finally:
        await institution.stop()


def _listen(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((_LOOPBACK, port))
    return sock
