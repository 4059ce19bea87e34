"""What a client signs with its own key: proof of itself for a token (RFC 7523), and the word for its operator."""

from __future__ import annotations

from datetime import datetime

from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.identity.keys import ALGORITHM
from gateway.identity.models import Issuer
from gateway.identity.tokens import OPERATOR_TYPE
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


def operator_assertion(
    key: ECKey, *, client_id: str, issuer: Issuer, operator: str, roles: frozenset[str], acr: str, now: datetime
) -> str:
    """Sign the ``X-SIIS-Operator`` header: who logged in at the client's institution, at level ``acr`` ("1" to "3")."""
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
    header = {"alg": ALGORITHM, "typ": OPERATOR_TYPE, "kid": key.thumbprint()}
    return jwt.encode(header, claims, key, algorithms=[ALGORITHM])
