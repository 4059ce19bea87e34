"""Says what the log is at one moment, signed: C2SP tlog-checkpoint inside a C2SP signed-note, Ed25519 (type 1)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.errors import InvalidNote

_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_NOTE_LIMIT = 100_000
_SIZE = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})\Z")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: which log, how many leaves, and the root over them."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs for the log: its origin (a schema-less address such as ``siis.gov.py/log/2026``) and its key."""

    origin: str
    key: Ed25519PrivateKey

    def __post_init__(self) -> None:
        if not self.origin or "+" in self.origin or any(c.isspace() for c in self.origin):
            raise ValueError("origin: must not be empty nor hold spaces or a plus sign")

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key others verify with."""
        return self.key.public_key()


def key_id(name: str, public_key: Ed25519PublicKey) -> bytes:
    """Return the four bytes that name a key in a note: SHA-256(name ‖ newline ‖ type ‖ key), cut (signed-note)."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public_key.public_bytes_raw()).digest()[:_KEY_ID_BYTES]


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> str:
    """Sign a text that ends in a newline; return the whole note (C2SP signed-note)."""
    signature = key_id(name, key.public_key()) + key.sign(text.encode())
    return f"{text}\n— {name} {base64.b64encode(signature).decode()}\n"


def open_note(note: str, name: str, public_key: Ed25519PublicKey) -> str:
    """Return the text of a note if this key signed it, else raise :class:`InvalidNote` (C2SP signed-note).

    Signatures of other keys are ignored; a false one under our name and key id condemns the note.
    """
    if len(note) > _NOTE_LIMIT:
        raise InvalidNote("note is too long")
    if any((ord(c) < 0x20 and c != "\n") or "\ud800" <= c <= "\udfff" for c in note):
        raise InvalidNote("note is not plain text in UTF-8")
    body, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise InvalidNote("note has no signatures")
    text, wanted, signed = body + "\n", key_id(name, public_key), False
    for line in tail[:-1].split("\n"):
        signer, data = _signature(line)
        if signer != name or data[:_KEY_ID_BYTES] != wanted:
            continue
        try:
            public_key.verify(data[_KEY_ID_BYTES:], text.encode())
        except InvalidSignature as error:
            raise InvalidNote("signature does not verify") from error
        signed = True
    if not signed:
        raise InvalidNote("note is not signed by the expected key")
    return text


def sign_checkpoint(signer: Signer, size: int, root: bytes) -> str:
    """Sign the tree head of ``size`` leaves (C2SP tlog-checkpoint, without extension lines)."""
    text = f"{signer.origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    return sign_note(text, signer.origin, signer.key)


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a checkpoint, signatures apart; extension lines are allowed and not looked at.

    Raises :class:`InvalidNote` for anything that is not exactly the format.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise InvalidNote("checkpoint needs three lines")
    origin, size, root = lines[:3]
    if not _SIZE.match(size):
        raise InvalidNote("checkpoint size is not a plain number")
    digest = _base64(root)
    if len(digest) != hashlib.sha256().digest_size:
        raise InvalidNote("checkpoint root is not 32 bytes")
    return Checkpoint(origin, int(size), digest)


def open_checkpoint(note: str, origin: str, public_key: Ed25519PublicKey) -> Checkpoint:
    """Return the checkpoint in a note if this log's key signed it, else raise :class:`InvalidNote`."""
    checkpoint = parse_checkpoint(open_note(note, origin, public_key))
    if checkpoint.origin != origin:
        raise InvalidNote("checkpoint is of another log")
    return checkpoint


def _signature(line: str) -> tuple[str, bytes]:
    match = _SIGNATURE_LINE.match(line)
    if match is None:
        raise InvalidNote("signature line is malformed")
    return match[1], _base64(match[2])


def _base64(text: str) -> bytes:
    """Decode base64 that is exactly what encoding its value gives (RFC 4648 clause 3.5), so no byte can differ."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidNote("not base64") from error
    if base64.b64encode(data).decode() != text:
        raise InvalidNote("not canonical base64")
    return data
