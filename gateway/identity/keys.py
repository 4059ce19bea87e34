"""Keys on P-256: our signing ring in its folder, and what counts as a client's public key."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from gateway.identity.errors import KeyFileError, KeyRefused
from gateway.identity.models import ClientKey
from gateway.vault import write_secret

ALGORITHM = "ES256"
MAX_KEY_FILE_BYTES = 16 * 1024
_KID = re.compile(r"[\x21-\x7e]{1,128}\Z")
# Group may read (a mounted secret owned by the pod's group); anything wider is a leak.
_TOO_OPEN = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Our token keys: ``current`` signs; the others are published and accepted, so keys change without a gap."""

    current: ECKey
    others: tuple[ECKey, ...]

    def find(self, kid: str) -> ECKey | None:
        """Return the key with this id, or None."""
        return next((key for key in (self.current, *self.others) if key.kid == kid), None)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public parts as a JWK Set (RFC 7517 section 5)."""
        return {"keys": [_public_jwk(_public_part(key), key.kid or "") for key in (self.current, *self.others)]}


def load_ring(keys_dir: Path, *, create: bool) -> KeyRing:
    """Read ``token-current.pem`` and, where they exist, ``token-previous.pem`` and ``token-next.pem``.

    With ``create`` a missing current key is made, mode 0600. To change keys: put the new one as ``next`` and restart
    every process; rename current to previous and next to current and restart again. Key ids are RFC 7638 thumbprints.
    Raises :class:`KeyFileError`.
    """
    current = keys_dir / "token-current.pem"
    if create and not current.exists():
        write_secret(current, _new_private_pem())
    others = [keys_dir / f"token-{name}.pem" for name in ("previous", "next")]
    return KeyRing(_read_private(current), tuple(_read_private(path) for path in others if path.exists()))


def read_public_key(data: bytes) -> ClientKey:
    """Read a client's public key from PEM (SubjectPublicKeyInfo) or a JWK (RFC 7517); only EC P-256 is taken.

    The key id is the JWK's ``kid``, else the RFC 7638 thumbprint. Raises :class:`KeyRefused`; a private key is refused
    too, because it has left its owner's hands.
    """
    if len(data) > MAX_KEY_FILE_BYTES:
        raise KeyRefused("unreadable")
    if data.lstrip().startswith(b"{"):
        public, kid = _from_jwk(data)
    else:
        public, kid = _from_pem(data), None
    key = ECKey.import_key(public.public_bytes(serialization.Encoding.PEM, _SPKI))
    kid = kid or key.thumbprint()
    return ClientKey(kid, _public_jwk(public, kid))


_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def _from_pem(data: bytes) -> ec.EllipticCurvePublicKey:
    if b"PRIVATE KEY-----" in data:
        raise KeyRefused("private")
    if b"BEGIN CERTIFICATE" in data:
        raise KeyRefused("certificate")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyRefused("unreadable") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise KeyRefused("type")
    if not isinstance(key.curve, ec.SECP256R1):
        raise KeyRefused("curve")
    return key


def _from_jwk(data: bytes) -> tuple[ec.EllipticCurvePublicKey, str | None]:
    try:
        jwk: dict[str, Any] = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise KeyRefused("unreadable") from None
    # "d" is the private part of EC, OKP and RSA keys, "k" the whole of a symmetric one (RFC 7518 section 6).
    if "d" in jwk or "k" in jwk:
        raise KeyRefused("private")
    if jwk.get("kty") != "EC":
        raise KeyRefused("type" if "kty" in jwk else "unreadable")
    if jwk.get("crv") != "P-256":
        raise KeyRefused("curve")
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", ALGORITHM) != ALGORITHM:
        raise KeyRefused("use")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeyRefused("use")
    kid = jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and _KID.match(kid)):
        raise KeyRefused("kid")
    try:
        imported = ECKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y")})
    except (JoseError, ValueError, KeyError, TypeError):
        raise KeyRefused("unreadable") from None
    return imported.public_key, kid


def _public_jwk(key: ec.EllipticCurvePublicKey, kid: str) -> dict[str, str]:
    parts = ECKey.import_key(key.public_bytes(serialization.Encoding.PEM, _SPKI)).as_dict(private=False)
    members = {name: cast(str, parts[name]) for name in ("kty", "crv", "x", "y")}
    return {**members, "kid": kid, "use": "sig", "alg": ALGORITHM}


def _public_part(key: ECKey) -> ec.EllipticCurvePublicKey:
    return key.public_key


def _new_private_pem() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read_private(path: Path) -> ECKey:
    try:
        if path.stat().st_mode & _TOO_OPEN:
            raise KeyFileError(f"{path}: mode must be 0600")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path}: {type(error).__name__}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyFileError(f"{path}: not an EC P-256 key")
    loaded = ECKey.import_key(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    loaded.ensure_kid()
    return loaded
