"""Encryption of single fields and wrapping of keys: AES-256-GCM, each ciphertext bound to the row it belongs to."""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import DecryptionError

KEY_BYTES = 32
_NONCE_BYTES = 12


def new_key() -> bytes:
    """Return 32 random bytes."""
    return os.urandom(KEY_BYTES)


def encrypt(key: bytes, plaintext: bytes, context: bytes, key_id: int = 1) -> bytes:
    """Encrypt under AES-256-GCM (NIST SP 800-38D): one byte key id, 12 bytes nonce, ciphertext and tag.

    ``context`` is authenticated, not stored: give table, column and row id, so a ciphertext moved to another
    row does not open.
    """
    nonce = os.urandom(_NONCE_BYTES)
    header = bytes((key_id,))
    return header + nonce + AESGCM(key).encrypt(nonce, plaintext, header + context)


def decrypt(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Open what :func:`encrypt` sealed; raise :class:`DecryptionError` if it was changed, moved or the key is wrong."""
    header, nonce, body = sealed[:1], sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, body, header + context)
    except (InvalidTag, ValueError) as error:
        raise DecryptionError("ciphertext does not open") from error


def key_id_of(sealed: bytes) -> int:
    """Return the id of the key that sealed a ciphertext."""
    return sealed[0]


def blind_index(key: bytes, system: str, value: str) -> bytes:
    """Return 16 bytes of HMAC-SHA-256 over a normalised identifier, for equality look-ups on encrypted columns."""
    text = unicodedata.normalize("NFC", value).casefold()
    return hmac.new(key, f"{system}\x00{text}".encode(), hashlib.sha256).digest()[:16]
