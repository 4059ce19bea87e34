"""What a client signs with its own key: proof of itself (RFC 7523), of a request (RFC 9449), and of its operator."""

from __future__ import annotations

from datetime import datetime

from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.identity.binding import PROOF_TYPE, hash_of
from gateway.identity.keys import ALGORITHM
from gateway.identity.models import Issuer
from gateway.identity.operators import OPERATOR_TYPE
from schemas.ids import uuid7

LIFETIME_SECONDS = 60


def client_assertion(key: ECKey, *, client_id: str, issuer: Issuer, now: datetime) -> str:
    """Sign the assertion that gets ``client_id`` an access token, good once and for a minute (RFC 7523 section 3).

    The header carries the RFC 7638 thumbprint as ``kid``, as a key registered from PEM has it.
    """
    issued = int(now.timestamp())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": issuer.url,
        "jti": str(uuid7()),
        "iat": issued,
        "exp": issued + LIFETIME_SECONDS,
    }
    return jwt.encode({"alg": ALGORITHM, "kid": key.thumbprint()}, claims, key, algorithms=[ALGORITHM])


def dpop_proof(key: ECKey, *, method: str, url: str, now: datetime, token: str | None = None) -> str:
    """Sign the ``DPoP`` header of one request (RFC 9449 section 4.2), for ``token`` where one goes with it."""
    claims = {"jti": str(uuid7()), "htm": method, "htu": url, "iat": int(now.timestamp())}
    if token is not None:
        claims["ath"] = hash_of(token)
    public = {name: value for name, value in key.as_dict(private=False).items() if name in ("kty", "crv", "x", "y")}
    return jwt.encode({"typ": PROOF_TYPE, "alg": ALGORITHM, "jwk": public}, claims, key, algorithms=[ALGORITHM])


def operator_assertion(
    key: ECKey,
    *,
    client_id: str,
    issuer: Issuer,
    operator: str,
    roles: frozenset[str],
    acr: str,
    now: datetime,
    authenticated_at: datetime | None = None,
) -> str:
    """Sign the ``X-SIIS-Operator`` header: who logged in at the client's institution, at level ``acr`` ("1" to "3").

    ``authenticated_at`` is when that person last logged in; what asks for a fresh login looks at it.
    """
    issued = int(now.timestamp())
    claims = {
        "iss": client_id,
        "sub": operator,
        "aud": issuer.url,
        "roles": sorted(roles),
        "acr": acr,
        "iat": issued,
        "exp": issued + LIFETIME_SECONDS,
    }
    if authenticated_at is not None:
        claims["auth_time"] = int(authenticated_at.timestamp())
    header = {"alg": ALGORITHM, "typ": OPERATOR_TYPE, "kid": key.thumbprint()}
    return jwt.encode(header, claims, key, algorithms=[ALGORITHM])
