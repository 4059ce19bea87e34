"""What the tests of the adapters share: permits, a referral, one connected manifest, and servers that behave badly."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from adapters.conformance.server import listening
from adapters.models import Adapter, Identifier, ReferralMessage
from adapters.registry import load_adapters
from schemas.ids import uuid7
from schemas.permit import Permit, issue

MANIFESTS = Path(__file__).resolve().parent.parent / "adapters" / "manifests"
REFERRAL = UUID("019a2b3c-4d5e-7f60-8a1b-2c3d4e5f6071")
CEDULA = Identifier("cedula", "4123456")
SERVICES = {"mds": "tekopora", "mspbs": "vaccination", "minna": "abrazo"}
RESET = struct.pack("ii", 1, 0)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def permit(action: str, holder: str, dataset: str) -> Permit:
    """A permit as the decision would issue it."""
    return issue(
        decision_id=uuid7(),
        action=action,
        requester="UTGS",
        holder=holder,
        dataset=dataset,
        subject=None,
        released=frozenset(),
        purpose="service-provision",
        issued_at=datetime.now(UTC),
    )


def referral(service: str, **changes: Any) -> ReferralMessage:
    """A referral of a girl with a name that most systems get wrong."""
    message: dict[str, Any] = {
        "referral_id": REFERRAL,
        "service": service,
        "requester": "UTGS",
        "recipient": "MDS",
        "identifiers": (Identifier("urn:passport", "X1"), CEDULA),
        "given_names": "Ñasaindy",
        "surnames": "Agüero Yvyra'i",
        "birth_date": date(2015, 5, 1),
        "sex": "F",
        "department": "11",
        "district": "1116",
        "reason_code": "protection-gap",
        "reason_text": "Sin el servicio",
        "priority": "routine",
        "issued_at": datetime(2026, 11, 22, 10, 0, tzinfo=UTC),
        "due_on": date(2026, 12, 22),
    }
    return ReferralMessage(**{**message, **changes})


def connect(
    folder: Path,
    name: str,
    address: str,
    *,
    host_key: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    changes: dict[str, str] | None = None,
) -> Adapter:
    """Connect one shipped manifest, with pieces of its text changed, and pauses that no test need wait for."""
    manifests, secrets = folder / "manifests", folder / "secrets"
    manifests.mkdir(exist_ok=True)
    secrets.mkdir(exist_ok=True)
    if not (manifests / "wsdl").exists():
        (manifests / "wsdl").symlink_to(MANIFESTS / "wsdl")
    text = (MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8")
    for old, new in {"first_wait_s: 0.05": "first_wait_s: 0.001", "first_wait_s: 0.1": "first_wait_s: 0.001"}.items():
        text = text.replace(old, new)
    for old, new in (changes or {}).items():
        assert old in text, f"{name} does not say {old}"
        text = text.replace(old, new)
    (manifests / f"{name}.yaml").write_text(text, encoding="utf-8")
    for secret in ("identificaciones_password", "mds_password", "mspbs_api_key", "minna_password"):
        (secrets / secret).write_text("clave-ñ\n" if secret != "mspbs_api_key" else "clave\n", encoding="utf-8")
    entry = {"address": address} | ({"host_key": host_key} if host_key else {})
    (folder / "connections.yaml").write_text(json.dumps({name: entry}), encoding="utf-8")
    adapters = load_adapters([manifests], folder / "connections.yaml", secrets, transport=transport)
    return adapters.named(name)


async def fetch(adapter: Adapter, dataset: str = "identity", identifier: Identifier = CEDULA) -> Any:
    """Fetch with the permit for it."""
    return await adapter.fetch(permit("disclosure.fetch", adapter.institution, dataset), dataset, identifier)


async def send(adapter: Adapter, **changes: Any) -> Any:
    """Send a referral with the permit for it."""
    service = SERVICES[adapter.name]
    given = permit("referral.send", adapter.institution, f"service:{service}")
    return await adapter.send(given, referral(service, **changes))


async def poll(adapter: Adapter, cursor: str | None = None) -> Any:
    """Poll with the permit for it."""
    return await adapter.poll(permit("reply.poll", adapter.institution, "replies"), cursor)


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    """Serve raw connections on loopback; gives the address. What a handler still does at the end is cancelled."""
    async with listening(handler) as port:
        yield f"http://127.0.0.1:{port}"


async def read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    """Read one HTTP request: method, path, headers in lower case, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _version = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return method, path, headers, await reader.readexactly(int(headers.get("content-length", "0")))


def http(status: int, body: bytes, media: str = "application/json", **headers: str) -> bytes:
    """Write an HTTP answer that ends its connection."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}"
    return f"{head}\r\n".encode() + body


def answering(*answers: bytes) -> Handler:
    """Answer the requests with these bytes in turn, the last one for ever."""
    left = list(answers)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()

    return handler


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the request and cut the connection with RST."""
    await read_request(reader)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def hanging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the request and never answer."""
    await read_request(reader)
    await reader.read()


def closed_address() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
