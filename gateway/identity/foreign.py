"""Tokens of outside issuers (Keycloak and the like): whether one is believed, and whom it speaks for in our words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError

from gateway.database import Database
from gateway.identity.errors import TokenError
from gateway.identity.issuer_keys import IssuerKeys
from gateway.identity.issuers import CITIZEN, Claims, IssuerDirectory, OutsideIssuer, Registration
from gateway.identity.jose import check_times, unverified
from gateway.identity.models import LOWEST_ASSURANCE, ForeignIdentity
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_cedula

LEEWAY_SECONDS = 60
# We learn of no revocation at an outside issuer, so its tokens must end by themselves.
MAX_LIFE_SECONDS = 24 * 3600
# Keycloak says in a claim what a token is for; its other kinds carry the same header.
_NOT_ACCESS = frozenset({"ID", "Refresh", "Offline", "Logout"})
_REGISTRIES = {
    name: jws.JWSRegistry(algorithms=[name], strict_check_header=False) for name in ("ES256", "RS256", "PS256")
}


class ForeignTokens:
    """Checks tokens of the outside issuers registered; used in the event loop only."""

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``now`` gives UTC instants, ``monotonic`` seconds."""
        self._now = now
        changed = asyncio.Event()
        self._issuers = IssuerDirectory(database, changed=changed, monotonic=monotonic)
        self._keys = IssuerKeys(lambda: self._issuers.in_force(now()), changed=changed, monotonic=monotonic)

    async def load(self) -> None:
        """Read the registrations now; their keys follow once :meth:`run` goes."""
        await self._issuers.load()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep up with registrations and keys until ``stop``."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._issuers.run(stop))
            group.create_task(self._keys.run(stop))

    def knows(self, issuer: str) -> bool:
        """Return whether tokens of this issuer are believed at present.

        Raises :class:`~gateway.identity.errors.DirectoryUnavailable` when too little is known to say.
        """
        found = self._issuers.find(issuer)
        return found is not None and found.in_force(self._now())

    def check(self, token: str) -> ForeignIdentity:
        """Return whom a token speaks for (RFC 8725 section 3, RFC 9068 section 4).

        A token that names a key not seen yet is refused, and the key looked up, so that the next attempt succeeds.
        A binding to a certificate or a key (``cnf``) is for the caller to check. Raises :class:`TokenError`
        (``issuer``, ``algorithm``, ``type``, ``key``, ``signature``, ``audience``, ``expired``, ``early``,
        ``too-long``, ``claims``, ``client-unknown``, ``malformed``) and
        :class:`~gateway.identity.errors.DirectoryUnavailable`.
        """
        header, claims = unverified(token)
        named = claims.get("iss")
        issuer = self._issuers.find(named) if isinstance(named, str) else None
        if issuer is None or not issuer.in_force(self._now()):
            raise TokenError("issuer")
        self._verify(token, header, issuer)
        client_id = _client(claims, issuer.registration.claims)
        try:
            return self._identity(token, claims, issuer.registration, client_id)
        except TokenError as error:
            raise TokenError(error.reason, client_id) from None

    def _verify(self, token: str, header: dict[str, Any], issuer: OutsideIssuer) -> None:
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in issuer.registration.algorithms:
            raise TokenError("algorithm")
        # We understand no critical extension; an unencoded payload (RFC 7797) is one.
        if "crit" in header or "b64" in header or not isinstance(kid, str | None):
            raise TokenError("malformed")
        kind = str(header.get("typ", "")).lower().removeprefix("application/")
        if kind not in issuer.registration.types:
            raise TokenError("type")
        for candidate in self._keys.find(issuer, kid, algorithm):
            try:
                jws.deserialize_compact(token, candidate.key, registry=_REGISTRIES[algorithm])
            except JoseError:
                continue
            return
        raise TokenError("signature")

    def _identity(
        self, token: str, claims: dict[str, Any], agreed: Registration, client_id: str | None
    ) -> ForeignIdentity:
        now = self._now()
        audiences = claims.get("aud")
        named = audiences if isinstance(audiences, list) else [audiences]
        if not any(isinstance(each, str) and each in agreed.audiences for each in named):
            raise TokenError("audience")
        expires = check_times(claims, now.timestamp(), leeway=LEEWAY_SECONDS)
        if expires > now.timestamp() + MAX_LIFE_SECONDS:
            raise TokenError("too-long")
        if claims.get("typ") in _NOT_ACCESS:
            raise TokenError("type")
        if agreed.claims.institution and _text(claims, agreed.claims.institution) != agreed.institution:
            raise TokenError("claims")
        person = agreed.claims.person
        token_id = claims.get("jti")
        return ForeignIdentity(
            issuer=agreed.issuer,
            client_id=client_id,
            institution=agreed.institution,
            subject=_text(claims, agreed.claims.subject),
            person_system=None if person is None else person.system,
            person_value=None if person is None else _identifier(person.system, _text(claims, person.claim)),
            roles=frozenset({CITIZEN}) if person else _roles(claims, agreed.claims),
            assurance=_assurance(claims, agreed.claims),
            scopes=_scopes(claims, agreed),
            auth_time=_auth_time(claims, now),
            token_id=str(token_id) if _is_text(token_id) else sha256(token.encode()).hexdigest(),
            expires_at=datetime.fromtimestamp(expires, UTC),
        )


def _client(claims: dict[str, Any], agreed: Claims) -> str | None:
    if agreed.clients is None:
        return None
    named = _at(claims, agreed.clients.claim)
    client_id = agreed.clients.names.get(named) if isinstance(named, str) else None
    if client_id is None:
        raise TokenError("client-unknown")
    return client_id


def _roles(claims: dict[str, Any], agreed: Claims) -> frozenset[str]:
    if agreed.roles is None:
        return frozenset()
    named = _at(claims, agreed.roles.claim, default=[])
    if not isinstance(named, list):
        raise TokenError("claims")
    known = agreed.roles.names
    return frozenset(known[role] for role in named if isinstance(role, str) and role in known)


def _scopes(claims: dict[str, Any], agreed: Registration) -> frozenset[str]:
    at_most = frozenset(agreed.scopes)
    if agreed.claims.scopes is None:
        return at_most
    named = _at(claims, agreed.claims.scopes, default="")
    # A text with spaces between (RFC 8693 section 4.2), or a list as some issuers write it.
    words = named.split() if isinstance(named, str) else named
    if not isinstance(words, list):
        raise TokenError("claims")
    return at_most & {word for word in words if isinstance(word, str)}


def _assurance(claims: dict[str, Any], agreed: Claims) -> int:
    # A word nobody agreed on proves nothing.
    acr = claims.get("acr")
    return agreed.acr.get(str(acr), LOWEST_ASSURANCE) if isinstance(acr, str | int) else LOWEST_ASSURANCE


def _auth_time(claims: dict[str, Any], now: datetime) -> datetime | None:
    at = claims.get("auth_time")
    if at is None:
        return None
    if type(at) not in (int, float) or not 0 <= at <= now.timestamp() + LEEWAY_SECONDS:
        raise TokenError("claims")
    return datetime.fromtimestamp(at, UTC)


def _identifier(system: str, value: str) -> str:
    if system != "cedula":
        return value
    try:
        return parse_cedula(value)
    except InvalidIdentifier:
        raise TokenError("claims") from None


def _text(claims: dict[str, Any], path: str) -> str:
    value = _at(claims, path)
    if not _is_text(value):
        raise TokenError("claims")
    return str(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 1 <= len(value) <= 255


def _at(claims: dict[str, Any], path: str, default: object = None) -> Any:
    # The name itself first: some issuers write addresses as names of claims.
    if path in claims:
        return claims[path]
    value: Any = claims
    for step in path.split("."):
        if not isinstance(value, dict) or step not in value:
            return default
        value = value[step]
    return value
