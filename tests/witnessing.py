"""A log of a few leaves that can also lie, and witnesses on sockets of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.types import ASGIApp

from audit.checkpoint import Signer, sign_checkpoint
from audit.merkle import consistency_spans, root_of
from audit.verify import COSIGNATURE, format_key, leaf_hash
from audit.witness import Witness
from gateway.api.witness import create_witness
from gateway.database import Database
from gateway.witnesses.asking import request_body
from tests.integration.audit_database import AuditDatabase

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    at: datetime = NOON

    def __call__(self) -> datetime:
        return self.at


@dataclass(frozen=True)
class SmallLog:
    """A log whose leaves are numbers; another ``branch`` is another log under the same key and origin."""

    signer: Signer
    branch: str = "true"
    fork_at: int = 0

    @classmethod
    def new(cls, origin: str = "siis.example/log/2026") -> SmallLog:
        return cls(Signer(origin, Ed25519PrivateKey.generate()))

    @property
    def verifier_key(self) -> str:
        key = self.signer.verifier
        return format_key(key.name, key.kind, key.key)

    def leaves(self, size: int) -> list[bytes]:
        return [
            leaf_hash(f"{self.branch if index >= self.fork_at else 'true'}/{index}".encode()) for index in range(size)
        ]

    def note(self, size: int) -> str:
        return sign_checkpoint(self.signer, size, root_of(self.leaves(size)))

    def proof(self, old: int, size: int) -> list[bytes]:
        if not 0 < old < size:
            return []
        leaves = self.leaves(size)
        return [root_of(leaves[start:end]) for start, end in consistency_spans(old, size)]

    def request(self, old: int, size: int) -> bytes:
        return request_body(old, self.proof(old, size), self.note(size))


def a_witness(name: str = "witness.example/w1") -> Witness:
    """Make a witness with a key of its own."""
    return Witness(name, Ed25519PrivateKey.generate())


def vkey_of(witness: Witness) -> str:
    """Return the verifier key of a witness."""
    return format_key(witness.name, COSIGNATURE, witness.verifier.key)


def database_of(made: AuditDatabase) -> Database:
    """Open a database of the log's tests as the gateway does."""
    return Database(made.app_url.set(drivername="postgresql").render_as_string(hide_password=False))


class _Server(uvicorn.Server):
    """A server beside the test's own work: it says when it listens, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an application on a socket of this machine; yields its address."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, lifespan="off", log_level="critical", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve())
    await server.listening.wait()
    [bound] = server.servers[0].sockets
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def witness_server(made: AuditDatabase, witness: Witness, now: Callable[[], datetime]) -> AsyncIterator[str]:
    """Run a witness over a database; yields its address."""
    database = database_of(made)
    try:
        async with serving(create_witness(database, witness, now)) as address:
            yield address
    finally:
        await database.close()
