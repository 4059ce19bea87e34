"""Keys of outside issuers: read from where the registration says, never from where a token says, and kept a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import prometheus_client
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.util import urlsafe_b64decode

from adapters.errors import CallFailed, ContractBroken
from adapters.http import COMMON_HEADERS, ask, client_for
from gateway.identity.errors import TokenError
from gateway.identity.issuers import OutsideIssuer

MAX_AGE_SECONDS = 600.0
# Against tokens with invented key ids, and for issuers that do not answer.
RETRY_SECONDS = 30.0
# Keys that could not be read again for so long are believed no more.
KEEP_SECONDS = 24 * 3600.0
CONNECT_SECONDS, FETCH_SECONDS = 3.0, 5.0
MAX_BYTES = 256 * 1024
MAX_KEYS = 100
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
_FAMILY = {"ES256": "EC", "RS256": "RSA", "PS256": "RSA"}

_log = structlog.get_logger(__name__)
_fetched = prometheus_client.Counter(
    "siis_outside_issuer_keys_total", "Readings of the keys of outside issuers", ["issuer", "outcome"]
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of an outside issuer; ``algorithm`` where the issuer meant it for one only."""

    kid: str | None
    family: str
    algorithm: str | None
    key: ECKey | RSAKey


@dataclass(slots=True)
class _Known:
    """What is known of one issuer's keys; instants of the monotonic clock."""

    keys: tuple[PublicKey, ...] = ()
    read_at: float = field(default=float("-inf"))
    tried_at: float = field(default=float("-inf"))
    wanted: bool = True

    def due_at(self) -> float:
        if self.wanted or self.tried_at > self.read_at:
            return self.tried_at + RETRY_SECONDS
        return self.read_at + MAX_AGE_SECONDS


class IssuerKeys:
    """The keys of every outside issuer, in memory; used in the event loop only."""

    def __init__(
        self,
        in_force: Callable[[], list[OutsideIssuer]],
        *,
        changed: asyncio.Event,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``in_force`` names the issuers to know; ``changed`` is set when that may have changed."""
        self._in_force, self._changed, self._monotonic = in_force, changed, monotonic
        self._known: dict[str, _Known] = {}

    def find(self, issuer: OutsideIssuer, kid: str | None, algorithm: str) -> list[PublicKey]:
        """Return the keys that may have signed with ``algorithm``.

        Without a ``kid`` there must be a single key. An unknown one is refused, and has the keys read again soon.
        Raises :class:`TokenError` (``key``).
        """
        known = self._known.get(issuer.registration.jwks_uri)
        if known is None or self._monotonic() > known.read_at + KEEP_SECONDS:
            raise TokenError("key")
        fitting = [
            key
            for key in known.keys
            if key.family == _FAMILY[algorithm]
            and key.algorithm in (None, algorithm)
            and (kid == key.kid if kid is not None else len(known.keys) == 1)
        ]
        if not fitting:
            known.wanted = True
            self._changed.set()
            raise TokenError("key")
        return fitting

    async def run(self, stop: asyncio.Event) -> None:
        """Read the keys that are due, until ``stop``."""
        async with client_for(CONNECT_SECONDS) as client:
            while not stop.is_set():
                self._changed.clear()
                await self._read_due(client)
                pause = min((known.due_at() for known in self._known.values()), default=float("inf"))
                waiting = [asyncio.create_task(event.wait()) for event in (stop, self._changed)]
                # The registration of an issuer may end or begin while nothing else happens.
                await asyncio.wait(
                    waiting,
                    timeout=min(max(pause - self._monotonic(), 0.0), 60.0),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in waiting:
                    task.cancel()

    async def _read_due(self, client: httpx.AsyncClient) -> None:
        addresses = {issuer.registration.jwks_uri: issuer.registration.issuer for issuer in self._in_force()}
        self._known = {address: self._known.get(address, _Known()) for address in addresses}
        now = self._monotonic()
        due = [address for address, known in self._known.items() if known.due_at() <= now]
        await asyncio.gather(*(self._read(client, address, addresses[address]) for address in due))

    async def _read(self, client: httpx.AsyncClient, address: str, issuer: str) -> None:
        known = self._known[address]
        known.tried_at, known.wanted = self._monotonic(), False
        try:
            known.keys = read_keys(await _fetch(client, address))
        except (CallFailed, ContractBroken) as error:
            _fetched.labels(issuer, "failed").inc()
            _log.warning("outside_issuer_keys_not_read", issuer=issuer, reason=error.reason)
            return
        known.read_at = known.tried_at
        _fetched.labels(issuer, "read").inc()


async def _fetch(client: httpx.AsyncClient, address: str) -> bytes:
    request = client.build_request("GET", address, headers=[*COMMON_HEADERS, ("Accept", "application/json")])
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            answer = await ask(client, request, within_s=FETCH_SECONDS, max_body=MAX_BYTES)
    except TimeoutError:
        raise CallFailed("timeout") from None
    if answer.status != 200:
        raise ContractBroken(f"http {answer.status}")
    return answer.body


def read_keys(body: bytes) -> tuple[PublicKey, ...]:
    """Read a JWK Set (RFC 7517 section 5), without the keys we have no use for: the section asks for that.

    Raises :class:`ContractBroken` for what is no such set.
    """
    try:
        keys = orjson.loads(body)["keys"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ContractBroken("not a JWK Set") from None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise ContractBroken("not a JWK Set")
    return tuple(_usable(keys))


def _usable(keys: Iterable[Any]) -> Iterable[PublicKey]:
    for jwk in keys:
        if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
            continue
        kid, algorithm, operations = jwk.get("kid"), jwk.get("alg"), jwk.get("key_ops", ["verify"])
        if not isinstance(operations, list) or "verify" not in operations:
            continue
        if not isinstance(kid, str | None) or not isinstance(algorithm, str | None):
            continue
        key = _import(jwk)
        if key is not None:
            yield PublicKey(kid, str(jwk["kty"]), algorithm, key)


def _import(jwk: dict[str, Any]) -> ECKey | RSAKey | None:
    # Public members only: whatever else the issuer says of a key, it cannot make it another one (RFC 8725 section 3.1).
    try:
        if jwk.get("kty") == "EC" and jwk.get("crv") == "P-256":
            return ECKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y")})
        if jwk.get("kty") == "RSA" and MIN_RSA_BITS <= _bits(jwk["n"]) <= MAX_RSA_BITS and _bits(jwk["e"]) <= 32:
            return RSAKey.import_key({name: jwk[name] for name in ("kty", "n", "e")})
    except (JoseError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None


def _bits(number: str) -> int:
    return int.from_bytes(urlsafe_b64decode(number.encode()), "big").bit_length()
