"""The one way out over HTTP: decides how a request leaves, how much of an answer is read, and what a failure means.

Redirects are never followed, certificates are always checked, cookies are never kept, compression is never accepted.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from pyreqwest.client import ClientBuilder
from pyreqwest.compatibility.httpx import HttpxTransport
from pyreqwest.exceptions import BodyDecodeError, DetailedPyreqwestError, PyreqwestError, ReadError

from adapters.errors import CallFailed, ContractBroken
from adapters.models import RECEIPT_HEADER, EntryReceipt

Headers = Sequence[tuple[str, str]]

#: Sent with every request; a compressed answer could be a thousand times larger than what is counted.
COMMON_HEADERS: Headers = (("User-Agent", "siis-gateway"), ("Accept-Encoding", "identity"))


# What a server says in the handshake of one whose certificate it does not take (RFC 8446 clause 6.2); in TLS 1.3 it
# reaches us when the request is on its way already, and unread.
_REFUSES_US = re.compile(
    r"received fatal alert: (?:\w*Certificate\w*|UnknownCA|AccessDenied|DecryptError|HandshakeFailure)"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, headers, and the whole body."""

    status: int
    headers: httpx.Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Tls:
    """What TLS needs beside the system's authorities, in PEM: our certificate with its key, and further authorities."""

    certificate: str = field(default="", repr=False)
    ca: str = ""


class _Client(httpx.AsyncClient):
    """Hands a request straight to its transport: no redirects, no sign-in, and no cookies.

    A shared client must not carry what one person's answer set into another's request; and looking for cookies and
    redirects costs more than the call itself (docs/performance.md).
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        # ask() gives each request its own time.
        super().__init__(transport=transport, timeout=None, trust_env=False)

    async def send(self, request: httpx.Request, *, stream: bool = False, **_ignored: Any) -> httpx.Response:
        """Send a request; the answer is read at once unless it is to be streamed."""
        # Asked of the client's own method, because that is where respx steps in.
        try:
            response = await self._transport_for_url(request.url).handle_async_request(request)
        except ValueError:
            # The transport lets this out for a header with a byte that is not ASCII.
            raise httpx.RemoteProtocolError("a header is not text", request=request) from None
        response.request = request
        if not stream:
            await response.aread()
        return response


def open_client(
    connect_s: float, transport: httpx.AsyncBaseTransport | None = None, tls: Tls | None = None
) -> httpx.AsyncClient:
    """Make the client of one producer. ``connect_s`` bounds a connection's opening; tests hand in a transport.

    Time and size are given to :func:`ask` for each request.
    """
    return _Client(transport or _transport(connect_s, tls or Tls()))


def _transport(connect_s: float, tls: Tls, pinned: tuple[str, str, int] | None = None) -> HttpxTransport:
    builder = ClientBuilder().connect_timeout(timedelta(seconds=connect_s)).follow_redirects(False).referer(False)
    builder = builder.no_proxy().gzip(False).brotli(False).zstd(False).deflate(False)
    if tls.certificate:
        builder = builder.identity_pem(tls.certificate.encode())
    if tls.ca:
        builder = builder.add_root_certificate_pem(tls.ca.encode())
    if pinned is not None:
        builder = builder.resolve(*pinned)
    return HttpxTransport(builder.build())


def receipt_headers(receipt: EntryReceipt | None) -> Headers:
    """Return the header by which a producer gets the receipt of our log's entry about a call."""
    return () if receipt is None else ((RECEIPT_HEADER, str(receipt)),)


@asynccontextmanager
async def client_for(
    connect_s: float, *, pinned: tuple[str, str, int] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Make a client and close it at the end of the block.

    ``pinned``: a host name with the address and port it was found at and checked; it is not looked up again.
    """
    client = open_client(connect_s, None if pinned is None else _transport(connect_s, Tls(), pinned))
    try:
        yield client
    finally:
        await close_client(client)


async def close_client(client: httpx.AsyncClient) -> None:
    """Close a client, and wait a moment for the transport's thread to come to rest.

    It may still be handing over its last result; an interpreter that ends in this moment aborts the process.
    """
    await client.aclose()
    await asyncio.sleep(0.02)


async def ask(client: httpx.AsyncClient, request: httpx.Request, *, within_s: float, max_body: int) -> Answer:
    """Send a request and read its answer.

    ``within_s`` is given to the transport as well as by the caller's own clock: cancelling alone leaves its socket
    open for as long as the producer likes. Raises CallFailed (``acted`` false only where no connection was made) or
    ContractBroken (no HTTP, compressed, longer than ``max_body`` bytes).
    """
    request.extensions["timeout"] = {"read": max(within_s, 0.001)}
    try:
        response = await client.send(request, stream=True)
    except (httpx.RequestError, PyreqwestError) as error:
        raise _failure(error, in_body=False) from None
    try:
        return Answer(response.status_code, response.headers, await _read(response, max_body))
    except (httpx.RequestError, PyreqwestError) as error:
        raise _failure(error, in_body=True) from None
    finally:
        await response.aclose()


async def _read(response: httpx.Response, max_body: int) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise ContractBroken("the answer is compressed")
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_body:
        raise ContractBroken(f"the answer is longer than {max_body} bytes")
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > max_body:
            raise ContractBroken(f"the answer is longer than {max_body} bytes")
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _failure(error: httpx.RequestError | PyreqwestError, *, in_body: bool) -> CallFailed | ContractBroken:
    cause = error.__cause__ if isinstance(error, httpx.RequestError) else error
    timed_out = isinstance(error, httpx.TimeoutException | TimeoutError)
    # The first part of the body is read along with the head, so its end may show in either place.
    if in_body or isinstance(cause, BodyDecodeError | ReadError):
        return CallFailed("timeout" if timed_out else "answer cut short")
    if isinstance(error, httpx.DecodingError | httpx.RemoteProtocolError):
        return ContractBroken("the answer is not HTTP")
    if isinstance(cause, PyreqwestError):
        causes = cause.details["causes"] if isinstance(cause, DetailedPyreqwestError) else None
        told = " ".join(item["message"] for item in (causes or ())[1:])  # the first one is the address
        # The transport calls a reset after the request a ConnectError too, and a timeout while waiting for the answer
        # a ConnectTimeout; only this text tells whether a connection was ever made. Without it: it may have been.
        if _REFUSES_US.search(told):
            return CallFailed("handshake refused", acted=False, again=False)
        if "client error (Connect)" in told and "certificate" in told:
            return CallFailed("certificate refused", acted=False, again=False)
        if "client error (Connect)" in told:
            return CallFailed("connection failed", acted=False)
    elif isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return CallFailed("connection failed", acted=False)
    return CallFailed("timeout" if timed_out else "connection lost")


def status_error(answer: Answer) -> CallFailed | ContractBroken | None:
    """Say what a status means that no rule of the manifest deals with; ``None`` for a success.

    401 and 403 mean our own credentials, so they are never taken for an answer about a person; 404 and other 4xx that
    the contract does not list are a broken contract, since a wrong path would look like a person unknown.
    """
    status = answer.status
    if 200 <= status < 300:
        return None
    if status in (401, 403):
        return CallFailed(f"http {status}: credentials refused", acted=False, again=False)
    if status in (408, 425, 429):
        return CallFailed(f"http {status}", acted=False, retry_after_s=_retry_after(answer))
    if status >= 500:
        return CallFailed(f"http {status}", retry_after_s=_retry_after(answer))
    if 300 <= status < 400:
        return ContractBroken(f"http {status}: redirects are not followed", acted=False)
    return ContractBroken(f"http {status} is not in the contract", acted=status < 400)


def _retry_after(answer: Answer) -> float | None:
    """Read Retry-After in its form of seconds (RFC 9110 clause 10.2.3)."""
    try:
        seconds = float(answer.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
