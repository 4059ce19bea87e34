"""Opens signed tokens (JWS compact, ES256): the one place where a signature from outside is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from gateway.identity.errors import TokenError
from gateway.identity.keys import ALGORITHM

MAX_COMPACT_CHARS = 8192
MAX_HEADER_CHARS = 512
_REGISTRY = jws.JWSRegistry(algorithms=[ALGORITHM], strict_check_header=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """A verified JWS: its claims and the id of the key that verified it."""

    claims: dict[str, Any]
    kid: str


FindKeys = Callable[[str | None, dict[str, Any]], Iterable[tuple[str, ECKey]]]


def open_compact(compact: str, *, types: frozenset[str], find_keys: FindKeys) -> Opened:
    """Verify a JWS in compact form (RFC 7515 section 7.1) and return its claims (RFC 7519).

    ``types`` are the accepted ``typ`` values in lower case, the empty string for none (RFC 8725 section 3.11);
    ``find_keys`` gets ``kid`` and the claims, unverified, and returns the keys that may have signed, raising
    :class:`TokenError` if there is none. Raises :class:`TokenError` with reason ``malformed``, ``algorithm``,
    ``type`` or ``signature``.
    """
    header, claims = _read(compact, types)
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise TokenError("malformed")
    for candidate, key in find_keys(kid, claims):
        if _verifies(compact, key):
            return Opened(claims, candidate)
    raise TokenError("signature")


def open_with_own_key(compact: str, *, types: frozenset[str]) -> Opened:
    """Verify a JWS that carries the public key it was signed with (RFC 7515 section 4.1.3), as DPoP proofs do.

    It proves nothing but that the signer holds that key, whose RFC 7638 thumbprint stands for ``kid``. Raises
    :class:`TokenError` as :func:`open_compact` does, and with ``key`` for what is no public key on P-256.
    """
    header, claims = _read(compact, types)
    jwk = header.get("jwk")
    # "d" is the private part; whoever sends it along has given the key away (RFC 9449 section 4.3, item 7).
    if not isinstance(jwk, dict) or "d" in jwk or jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
        raise TokenError("key")
    x, y = jwk.get("x"), jwk.get("y")
    if not isinstance(x, str) or not isinstance(y, str):
        raise TokenError("key")
    key, jkt = _point(x, y)
    if not _verifies(compact, key):
        raise TokenError("signature")
    return Opened(claims, jkt)


def unverified(compact: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a JWS without believing a word of them; raises :class:`TokenError`, ``malformed``."""
    if len(compact) > MAX_COMPACT_CHARS or not compact.isascii():
        raise TokenError("malformed")
    segments = compact.split(".")
    if len(segments) != 3:
        raise TokenError("malformed")
    return _object(segments[0]), _object(segments[1])


def check_times(claims: dict[str, Any], now: float, *, leeway: int) -> float:
    """Check ``exp`` (required), ``nbf`` and ``iat`` (RFC 7519 section 4.1) at ``now``; return ``exp``.

    Times are seconds since 1970; ``leeway`` seconds forgive clocks that disagree. Raises :class:`TokenError`:
    ``claims``, ``expired`` or ``early``.
    """
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if "exp" not in times or not all(type(value) in (int, float) for value in times.values()):
        raise TokenError("claims")
    if times["exp"] <= now - leeway:
        raise TokenError("expired")
    if any(times[name] > now + leeway for name in ("nbf", "iat") if name in times):
        raise TokenError("early")
    return float(times["exp"])


def _read(compact: str, types: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims = unverified(compact)
    if compact.index(".") > MAX_HEADER_CHARS:
        raise TokenError("malformed")
    if header.get("alg") != ALGORITHM:
        raise TokenError("algorithm")
    # We understand no critical extension; an unencoded payload (RFC 7797) is one.
    if "crit" in header or "b64" in header:
        raise TokenError("malformed")
    if str(header.get("typ", "")).lower() not in types:
        raise TokenError("type")
    return header, claims


# A client proves itself with the same key for hours; reading a key costs more than checking a signature with it.
@lru_cache(maxsize=1024)
def _point(x: str, y: str) -> tuple[ECKey, str]:
    try:
        key = ECKey.import_key({"kty": "EC", "crv": "P-256", "x": x, "y": y})
        # Read again from its numbers, so that no second spelling of a point has a thumbprint of its own.
        numbers = key.public_key.public_numbers()
    except (JoseError, ValueError, TypeError):
        raise TokenError("key") from None
    plain = {
        name: urlsafe_b64encode(n.to_bytes(32, "big")).decode() for name, n in (("x", numbers.x), ("y", numbers.y))
    }
    return key, ECKey.import_key({"kty": "EC", "crv": "P-256", **plain}).thumbprint()


def _verifies(compact: str, key: ECKey) -> bool:
    try:
        jws.deserialize_compact(compact, key, registry=_REGISTRY)
    except JoseError:
        return False
    return True


def _object(segment: str) -> dict[str, Any]:
    try:
        value = orjson.loads(urlsafe_b64decode(segment.encode()))
    except ValueError:
        raise TokenError("malformed") from None
    if not isinstance(value, dict):
        raise TokenError("malformed")
    return value
