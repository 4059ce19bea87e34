"""Encryption of single fields and wrapping of keys: AES-256-GCM, each ciphertext bound to the row it belongs to."""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from collections.abc import Callable, Sequence

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


class RowCipher:
    """Seals the numbered rows of one whole in great number, under a key made for that whole alone.

    So many rows under the one field key would wear out its random nonces (NIST SP 800-38D clause 8.3). What it makes is
    laid out as :func:`encrypt` does; the row's number is authenticated with the context.
    """

    def __init__(self, key: bytes, context: bytes, key_id: int = 1) -> None:
        self._cipher = AESGCM(hmac.digest(key, b"rows/" + context, "sha256"))
        self._header, self._context = bytes((key_id,)), bytes((key_id,)) + context + b"/"

    def seal(self, numbers: Sequence[int], plaintexts: Sequence[bytes]) -> list[bytes]:
        """Return the ciphertext of each row."""
        encrypt, header, context = self._cipher.encrypt, self._header, self._context
        # One call for the nonces of all: each alone would cost as much as the encryption.
        random = os.urandom(_NONCE_BYTES * len(numbers))
        nonces = [random[place : place + _NONCE_BYTES] for place in range(0, len(random), _NONCE_BYTES)]
        return [
            header + nonce + encrypt(nonce, plaintext, context + b"%d" % number)
            for number, plaintext, nonce in zip(numbers, plaintexts, nonces, strict=True)
        ]

    def open(self, number: int, sealed: bytes) -> bytes:
        """Open a row; raise :class:`DecryptionError` if it was changed, moved or the key is wrong."""
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, body, sealed[:1] + self._context[1:] + b"%d" % number)
        except (InvalidTag, ValueError) as error:
            raise DecryptionError("ciphertext does not open") from error


def key_id_of(sealed: bytes) -> int:
    """Return the id of the key that sealed a ciphertext."""
    return sealed[0]


def blind_index(key: bytes, system: str, value: str) -> bytes:
    """Return 16 bytes of HMAC-SHA-256 over a normalised identifier, for equality look-ups on encrypted columns."""
    text = unicodedata.normalize("NFC", value).casefold()
    return hmac.new(key, f"{system}\x00{text}".encode(), hashlib.sha256).digest()[:16]


def quick_indexer(key: bytes, purpose: str) -> Callable[[str], bytes]:
    """Return a blind index as :func:`blind_index` is one, for millions of values: BLAKE2b with a key (RFC 7693).

    The key is made for the purpose alone, so equal values under two purposes have nothing in common to be seen.
    """
    own = hmac.digest(key, b"index/" + purpose.encode(), "sha256")

    def index(value: str) -> bytes:
        text = unicodedata.normalize("NFC", value).casefold()
        return hashlib.blake2b(text.encode(), digest_size=16, key=own).digest()

    return index
