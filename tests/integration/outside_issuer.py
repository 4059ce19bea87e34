"""A little outside issuer on a socket of this machine: publishes keys and signs tokens as Keycloak does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
from integration.identity_database import Clock, Deployment
from integration.identity_database import register as register_client
from joserfc import jws, jwt
from joserfc.jwk import ECKey, RSAKey

from gateway.database import Database
from gateway.identity import issuers
from gateway.identity.errors import TokenError
from gateway.identity.foreign import ForeignTokens
from gateway.identity.issuers import Registration

AUDIENCE = "https://siis.example.gov.py/api"
Key = RSAKey | ECKey


@dataclass
class OutsideIssuer:
    """The issuer of one test; what it publishes and how it answers may be changed at any time."""

    address: str
    keys: dict[str, Key] = field(default_factory=dict)
    body: bytes | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    #: How often it was asked, and what it waits for before it answers.
    asked: int = 0
    stalls: threading.Event | None = None

    @property
    def url(self) -> str:
        """Its name in tokens."""
        return f"{self.address}/realms/mds"

    def jwks(self) -> bytes:
        """What it answers when asked for its keys."""
        if self.body is not None:
            return self.body
        algorithms = {RSAKey: "RS256", ECKey: "ES256"}
        return orjson.dumps(
            {
                "keys": [
                    {**key.as_dict(private=False), "kid": kid, "use": "sig", "alg": algorithms[type(key)]}
                    for kid, key in self.keys.items()
                ]
            }
        )

    def claims(self, now: datetime, **changes: Any) -> dict[str, Any]:
        """What its tokens say; a change to None leaves a claim out."""
        at = int(now.timestamp())
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": ["account", AUDIENCE],
            "sub": "8d1c4f0e-funcionaria",
            "azp": "portal-social",
            "typ": "Bearer",
            "jti": "onrtac:51f1",
            "iat": at,
            "exp": at + 300,
            "auth_time": at - 120,
            "acr": "2",
            "scope": "openid profile disclosures.create audit.read",
            "realm_access": {"roles": ["default-roles-mds", "offline_access", "siis-operadora", "administrator"]},
            "preferred_username": "must not matter",
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def sign(
        self, now: datetime, *, key: Key | None = None, header: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        """Sign a token with its newest key, or with another one under that one's name."""
        kid, newest = list(self.keys.items())[-1]
        head = {"alg": "ES256" if isinstance(key or newest, ECKey) else "RS256", "typ": "JWT", "kid": kid}
        head = {name: value for name, value in (head | (header or {})).items() if value is not None}
        registry = jws.JWSRegistry(algorithms=[head["alg"]], strict_check_header=False)
        return jwt.encode(head, self.claims(now, **changes), key or newest, registry=registry, default_type=None)


@contextmanager
def serve() -> Iterator[OutsideIssuer]:
    """Run an issuer with one RSA key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            if issuer.stalls is not None:
                issuer.stalls.wait(30)
            body = issuer.jwks() if self.path == "/keys" else b"{}"
            # Whoever asked may have given up by now.
            with suppress(ConnectionError):
                self.send_response(issuer.status)
                for name, value in {"Content-Length": str(len(body)), **issuer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = OutsideIssuer(f"http://127.0.0.1:{server.server_port}")
    issuer.keys["uno"] = RSAKey.generate_key(2048)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def document(issuer: OutsideIssuer, **changes: Any) -> dict[str, Any]:
    """What an operator writes to register it for the staff of an institution; a change to None leaves a field out."""
    fields: dict[str, Any] = {
        "issuer": issuer.url,
        "name": "Ingreso único del MDS",
        "institution": "MDS",
        "jwks_uri": f"{issuer.address}/keys",
        "audiences": [AUDIENCE],
        "algorithms": ["RS256", "PS256", "ES256"],
        "types": ["JWT", "at+jwt"],
        "scopes": ["disclosures.create", "status.read"],
        "claims": {
            "clients": {"claim": "azp", "names": {"portal-social": "mds-sistema"}},
            "roles": {"claim": "realm_access.roles", "names": {"siis-operadora": "operator"}},
            "scopes": "scope",
            "acr": {"2": 2, "3": 3},
        },
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def citizens(issuer: OutsideIssuer) -> dict[str, Any]:
    """The same for an issuer that vouches for citizens."""
    claims = {"person": {"claim": "documento.numero", "system": "cedula"}, "acr": {"2": 2}}
    return document(issuer, institution=None, scopes=["rights.manage"], claims=claims)


@dataclass
class Ticks:
    """A monotonic clock that tests move."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class House:
    """An outside issuer, and one process of ours that believes it."""

    issuer: OutsideIssuer
    foreign: ForeignTokens
    database: Database
    clock: Clock
    ticks: Ticks

    def token(self, **more: Any) -> str:
        """A token of the issuer."""
        return self.issuer.sign(self.clock(), **more)

    def believes(self, token: str) -> bool:
        """Say whether a token is believed at present."""
        try:
            self.foreign.check(token)
        except TokenError:
            return False
        return True

    async def read_again(self, answers: int = 1) -> None:
        """Wait until the issuer has been asked for its keys, after something woke the process."""
        before = self.issuer.asked
        await self.foreign.load()
        await until(lambda: self.issuer.asked >= before + answers)


@asynccontextmanager
async def house(
    deployment: Deployment,
    describe: Callable[[OutsideIssuer], dict[str, Any]] = document,
    *,
    probe: dict[str, Any] | None = None,
    register_the_client: bool = True,
) -> AsyncIterator[House]:
    """Run an issuer, register it with its client system, and wait until its keys are known.

    ``probe`` is what a token must say beside the usual to be believed.
    """
    if register_the_client:
        await register_client(deployment)
    stop, ticks = asyncio.Event(), Ticks()
    with serve() as issuer:
        foreign = ForeignTokens(deployment.database, now=deployment.clock, monotonic=ticks)
        running = House(issuer, foreign, deployment.database, deployment.clock, ticks)
        await register(deployment.database, describe(issuer), deployment.clock())
        await foreign.load()
        task = asyncio.create_task(foreign.run(stop))
        token = issuer.sign(deployment.clock(), documento={"numero": "1234567"}, **(probe or {}))
        try:
            await until(lambda: running.believes(token))
            yield running
        finally:
            stop.set()
            await task


async def register(database: Database, fields: dict[str, Any], now: datetime) -> None:
    """Put a registration into the database."""
    async with database.transaction() as connection:
        await issuers.add_issuer(connection, Registration.model_validate(fields), own="https://siis", now=now)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something came to pass in another task."""
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - the condition is the issuer's, which knows no event
            await asyncio.sleep(0.01)
