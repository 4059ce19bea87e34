"""A producer over HTTP that does as a script says: a real socket on this machine, every byte of it ours."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httptools
import orjson

from adapters.conformance.trials import Place
from adapters.connections import Connection

_RESET = struct.pack("ii", 1, 0)
_DRIP_S = 0.02
_READ = 64 * 1024


@dataclass(slots=True)
class Request:
    """A request as it came in."""

    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        """Its path without the query."""
        return self.target.partition("?")[0]


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Wire = Callable[[Request], bytes]


@dataclass(frozen=True, slots=True)
class Act:
    """What is written in answer to a request, and what comes then: close, reset, hang, drip."""

    wire: Wire
    then: str = "close"


class Script:
    """An HTTP producer: the acts in turn, the last one for ever; a session is opened where the manifest has one."""

    def __init__(self, acts: Sequence[Act], *, session_path: str | None = None, session: str = "open") -> None:
        self._acts, self._session_path, self._session = list(acts), session_path, session
        self.requests: list[Request] = []
        self.sessions = 0
        #: Set where the requests themselves are looked at.
        self.asked: Callable[[Script], str | None] = lambda _script: None

    def complaint(self) -> str | None:
        """Say what was wrong with how it was asked."""
        return self.asked(self)

    @asynccontextmanager
    async def opened(self, place: Place) -> AsyncIterator[Connection]:
        """Listen on a free port of this machine."""
        async with listening(self._serve, place.tls) as port:
            yield place.at(f"{'http' if place.tls is None else 'https'}://127.0.0.1:{port}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read(reader)
        if request is None:
            return
        if request.path == self._session_path:
            self.sessions += 1
            writer.write(_session(self._session, self.sessions))
            await writer.drain()
            return
        self.requests.append(request)
        act = self._acts[min(len(self.requests), len(self._acts)) - 1]
        writer.write(act.wire(request))
        await writer.drain()
        if act.then == "reset":
            reset(writer)
        while act.then in ("hang", "drip") and not reader.at_eof():
            if act.then == "drip":
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(_DRIP_S)
            else:
                await reader.read(_READ)


class Unreachable:
    """A producer that is not there: an address of this machine where nobody listens."""

    def complaint(self) -> str | None:
        """Nobody was asked."""
        return None

    @asynccontextmanager
    async def opened(self, place: Place) -> AsyncIterator[Connection]:
        """Give an address."""
        yield place.at(f"{'http' if place.tls is None else 'https'}://127.0.0.1:{free_port()}")


@asynccontextmanager
async def listening(handle: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve connections on a free port of this machine, which it gives; what a handler still does at the end ends."""
    tasks: set[asyncio.Task[Any]] = set()

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        except (OSError, EOFError, httptools.HttpParserError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(handled, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def free_port() -> int:
    """Find a port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def reset(writer: asyncio.StreamWriter) -> None:
    """Cut a connection with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def http(
    status: int, body: bytes, media: str, headers: Sequence[tuple[str, str]] = (), length: int | None = None
) -> bytes:
    """Write an HTTP answer that ends its connection; ``length`` is declared in place of the true one, -1 for none."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {media}", "Connection: close"]
    if length != -1:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


async def _read(reader: asyncio.StreamReader) -> Request | None:
    request, done = Request(), False

    class Events:
        def on_url(self, url: bytes) -> None:
            request.target += url.decode("latin-1")

        def on_header(self, name: bytes, value: bytes) -> None:
            request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

        def on_body(self, body: bytes) -> None:
            request.body += body

        def on_message_complete(self) -> None:
            nonlocal done
            done = True

    parser = httptools.HttpRequestParser(Events())
    while not done:
        block = await reader.read(_READ)
        if not block:
            return None
        parser.feed_data(block)
    request.method = parser.get_method().decode("ascii")
    return request


def _session(how: str, number: int) -> bytes:
    """Answer a request for a session: one body that is both the SII's and OAuth 2.0's (RFC 6749 clause 5)."""
    if how == "html":
        return http(200, b"<html><body>Mantenimiento</body></html>", "text/html")
    if how == "refused":
        return http(401, orjson.dumps({"success": False, "error": "invalid_client"}), "application/json")
    token = {"token": f"t{number}", "success": True, "access_token": f"t{number}", "token_type": "Bearer"}
    return http(200, orjson.dumps({**token, "expires_in": 3600}), "application/json")
