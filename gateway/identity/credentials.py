"""What a client proves itself with, and until when it counts: keys, certificates, and the secrets of pilots."""

from __future__ import annotations

import hmac
import secrets
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from joserfc.jwk import ECKey

from gateway.identity.errors import TokenError
from gateway.identity.models import Client, Credential, CredentialKind

# In an access token exactly one of these names the credential that obtained it.
_CLAIMS: dict[str, CredentialKind] = {"client_kid": "key", "client_x5t": "certificate", "client_secret_id": "secret"}
_NAMES = {kind: name for name, kind in _CLAIMS.items()}
_NO_END = datetime.max.replace(tzinfo=UTC).timestamp()
# Compared with when there is nothing to compare with, so that both take the same time.
_NO_SECRET = bytes(32)


def new_secret() -> str:
    """Make a client secret of 256 random bits."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """Return what is stored of a secret: a plain SHA-256 is enough, since nobody can guess 256 random bits."""
    return sha256(secret.encode()).digest()


def secret_matches(client: Client | None, secret: str) -> bool:
    """Return whether a secret is that of a pilot client, in the same time for every answer."""
    known = client.secret_sha256 if client is not None and client.pilot else None
    same = hmac.compare_digest(known or _NO_SECRET, secret_hash(secret))
    return same and known is not None


def credential_claim(credential: Credential) -> dict[str, str]:
    """Return the claim by which an access token names the credential that obtained it."""
    return {_NAMES[credential.kind]: credential.id}


def read_credential(claims: dict[str, Any]) -> Credential:
    """Read that claim; raises :class:`TokenError`, ``claims``."""
    named = [name for name in _CLAIMS if name in claims]
    if len(named) != 1:
        raise TokenError("claims")
    return Credential(_CLAIMS[named[0]], text_claim(claims, named[0], 128))


def credential_end(client: Client, credential: Credential, now: datetime) -> float:
    """Return until when (seconds since 1970) a credential counts.

    Raises :class:`TokenError` (``key``, ``certificate`` or ``secret``) if it does not count any more.
    """
    if credential.kind == "key":
        key = next((key for key in client.usable_keys(now) if key.kid == credential.id), None)
        if key is None:
            raise TokenError("key")
        return _NO_END if key.not_after is None else key.not_after.timestamp()
    if credential.kind == "certificate":
        certificate = client.certificate(credential.id)
        if certificate is None or not certificate.usable(now):
            raise TokenError("certificate")
        return certificate.not_after.timestamp()
    if credential.id != client.secret_id:
        raise TokenError("secret")
    return _NO_END


def client_keys(client: Client, kid: str | None, now: datetime) -> list[tuple[str, ECKey]]:
    """Return the client's keys that may have signed: the one named, or all usable ones when none is named.

    Raises :class:`TokenError` (``key``) if there is none.
    """
    found = [(key.kid, key.key) for key in client.usable_keys(now) if kid is None or key.kid == kid]
    if not found:
        raise TokenError("key")
    return found


def text_claim(claims: dict[str, Any], name: str, longest: int) -> str:
    """Return a claim that must be printable text of 1 to ``longest`` characters; raises :class:`TokenError`."""
    value = claims.get(name)
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= longest:
        raise TokenError("claims")
    return value
