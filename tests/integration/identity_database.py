"""A small deployment of identity on a database of its own, with a clock that tests move."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import FastAPI, Request, Response
from joserfc import jwt
from joserfc.jwk import ECKey
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from gateway.api.oauth import bearer_challenge, build_router
from gateway.api.proofs import settle_proofs
from gateway.api.request import Door
from gateway.database import Database
from gateway.identity import service
from gateway.identity.assertions import client_assertion
from gateway.identity.authentication import ASSERTION_TYPE
from gateway.identity.directory import ClientDirectory
from gateway.identity.errors import ScopeError, TokenError
from gateway.identity.foreign import ForeignTokens
from gateway.identity.keys import KeyRing, load_ring, read_public_key
from gateway.identity.limits import ClientLimits
from gateway.identity.models import Client, ClientKey, Issuer
from gateway.identity.oauth import TokenServer
from gateway.identity.peer import Proxies, read_network
from gateway.identity.tokens import TokenChecker

ISSUER = Issuer("https://siis.example.gov.py")
SCOPES = frozenset({"disclosures.create", "referrals.create"})
# Where the proxy that the deployment trusts stands, where its callers do, and a resource for them to ask.
PROXY, OUTSIDE = "10.9.0.1", "203.0.113.7"
RESOURCE = "/api/v1/whoami"


@dataclass
class Clock:
    """A clock that stands still until a test moves it."""

    instant: datetime = field(default_factory=lambda: datetime(2026, 3, 2, 12, 0, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.instant

    def advance(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)


class WatchedDirectory(ClientDirectory):
    """A directory that says when it has read everything again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loaded = asyncio.Event()

    async def load(self) -> None:
        await super().load()
        self.loaded.set()


@dataclass
class Deployment:
    """One process of the gateway, as far as identity goes."""

    database: Database
    clock: Clock
    ring: KeyRing
    directory: WatchedDirectory
    server: TokenServer
    checker: TokenChecker
    http: httpx.AsyncClient
    proxied: httpx.AsyncClient
    refusals: list[TokenError]
    limits: ClientLimits
    foreign: ForeignTokens

    async def post(self, path: str, form: dict[str, str], **headers: str) -> httpx.Response:
        return await self.http.post(path, data=form, headers=headers)

    async def behind_proxy(
        self, path: str, form: dict[str, str], certificate: bytes | None = None, **headers: str
    ) -> httpx.Response:
        """Post as the proxy passes it on, with the certificate (DER) that the caller showed it."""
        return await self.proxied.post(path, data=form, headers=forwarded(certificate) | headers)

    async def use(
        self, authorization: str, *, proofs: tuple[str, ...] = (), certificate: bytes | None = None
    ) -> httpx.Response:
        """Ask the resource, through the proxy, with a token and what goes with it."""
        headers = [("Authorization", authorization), *(("DPoP", proof) for proof in proofs)]
        return await self.proxied.get(RESOURCE, headers=[*headers, *forwarded(certificate).items()])

    async def ask(self, assertion: str, **more: str) -> httpx.Response:
        """Ask for a token with an assertion."""
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
        }
        return await self.post("/oauth2/token", form | more)

    async def token(self, client: Registered, **more: str) -> str:
        """Get an access token and return it as an ``Authorization`` header."""
        answer = await self.ask(
            client_assertion(client.key, client_id=client.id, issuer=ISSUER, now=self.clock()), **more
        )
        assert answer.status_code == 200, answer.text
        return "Bearer " + answer.json()["access_token"]


@dataclass
class Registered:
    """A client of a test and the private key it holds."""

    id: str
    key: ECKey

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """Sign any claims with any header."""
        return jwt.encode({"alg": "ES256", "kid": self.key.thumbprint(), **header}, claims, self.key)


@asynccontextmanager
async def deploy(database: Database, clock: Clock, keys_dir: Path) -> AsyncIterator[Deployment]:
    """Run one process; several may share a database, a clock and keys."""
    ring = load_ring(keys_dir, create=True)
    directory = WatchedDirectory(database, now=clock)
    await directory.load()
    limits = ClientLimits(request_rate=1000.0, registered=lambda client_id: directory.find(client_id) is not None)
    foreign = ForeignTokens(database, now=clock)
    await foreign.load()
    server = TokenServer(issuer=ISSUER, ring=ring, directory=directory, database=database, now=clock, limits=limits)
    checker = TokenChecker(ring=ring, issuer=ISSUER, directory=directory, now=clock, foreign=foreign)
    refusals: list[TokenError] = []
    proxies = Proxies((read_network("10.9.0.0/24"),))
    door = Door(checker, 1024, ISSUER, proxies, limits)

    async def remember(refusal: TokenError) -> None:
        refusals.append(refusal)

    app = FastAPI()
    app.include_router(build_router(server, on_refusal=remember, proxies=proxies))

    @app.api_route(RESOURCE, methods=["GET", "POST"])
    async def whoami(request: Request) -> dict[str, Any]:
        caller = door.caller(request, "referrals.create")
        return {"client": caller.client_id, "pilot": caller.pilot}

    @app.exception_handler(TokenError)
    async def refused(_request: Request, error: TokenError) -> Response:
        refusals.append(error)
        status = 403 if isinstance(error, ScopeError) else 401
        return Response(status_code=status, headers={"WWW-Authenticate": bearer_challenge(error)})

    whole = settle_proofs(app, door)
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(whole, client=(OUTSIDE, 1)), base_url=ISSUER.url) as http,
        httpx.AsyncClient(transport=httpx.ASGITransport(whole, client=(PROXY, 1)), base_url=ISSUER.url) as proxied,
    ):
        yield Deployment(database, clock, ring, directory, server, checker, http, proxied, refusals, limits, foreign)


def forwarded(certificate: bytes | None, address: str = OUTSIDE) -> dict[str, str]:
    """Return the headers that our proxy adds: the caller's address, and its certificate (RFC 9440) if it showed one."""
    headers = {"X-Forwarded-For": address}
    return headers if certificate is None else headers | {"Client-Cert": f":{b64encode(certificate).decode()}:"}


def new_certificate(name: str = "Sistema de prueba", *, start: datetime, days: int = 30) -> bytes:
    """Make a certificate for the TLS of a client, its own authority, valid from ``start``; DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=days))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def new_key(curve: str = "P-256") -> ECKey:
    """Make a private key."""
    return ECKey.generate_key(curve, private=True)


def public_key(key: ECKey) -> ClientKey:
    """Return the public part as it is registered from PEM."""
    return read_public_key(key.as_pem(private=False))


def private_pem(key: ECKey) -> bytes:
    """Return the private part as PEM, PKCS #8."""
    assert key.private_key is not None
    return key.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


async def register(deployment: Deployment, client_id: str = "mds-sistema", **more: Any) -> Registered:
    """Add a client to the database and let the deployment read it."""
    key = new_key()
    values: dict[str, Any] = {
        "name": "Sistema de prueba",
        "institution": "MDS",
        "scopes": SCOPES,
        "assurance": 2,
        "key": public_key(key),
        "now": deployment.clock(),
    }
    async with deployment.database.transaction() as connection:
        await service.add_client(connection, client_id=client_id, **(values | more))
    await deployment.directory.load()
    return Registered(client_id, key)


async def found(deployment: Deployment, client_id: str) -> Client:
    """Return a client as the database has it."""
    async with deployment.database.connection() as connection:
        return next(client for client in await service.list_clients(connection) if client.id == client_id)


def tampered(compact: str, **changes: Any) -> str:
    """Change claims of a signed token without signing again."""
    header, payload, signature = compact.split(".")
    claims = orjson.loads(_decode(payload)) | changes
    return ".".join((header, _encode(orjson.dumps(claims)), signature))


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """Put together a token that no library would sign."""
    return ".".join((_encode(orjson.dumps(header)), _encode(orjson.dumps(claims)), _encode(signature)))


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode()


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text.encode())
