"""Calls to addresses that institutions gave us: which may be called at all, and what of an answer is read.

An address is looked up once for a round of calls and those calls go to what was found and checked, whatever its name
says a moment later; redirects are not followed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import SOCK_STREAM
from urllib.parse import urlsplit

import httpx

from adapters.errors import CallFailed, ContractBroken
from adapters.http import ask, client_for

CONTENT_TYPE = "application/json"
WITHIN_S = 10.0
_CONNECT_S, _MAX_BODY = 5.0, 64 * 1024
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Reply:
    """What a called address answered; status 0: nothing, or nothing that is HTTP."""

    status: int
    body: bytes = b""

    @property
    def taken(self) -> bool:
        """Whether the call succeeded."""
        return 200 <= self.status < 300


#: Sends one body with headers of its own.
Post = Callable[[bytes, Mapping[str, str]], Awaitable[Reply]]


def may_be_called(url: str, *, local: bool) -> bool:
    """Say whether an address is https without user or fragment; ``local``: http to this machine will do, too."""
    try:
        httpx.URL(url)
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except (httpx.InvalidURL, ValueError):
        return False
    # A name in other letters than these is looked up under one spelling and called under another.
    if (
        not host
        or not url.isascii()
        or not url.isprintable()
        or " " in url
        or parts.username is not None
        or parts.password is not None
        or parts.fragment
    ):
        return False
    return parts.scheme == "https" or (local and parts.scheme == "http" and host in _LOOPBACK)


@asynccontextmanager
async def calling(url: str) -> AsyncIterator[Post]:
    """Open what sends to an address for a round of calls, each within :data:`WITHIN_S` seconds."""
    parts = urlsplit(url)
    address = await outside_address(url)
    pinned = None if address is None else (parts.hostname or "", address, parts.port or 443)
    if address is None and parts.scheme != "http":
        yield _nowhere
        return
    async with client_for(_CONNECT_S, pinned=pinned) as client:

        async def post(body: bytes, headers: Mapping[str, str]) -> Reply:
            request = client.build_request("POST", url, content=body, headers={"Content-Type": CONTENT_TYPE, **headers})
            try:
                answer = await ask(client, request, within_s=WITHIN_S, max_body=_MAX_BODY)
            except (CallFailed, ContractBroken):
                return Reply(0)
            return Reply(answer.status, answer.body)

        yield post


async def outside_address(url: str) -> str | None:
    """Look up an https address; ``None`` where any answer leads to this machine or its own network card, or nowhere.

    Plain http is for this machine alone (development), and not looked up. Institutions' private networks are where
    webhooks live.
    """
    parts = urlsplit(url)
    if parts.scheme == "http":
        return None
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port or 443, type=SOCK_STREAM)
    except OSError:
        return None
    addresses = [str(each[4][0]) for each in found]
    plain = [_plain(address) for address in addresses]
    inside = any(each.is_loopback or each.is_link_local or each.is_unspecified or each.is_multicast for each in plain)
    return None if inside or not addresses else addresses[0]


def _plain(address: str) -> IPv4Address | IPv6Address:
    read = ip_address(address.partition("%")[0])
    return getattr(read, "ipv4_mapped", None) or read


async def _nowhere(_body: bytes, _headers: Mapping[str, str]) -> Reply:
    return Reply(0)
