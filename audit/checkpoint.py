"""Says what the log is at one moment, signed: C2SP tlog-checkpoint inside a C2SP signed-note, Ed25519 (type 1)."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from audit.verify import ED25519, Checkpoint, Key, make_key, open_signed


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: an origin (a schema-less address such as ``siis.gov.py/audit``) and an Ed25519 key.

    Nothing is signed under this key itself. The log of each year has the origin with the year behind it and a key of
    its own, made from this one, so that a policy can name several years (C2SP tlog-policy refuses one key twice).
    ``memory`` is a folder outside the database for what was signed last: a log that does not contain it is not signed
    on, whatever the database says of itself. With ``None`` nothing is remembered.
    """

    origin: str
    key: Ed25519PrivateKey
    memory: Path | None = None

    def __post_init__(self) -> None:
        if not self.origin or "+" in self.origin or any(c.isspace() for c in self.origin):
            raise ValueError("origin: must not be empty nor hold spaces or a plus sign")

    def of(self, log: int) -> Signer:
        """Return who signs for the log of one year; the key comes from ours by HKDF with SHA-256 (RFC 5869)."""
        derived = HKDF(SHA256(), 32, salt=None, info=f"siis audit log {log}".encode())
        seed = derived.derive(self.key.private_bytes_raw())
        return Signer(f"{self.origin}/{log}", Ed25519PrivateKey.from_private_bytes(seed), self.memory)

    def remembered(self, log: int) -> Checkpoint | None:
        """Return what was last signed of the log of a year; raises :class:`NotValid` for a spoilt file."""
        path = self._memory_of(log)
        if path is None or not path.exists():
            return None
        return open_signed(path.read_text(encoding="utf-8"), self.verifier_of(log))

    def remember(self, log: int, note: str) -> None:
        """Keep a checkpoint that is signed and stored."""
        path = self._memory_of(log)
        if path is None:
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(note, encoding="utf-8")
        draft.replace(path)

    def _memory_of(self, log: int) -> Path | None:
        return None if self.memory is None else self.memory / f"{log}.checkpoint"

    def verifier_of(self, log: int) -> Key:
        """Return the key that others verify the log of one year with."""
        return self.of(log).verifier

    @property
    def verifier(self) -> Key:
        """The key others verify with, under the name it signs with."""
        return make_key(self.origin, ED25519, self.key.public_key().public_bytes_raw())


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> str:
    """Sign a text that ends in a newline; return the whole note (C2SP signed-note)."""
    signature = make_key(name, ED25519, key.public_key().public_bytes_raw()).id + key.sign(text.encode())
    return f"{text}\n— {name} {base64.b64encode(signature).decode()}\n"


def sign_checkpoint(signer: Signer, size: int, root: bytes) -> str:
    """Sign the tree head of ``size`` leaves (C2SP tlog-checkpoint, without extension lines)."""
    text = f"{signer.origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    return sign_note(text, signer.origin, signer.key)
