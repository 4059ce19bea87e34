"""Access tokens (RFC 9068): makes them, and says who a token or an operator assertion proves the caller to be."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.identity.directory import ClientDirectory
from gateway.identity.errors import OperatorError, TokenError
from gateway.identity.jose import Opened, check_times, open_compact
from gateway.identity.keys import ALGORITHM, KeyRing
from gateway.identity.models import (
    LOWEST_ASSURANCE,
    ClaimedOperator,
    Client,
    Issuer,
    VerifiedCaller,
    VerifiedOperator,
)
from schemas.ids import uuid7

ACCESS_TOKEN_SECONDS = 300
OPERATOR_SECONDS = 300
CACHE_SECONDS = 60
CACHE_ENTRIES = 20_000
CLOCK_LEEWAY_SECONDS = 60

ACCESS_TOKEN_TYPE = "at+jwt"  # noqa: S105 - a media type (RFC 9068 section 2.1)
OPERATOR_TYPE = "siis-operator+jwt"

_ROLE = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")
_ACR_LEVELS = {"1": 1, "2": 2, "3": 3}


def issue(*, ring: KeyRing, issuer: Issuer, client: Client, kid: str, scope: str, now: datetime) -> str:
    """Make an access token (RFC 9068 section 2) of 300 seconds for ``client``.

    ``kid`` is the client's key that asked for it: when that key ends, so do its tokens.
    """
    issued = int(now.timestamp())
    claims = {
        "iss": issuer.url,
        "sub": client.id,
        "aud": issuer.resource,
        "client_id": client.id,
        "iat": issued,
        "exp": issued + ACCESS_TOKEN_SECONDS,
        "jti": str(uuid7()),
        "scope": scope,
        "inst": client.institution,
        "client_kid": kid,
    }
    header = {"alg": ALGORITHM, "typ": ACCESS_TOKEN_TYPE, "kid": ring.current.kid}
    return jwt.encode(header, claims, ring.current, algorithms=[ALGORITHM])


def open_access_token(token: str, *, ring: KeyRing) -> dict[str, Any]:
    """Verify that we signed an access token and return its claims, whatever their times and audience.

    Raises :class:`TokenError`.
    """

    def find(kid: str | None, _claims: dict[str, Any]) -> list[tuple[str, ECKey]]:
        # We always write a kid, so a token without one is not ours even while there is a single key.
        key = ring.find(kid) if kid else None
        if kid is None or key is None:
            raise TokenError("key")
        return [(kid, key)]

    return open_compact(token, types=frozenset({ACCESS_TOKEN_TYPE}), find_keys=find).claims


@dataclass(frozen=True, slots=True)
class _Checked:
    """A verdict, the client it was reached on, and until when (seconds since 1970) it needs no second look."""

    caller: VerifiedCaller
    client: Client
    until: float


class TokenChecker:
    """Checks access tokens and operator assertions; remembers a verdict for at most a minute."""

    def __init__(
        self, *, ring: KeyRing, issuer: Issuer, directory: ClientDirectory, now: Callable[[], datetime]
    ) -> None:
        """``now`` gives UTC instants."""
        self._ring, self._issuer, self._directory, self._now = ring, issuer, directory, now
        self._tokens: dict[bytes, _Checked] = {}
        self._operators: dict[bytes, _Checked] = {}

    def check(self, authorization: str | None) -> VerifiedCaller:
        """Return who the ``Authorization`` header (RFC 6750 section 2.1) proves the caller to be.

        Raises :class:`TokenError` (``missing`` when there is no bearer token at all), or
        :class:`DirectoryUnavailable` when nobody can be let in.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise TokenError("missing")
        digest = sha256(token.encode(errors="replace")).digest()
        now = self._now()
        known = self._remembered(self._tokens, digest, now)
        if known is None:
            known = self._check(token, now)
            _remember(self._tokens, digest, known)
        return known.caller

    def with_operator(
        self, caller: VerifiedCaller, *, assertion: str | None, claimed: ClaimedOperator | None
    ) -> VerifiedCaller:
        """Return the caller together with the person behind the call.

        ``assertion`` is the ``X-SIIS-Operator`` header, ``claimed`` what the body says. Where both are there the
        assertion counts, and they must name the same person. Raises :class:`OperatorError`.
        """
        if assertion is None:
            return replace(caller, operator=claimed) if claimed else caller
        digest = sha256(f"{caller.client_id}\x00{assertion}".encode(errors="replace")).digest()
        now = self._now()
        known = self._remembered(self._operators, digest, now)
        if known is None:
            known = self._check_operator(caller, assertion, now)
            _remember(self._operators, digest, known)
        operator = known.caller.operator
        if claimed and operator and claimed.id != operator.id:
            raise OperatorError("operator-claim", caller.client_id)
        return replace(caller, operator=operator, assurance=known.caller.assurance)

    def _remembered(self, cache: dict[bytes, _Checked], digest: bytes, now: datetime) -> _Checked | None:
        known = cache.get(digest)
        if known is None:
            return None
        # The directory keeps one object per client while nothing about it changes.
        unchanged = self._directory.find(known.caller.client_id) is known.client
        if unchanged and now.timestamp() < known.until and not self._directory.revoked(known.caller.token_id):
            return known
        del cache[digest]
        return None

    def _check(self, token: str, now: datetime) -> _Checked:
        claims = open_access_token(token, ring=self._ring)
        client_id = _text(claims, "client_id", 64)
        client = self._directory.find(client_id)
        if client is None:
            raise TokenError("client-unknown")
        try:
            if claims.get("iss") != self._issuer.url or claims.get("aud") != self._issuer.resource:
                raise TokenError("audience")
            expires = check_times(claims, now.timestamp(), leeway=0)
            token_id, kid, scope = _text(claims, "jti", 64), _text(claims, "client_kid", 128), claims.get("scope")
            if not isinstance(scope, str):
                raise TokenError("claims")
            if not client.active:
                raise TokenError("client-disabled")
            if self._directory.revoked(token_id):
                raise TokenError("revoked")
            until = _key_end(client, kid, now)
        except TokenError as error:
            raise TokenError(error.reason, client_id) from None
        caller = VerifiedCaller(
            client_id=client.id,
            institution=client.institution,
            # What the client may do now bounds what it was given minutes ago.
            scopes=frozenset(scope.split()) & client.scopes,
            token_id=token_id,
        )
        return _Checked(caller, client, min(expires, until, now.timestamp() + CACHE_SECONDS))

    def _check_operator(self, caller: VerifiedCaller, assertion: str, now: datetime) -> _Checked:
        client = self._directory.find(caller.client_id)
        if client is None or not client.active:
            raise TokenError("client-disabled", caller.client_id)
        try:
            opened = open_compact(
                assertion,
                types=frozenset({OPERATOR_TYPE}),
                find_keys=lambda kid, _claims: client_keys(client, kid, now),
            )
            operator, expires = self._operator(client, opened, now)
        except TokenError as error:
            raise OperatorError(f"operator-{error.reason}", caller.client_id) from None
        until = min(expires, _key_end(client, opened.kid, now), now.timestamp() + CACHE_SECONDS)
        return _Checked(replace(caller, operator=operator, assurance=operator.assurance), client, until)

    def _operator(self, client: Client, opened: Opened, now: datetime) -> tuple[VerifiedOperator, float]:
        claims = opened.claims
        if claims.get("iss") != client.id or claims.get("aud") != self._issuer.url:
            raise TokenError("audience")
        expires = check_times(claims, now.timestamp(), leeway=CLOCK_LEEWAY_SECONDS)
        if "iat" not in claims:
            raise TokenError("claims")
        if expires - claims["iat"] > OPERATOR_SECONDS:
            raise TokenError("too-long")
        roles = claims.get("roles")
        if not isinstance(roles, list) or len(roles) > 10:
            raise TokenError("claims")
        if not all(isinstance(role, str) and _ROLE.match(role) for role in roles):
            raise TokenError("claims")
        acr = _text(claims, "acr", 200)
        # A client vouches for nothing beyond its own ceiling, and an acr we do not know proves nothing.
        assurance = min(client.assurance, _ACR_LEVELS.get(acr, LOWEST_ASSURANCE))
        return VerifiedOperator(_text(claims, "sub", 64), frozenset(roles), acr, assurance), expires


def client_keys(client: Client, kid: str | None, now: datetime) -> list[tuple[str, ECKey]]:
    """Return the client's keys that may have signed: the one named, or all usable ones when none is named.

    Raises :class:`TokenError` (``key``) if there is none.
    """
    found = [(key.kid, key.key) for key in client.usable_keys(now) if kid is None or key.kid == kid]
    if not found:
        raise TokenError("key")
    return found


def _key_end(client: Client, kid: str, now: datetime) -> float:
    key = next((key for key in client.usable_keys(now) if key.kid == kid), None)
    if key is None:
        raise TokenError("key")
    return (key.not_after or datetime.max.replace(tzinfo=UTC)).timestamp()


def _text(claims: dict[str, Any], name: str, longest: int) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= longest:
        raise TokenError("claims")
    return value


def _remember(cache: dict[bytes, _Checked], digest: bytes, checked: _Checked) -> None:
    if len(cache) >= CACHE_ENTRIES:
        del cache[next(iter(cache))]
    cache[digest] = checked
