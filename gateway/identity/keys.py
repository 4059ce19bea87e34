"""Keys on P-256: our signing ring in its folder, and what counts as a client's public key."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from gateway.clock import utc_now
from gateway.identity.errors import KeyFileError, KeyRefused
from gateway.identity.models import ClientKey
from gateway.vault import write_secret

ALGORITHM = "ES256"
MAX_KEY_FILE_BYTES = 16 * 1024
#: How long a retired key is still believed: a token's life (300 s), clocks that disagree (60 s) and the seconds until
#: every process signs with its successor.
RETIRED_SECONDS = 420
#: How long others may keep our published keys before they ask again.
JWKS_MAX_AGE_SECONDS = 600
_KID = re.compile(r"[\x21-\x7e]{1,128}\Z")
# Group may read (a mounted secret owned by the pod's group); anything wider is a leak.
_TOO_OPEN = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO


class KeyRing:
    """Our token keys: ``current`` signs; the others are published and accepted, so keys change without a gap.

    A live object: whoever holds it signs and checks with the keys of the moment. Read ``current`` once per token.
    """

    def __init__(self, current: ECKey, others: Iterable[ECKey] = ()) -> None:
        # One tuple, replaced whole: a thread that reads it sees either the old keys or the new ones.
        self._keys = (current, *(key for key in others if key.kid != current.kid))

    @property
    def current(self) -> ECKey:
        """The key that signs."""
        return self._keys[0]

    @property
    def kids(self) -> tuple[str, ...]:
        """The ids of all keys, that of the current one first."""
        return tuple(key.kid or "" for key in self._keys)

    def find(self, kid: str) -> ECKey | None:
        """Return the key with this id, or None."""
        return next((key for key in self._keys if key.kid == kid), None)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public parts as a JWK Set (RFC 7517 section 5)."""
        return {"keys": [_public_jwk(_public_part(key), key.kid or "") for key in self._keys]}

    def take_over(self, fresh: KeyRing) -> None:
        """Hold the keys of another ring from now on."""
        self._keys = fresh._keys


def load_ring(keys_dir: Path, *, create: bool, now: Callable[[], datetime] = utc_now) -> KeyRing:
    """Read ``token-current.pem`` and, where they exist, ``token-next.pem`` and ``token-previous.pem``.

    With ``create`` a missing current key is made, mode 0600. A previous key counts for :data:`RETIRED_SECONDS` after
    it took that name; ``now`` gives UTC instants. Key ids are RFC 7638 thumbprints. How the files change is said in
    :mod:`gateway.identity.rotation`. Raises :class:`KeyFileError`.
    """
    paths = KeyPaths(keys_dir)
    if create and not paths.current.exists():
        write_secret(paths.current, new_private_pem())
    # In this order a key is seen at its old name or at its new one, even while another process renames it.
    following = read_private(paths.next) if paths.next.exists() else None
    current = read_private(paths.current)
    retired = named_since(paths.previous)
    alive = retired is not None and now() < retired + timedelta(seconds=RETIRED_SECONDS)
    previous = read_private(paths.previous) if alive else None
    return KeyRing(current, (key for key in (previous, following) if key is not None))


class KeyPaths:
    """The files of the ring in their folder."""

    def __init__(self, keys_dir: Path) -> None:
        self.current, self.next, self.previous = (
            keys_dir / f"token-{name}.pem" for name in ("current", "next", "previous")
        )


def named_since(path: Path) -> datetime | None:
    """Return when a file got its name (UTC), None where there is none.

    It is the inode's change time: a rename moves it and nobody can set it back, unlike the time of modification.
    """
    try:
        return datetime.fromtimestamp(path.stat().st_ctime, UTC)
    except FileNotFoundError:
        return None


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


def new_private_pem() -> bytes:
    """Make a private key, in PEM (PKCS #8)."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_private(path: Path) -> ECKey:
    """Read one of our keys. Raises :class:`KeyFileError`."""
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
