"""The HTTP side of every institution: one ASGI application that misbehaves as its switches say, and their control API.

The control API listens on a port of its own, so that a switch can always be turned back.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from adapters.simulator.switches import Switches

MAX_BODY = 4 * 1024 * 1024
JSON, XML, HTML = "application/json", "text/xml; charset=utf-8", "text/html; charset=utf-8"
_LINGER_ZERO = struct.pack("ii", 1, 0)
_BUSY_PAGE = b"<html><head><title>503</title></head><body><h1>Servicio no disponible</h1></body></html>"
_LOGIN_PAGE = "<!DOCTYPE html><html><body><h1>Sistema en mantenimiento. Vuelva mañana.</h1></body></html>".encode()
_CUT_SHORT = {
    JSON: b'{"numero": "2025-0000',
    XML: b'<S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"><S:Body><ns2:resp',
}
_NOISE = b"\x00\xff\xfe\x15\x80 no es un mensaje \xc3\x28"

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """What an institution needs of an HTTP request."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes

    def json(self) -> dict[str, Any] | None:
        """Return the body as a JSON object, ``None`` if it is not one."""
        try:
            parsed = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None
        return parsed if isinstance(parsed, dict) else None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; ``effect`` says whether the request changed or disclosed something at the institution."""

    status: int
    body: bytes
    media: str = JSON
    effect: bool = True
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())


def json_reply(status: int, content: object, *, effect: bool = True) -> Reply:
    """Answer a JSON document."""
    return Reply(status, orjson.dumps(content), effect=effect)


class Institution(Protocol):
    """A simulated institution, whatever it speaks."""

    name: str
    scheme: str
    media: str
    switches: Switches
    requests: int
    receipts: deque[str]

    async def handle(self, request: Request) -> Reply:
        """Answer a request that came by HTTP."""
        ...

    async def control(self, request: Request) -> Reply:
        """Answer a request to the control API that not every institution has."""
        ...

    def keep(self, receipt: str) -> None:
        """Keep the receipt that came with a message, where one did."""
        ...

    def ledger(self) -> dict[str, Any]:
        """Return what the institution took and answered, for the ledger of the control API."""
        ...

    async def start(self, sock: socket.socket) -> dict[str, str]:
        """Start what runs beside HTTP; return what the ready line has to add."""
        ...

    async def stop(self) -> None:
        """End what :meth:`start` started, and close the files."""
        ...


def not_found() -> Reply:
    """Answer that there is nothing at this path."""
    return Reply(404, b"<html><body>404 Not Found</body></html>", HTML, effect=False)


class Application:
    """The ASGI application: the institution on its port, the control API on the other."""

    def __init__(self, institution: Institution, control_port: int) -> None:
        self._institution = institution
        self._control_port = control_port
        self._garbage = 0
        self.stopping = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = await _read(receive)
        if body is None:
            await _send(send, Reply(413, b"", effect=False))
            return
        path, method = scope["path"], scope["method"]
        request = Request(method, path, scope["query_string"], dict(scope["headers"]), body)
        if scope["server"][1] == self._control_port:
            await _send(send, await self._control(request))
        else:
            await self._serve(request, scope["siis.transport"], send)

    async def _serve(self, request: Request, transport: asyncio.Transport, send: Send) -> None:
        institution, switches = self._institution, self._institution.switches
        institution.requests += 1
        if switches["latency_ms"]:
            await self._be_slow(switches["latency_ms"] / 1000)
        if switches.take("fail_503"):
            await _send(send, Reply(503, _BUSY_PAGE, HTML))
        elif switches.take("reset"):
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4096\r\n\r\n<")
            await cut(transport)
        elif switches.take("garbage"):
            await _send(send, self._next_garbage())
        else:
            institution.keep(request.headers.get(b"x-siis-receipt", b"").decode("latin-1"))
            reply = await institution.handle(request)
            if reply.effect and switches.take("after_effect_reset"):
                await cut(transport)
            else:
                await _send(send, reply)

    async def _be_slow(self, seconds: float) -> None:
        """Wait, but not longer than the process is meant to live."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()

    def _next_garbage(self) -> Reply:
        """Answer with 200, in turn: a web page, a document cut in the middle, bytes that are no text."""
        media = self._institution.media
        forms = ((_LOGIN_PAGE, HTML), (_CUT_SHORT[media], media), (_NOISE, media))
        content, kind = forms[self._garbage % len(forms)]
        self._garbage += 1
        return Reply(200, content, kind)

    async def _control(self, request: Request) -> Reply:
        institution = self._institution
        match request.method, request.path:
            case "GET", "/_control/switches":
                return json_reply(200, institution.switches.snapshot())
            case "POST", "/_control/switches":
                values = request.json()
                try:
                    institution.switches.change({"body": None} if values is None else values)
                except ValueError as error:
                    return json_reply(400, {"error": f"not a switch, or not its kind of value: {error}"})
                return json_reply(200, institution.switches.snapshot())
            case "GET", "/_control/ledger":
                counted = {"requests": institution.requests, "receipts": list(institution.receipts)}
                return json_reply(200, {"received": {}, **institution.ledger(), **counted})
        return await institution.control(request)


class Connection(Protocol):
    """What can be cut: a TCP transport, or an SSH connection over one."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return a property of the connection, such as its ``socket``."""
        ...

    def abort(self) -> None:
        """Close without sending what is buffered."""
        ...


async def cut(connection: Connection) -> None:
    """Cut a TCP connection with RST instead of FIN, and let the protocol notice."""
    await asyncio.sleep(0)
    sock = connection.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    connection.abort()
    await asyncio.sleep(0)


async def _read(receive: Receive) -> bytes | None:
    """Return a request's body; ``None`` if it is longer than anything an institution takes."""
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BODY:
            return None
        more = message.get("more_body", False)
    return b"".join(chunks)


async def _send(send: Send, reply: Reply) -> None:
    headers = [
        (b"content-type", reply.media.encode()),
        (b"content-length", str(len(reply.body)).encode()),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
