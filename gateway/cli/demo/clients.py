"""The client systems of the demonstration: their keys, their registration, and calls in their name."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import tenacity
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey

from gateway import evidence
from gateway.cli.context import Context
from gateway.cli.token import request_token
from gateway.clock import utc_now
from gateway.identity import service
from gateway.identity.assertions import operator_assertion
from gateway.identity.keys import read_public_key
from gateway.identity.models import Issuer
from gateway.vault import write_secret
from schemas.ids import uuid7

# Client id → institution and scopes. Each institution's system has its own key, as in production.
CLIENTS: dict[str, tuple[str, frozenset[str]]] = {
    "demo-utgs": ("UTGS", frozenset({"producers.read", "referrals.create", "referrals.read", "status.read"})),
    "demo-mds": ("MDS", frozenset({"disclosures.create"})),
    "demo-mtess": ("MTESS", frozenset({"disclosures.create"})),
    "demo-snpp": ("SNPP", frozenset({"disclosures.create"})),
    "demo-mec": ("MEC", frozenset({"disclosures.create"})),
    "demo-mspbs": ("MSPBS", frozenset({"referrals.reply"})),
    "demo-mspbs-aps": ("MSPBS", frozenset({"referrals.create", "referrals.read"})),
    "demo-utgs-territorio": (
        "UTGS",
        frozenset({"forms.create", "guidance.use", "statistics.read", "delivery.manage"}),
    ),
    "demo-mds-tekopora": ("MDS", frozenset({"forms.create", "boards.manage", "reports.read"})),
    "demo-mspbs-usf": (
        "MSPBS",
        frozenset(
            {
                "forms.create",
                "links.manage",
                "referrals.create",
                "referrals.read",
                "referrals.reply",
                "reports.read",
            }
        ),
    ),
    "demo-minna": ("MINNA", frozenset({"reports.read"})),
}


def key_file(data_dir: Path, client_id: str) -> Path:
    """Return where a client's private key lies."""
    return data_dir / "demo" / "keys" / f"{client_id}.pem"


async def register(context: Context) -> None:
    """Make the keys and register the clients that the database does not have."""
    async with context.database.connection() as connection:
        known = {client.id for client in await service.list_clients(connection)}
    for client_id, (institution, scopes) in CLIENTS.items():
        path = key_file(context.settings.data_dir, client_id)
        if client_id in known and path.exists():
            continue
        public = _make_key(path)
        async with context.database.transaction() as connection:
            now = utc_now()
            detail = await service.add_client(
                connection,
                client_id=client_id,
                name=client_id,
                institution=institution,
                scopes=scopes,
                assurance=1,
                key=read_public_key(public),
                now=now,
            )
            entry = evidence.entry(
                "client.added",
                "done",
                at=now,
                policy_version="none",
                actor={"channel": "demonstration"},
                what=detail,
            )
            await context.audit.stage(connection, entry)


def _make_key(path: Path) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_secret(path, pem)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


_PATIENCE_S = 60.0
# Well before a token ends another one is asked for.
_TOKEN_KEPT_S = 240.0


class Operator(NamedTuple):
    """A person at a client's institution, vouched for by it, and the role in which they act."""

    user: str
    role: str


@dataclass(slots=True)
class Caller:
    """One client system calling the gateway over HTTP."""

    http: httpx.AsyncClient
    issuer: Issuer
    client_id: str
    private_key: bytes
    token: str = ""
    asked_at: float = 0.0

    async def bearer(self) -> str:
        """Return a token, asking for one first where there is none or it is some minutes old."""
        now = time.monotonic()
        if not self.token or (self.asked_at and now - self.asked_at > _TOKEN_KEPT_S):
            self.token = await request_token(self.http, self.issuer, self.client_id, self.private_key)
            self.asked_at = now
        return self.token

    async def post(
        self,
        path: str,
        body: dict[str, Any] | bytes,
        *,
        key: str | None = None,
        media_type: str = "application/json",
        operator: Operator | None = None,
    ) -> httpx.Response:
        """Call the gateway with a token, asking for one first; a gateway that is away is asked again.

        Repeating is harmless: what creates carries an idempotency key, or its own bytes are the key.
        """

        async def send() -> httpx.Response:
            headers = {**await self._headers(operator), "Content-Type": media_type}
            if key is not None:
                headers["Idempotency-Key"] = key
            if isinstance(body, bytes):
                return await self.http.post(self.issuer.url + path, content=body, headers=headers)
            return await self.http.post(self.issuer.url + path, json=body, headers=headers)

        return await patiently(send)

    async def done(self, path: str, body: dict[str, Any], *, operator: Operator | None = None) -> dict[str, Any]:
        """Post with a key of its own and return the answer; raises httpx.HTTPStatusError where it was refused."""
        answer = await self.post(path, body, key=str(uuid7()), operator=operator)
        answer.raise_for_status()
        return dict(answer.json())

    async def read(self, path: str, *, operator: Operator | None = None) -> dict[str, Any]:
        """Get and return the answer; raises as :meth:`done`."""

        async def send() -> httpx.Response:
            return await self.http.get(self.issuer.url + path, headers=await self._headers(operator))

        answer = await patiently(send)
        answer.raise_for_status()
        return dict(answer.json())

    async def _headers(self, operator: Operator | None) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {await self.bearer()}"}
        if operator is not None:
            headers["X-SIIS-Operator"] = operator_assertion(
                ECKey.import_key(self.private_key),
                client_id=self.client_id,
                issuer=self.issuer,
                operator=operator.user,
                roles=frozenset({operator.role}),
                acr="1",
                now=utc_now(),
            )
        return headers


async def patiently(send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Call somebody who may be away for a while, again until they answer; raises httpx.TransportError at last."""
    retry = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(httpx.TransportError),
        wait=tenacity.wait_fixed(0.3),
        stop=tenacity.stop_after_delay(_PATIENCE_S),
        reraise=True,
    )
    return await retry(send)


def callers(http: httpx.AsyncClient, issuer: Issuer, data_dir: Path) -> dict[str, Caller]:
    """Return every client system, ready to call."""
    return {
        client_id: Caller(http, issuer, client_id, key_file(data_dir, client_id).read_bytes()) for client_id in CLIENTS
    }
