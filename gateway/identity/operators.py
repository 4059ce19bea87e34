"""The person behind a call: vouched for by an assertion under the client's key, for as long as that key counts."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from gateway.identity.credentials import client_keys, credential_end, text_claim
from gateway.identity.errors import OperatorError, TokenError
from gateway.identity.jose import check_times, open_compact
from gateway.identity.models import LOWEST_ASSURANCE, Client, Credential, Issuer, VerifiedOperator

OPERATOR_TYPE = "siis-operator+jwt"
OPERATOR_SECONDS = 300
CLOCK_LEEWAY_SECONDS = 60

_ROLE = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")
_ACR_LEVELS = {"1": 1, "2": 2, "3": 3}


def check_operator(client: Client, assertion: str, *, issuer: Issuer, now: datetime) -> tuple[VerifiedOperator, float]:
    """Return whom an ``X-SIIS-Operator`` header names, and until when (seconds since 1970) it does.

    Raises :class:`OperatorError`.
    """
    try:
        opened = open_compact(
            assertion,
            types=frozenset({OPERATOR_TYPE}),
            find_keys=lambda kid, _claims: client_keys(client, kid, now),
        )
        operator, expires = _operator(client, opened.claims, issuer, now)
        return operator, min(expires, credential_end(client, Credential("key", opened.kid), now))
    except TokenError as error:
        raise OperatorError(f"operator-{error.reason}", client.id) from None


def _operator(client: Client, claims: dict[str, Any], issuer: Issuer, now: datetime) -> tuple[VerifiedOperator, float]:
    if claims.get("iss") != client.id or claims.get("aud") != issuer.url:
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
    acr = text_claim(claims, "acr", 200)
    # A client vouches for nothing beyond its own ceiling, and an acr we do not know proves nothing.
    assurance = min(client.assurance, _ACR_LEVELS.get(acr, LOWEST_ASSURANCE))
    login = _login(claims, now)
    return VerifiedOperator(text_claim(claims, "sub", 64), frozenset(roles), acr, assurance, login), expires


def _login(claims: dict[str, Any], now: datetime) -> datetime | None:
    if "auth_time" not in claims:
        return None
    at = claims["auth_time"]
    if type(at) not in (int, float) or at < 0:
        raise TokenError("claims")
    # A login still to come would stay fresh for as long as its author likes.
    if at > now.timestamp() + CLOCK_LEEWAY_SECONDS:
        raise TokenError("early")
    return datetime.fromtimestamp(at, UTC)
