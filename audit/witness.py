"""Decides whether we cosign another log's checkpoint: only what its log signed and what continues what we saw last.

C2SP tlog-witness and tlog-cosignature, without HTTP. What is cosigned is stored first, so that two requests can never
end in two cosignatures that contradict each other.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.verify import (
    COSIGNATURE,
    ED25519,
    EMPTY_ROOT,
    HASH_BYTES,
    Checkpoint,
    Key,
    NotValid,
    check_signature,
    cosigned_message,
    format_key,
    make_key,
    parse_checkpoint,
    parse_key,
    parse_note,
    verify_consistency,
)

#: The longest request: 63 hashes, and a checkpoint with room for dozens of signatures, post-quantum ones too.
REQUEST_BYTES = 256 * 1024
_LONGEST_PROOF = 63
_ID_BYTES, _TIME_BYTES = 4, 8
_OLD_SIZE = re.compile(rb"old (0|[1-9][0-9]{0,18})\Z")

_KEY = text("SELECT verifier_key FROM audit.witnessed WHERE origin = :origin")
_SEEN = text(
    "SELECT size, root, at, note IS NOT NULL AS cosigned FROM audit.witnessed WHERE origin = :origin FOR UPDATE"
)
_SEE = text("UPDATE audit.witnessed SET size = :size, root = :root, note = :note, at = :at WHERE origin = :origin")
_ADD = text(
    """
    INSERT INTO audit.witnessed (origin, verifier_key, size, root, at) VALUES (:origin, :key, 0, :root, :at)
    ON CONFLICT (origin) DO NOTHING
    """
)
_LOGS = text("SELECT origin, verifier_key, size, note, at FROM audit.witnessed ORDER BY origin")


class Refused(Exception):
    """A checkpoint that is not cosigned; each kind has its answer in C2SP tlog-witness."""


class Malformed(Refused):
    """The request is not what the format says."""


class UnknownLog(Refused):
    """No log of this origin is witnessed here."""


class BadSignature(Refused):
    """No trusted key of the log signed the checkpoint."""


class Conflict(Refused):
    """The request starts from another size, or has another root, than what was cosigned last; ``size`` is that one."""

    def __init__(self, size: int) -> None:
        super().__init__("what was cosigned last is another checkpoint")
        self.size = size


class BadProof(Refused):
    """The proof does not show that what was cosigned last is a prefix."""


class OtherKey(ValueError):
    """A log of this origin is witnessed already, under another key."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Who cosigns: the name of the witness and its key."""

    name: str
    key: Ed25519PrivateKey

    @property
    def verifier(self) -> Key:
        """The key others verify with."""
        return make_key(self.name, COSIGNATURE, self.key.public_key().public_bytes_raw())


class WitnessedLog(NamedTuple):
    """A log we witness: its origin and key, the size cosigned last (0: none yet), and when."""

    origin: str
    verifier_key: str
    size: int
    at: datetime | None


class Request(NamedTuple):
    """An add-checkpoint request as read, nothing verified: old size, proof, and the note with its parts."""

    old_size: int
    proof: tuple[bytes, ...]
    note: str
    text: str
    signatures: Sequence[tuple[str, bytes]]
    checkpoint: Checkpoint


async def cosign(conn: AsyncConnection, request: bytes, witness: Witness, now: Callable[[], datetime]) -> str:
    """Check a request for a cosignature, store the checkpoint, and return our signature line (without newline).

    ``conn`` must not be in a transaction: the checkpoint is committed before it is signed. ``now`` is read once this
    checkpoint is the newest. Raises :class:`Malformed`, :class:`UnknownLog`, :class:`BadSignature`,
    :class:`Conflict` or :class:`BadProof`, in the order of the format.
    """
    asked = read_request(request)
    checkpoint = asked.checkpoint
    async with conn.begin():
        found = (await conn.execute(_KEY, {"origin": checkpoint.origin})).scalar_one_or_none()
        if found is None:
            raise UnknownLog("no log of this origin is known")
        _check_signed(parse_key(found), asked)
        if asked.old_size > checkpoint.size:
            raise Malformed("the old size is over the size of the checkpoint")
        # Whoever else asks about this log waits here until we are done.
        seen = (await conn.execute(_SEEN, {"origin": checkpoint.origin})).one()
        _check_continues(seen, asked)
        # A cosignature says "as of now the largest I have seen", so its time never goes back.
        at = max(now(), seen.at) if seen.cosigned else now()
        values = {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root, "at": at}
        await conn.execute(_SEE, {**values, "note": asked.note})
    return signature_line(witness, asked.text, int(at.astimezone(UTC).timestamp()))


def signature_line(witness: Witness, checkpoint: str, seconds: int) -> str:
    """Cosign the text of a checkpoint at a time (C2SP tlog-cosignature, Ed25519); the line has no newline."""
    signed = witness.key.sign(cosigned_message(checkpoint, seconds))
    data = witness.verifier.id + seconds.to_bytes(_TIME_BYTES, "big") + signed
    return f"— {witness.name} {base64.b64encode(data).decode()}"


def read_request(request: bytes) -> Request:
    """Read an add-checkpoint request; raises :class:`Malformed` for anything that is not exactly the format."""
    head, blank, rest = request.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    old_size = _OLD_SIZE.match(first)
    if not blank or old_size is None or len(lines) > _LONGEST_PROOF:
        raise Malformed("old size, proof or empty line")
    proof = tuple(_hash(line) for line in lines)
    try:
        note = rest.decode()
        text, signatures = parse_note(note)
        return Request(int(old_size[1]), proof, note, text, signatures, parse_checkpoint(text))
    except UnicodeDecodeError as error:
        raise Malformed("not UTF-8") from error
    except NotValid as error:
        raise Malformed(error.kind) from error


async def add_log(conn: AsyncConnection, verifier_key: str, at: datetime) -> str:
    """Witness a log from now on; return its origin, which is its key's name. Adding it again changes nothing.

    Raises :class:`~audit.verify.NotValid` for what is no verifier key of a log, :class:`OtherKey` where its origin is
    known under another one.
    """
    key = parse_key(verifier_key)
    if key.kind != ED25519:
        raise NotValid("malformed", "the key of a witness, not of a log")
    canonical = format_key(key.name, key.kind, key.key)
    await conn.execute(_ADD, {"origin": key.name, "key": canonical, "root": EMPTY_ROOT, "at": at})
    if (await conn.execute(_KEY, {"origin": key.name})).scalar_one() != canonical:
        raise OtherKey(key.name)
    return key.name


async def witnessed_logs(conn: AsyncConnection) -> list[WitnessedLog]:
    """Return the logs we witness, by origin."""
    rows = await conn.execute(_LOGS)
    return [WitnessedLog(row.origin, row.verifier_key, row.size, row.at if row.note else None) for row in rows]


def _hash(line: bytes) -> bytes:
    """Read one hash; base64 that is exactly what encoding it gives."""
    try:
        value = base64.b64decode(line, validate=True)
    except binascii.Error as error:
        raise Malformed("a hash is not base64") from error
    if len(value) != HASH_BYTES or base64.b64encode(value) != line:
        raise Malformed("a hash is not 32 bytes in canonical base64")
    return value


def _check_signed(key: Key, asked: Request) -> None:
    """Signatures of unknown keys are ignored; a false one under the log's name and id is no signature of the log."""
    ours = [data for name, data in asked.signatures if (name, data[:_ID_BYTES]) == (key.name, key.id)]
    try:
        for data in ours:
            check_signature(key, asked.text, data)
    except NotValid as error:
        raise BadSignature("the log's signature does not verify") from error
    if not ours:
        raise BadSignature("the log did not sign")


def _check_continues(seen: Row[tuple[int, bytes, datetime]], asked: Request) -> None:
    """Hold a checkpoint to what was cosigned last (size, root); an empty log is known to all from the start."""
    size, root, checkpoint = seen.size, bytes(seen.root), asked.checkpoint
    if asked.old_size != size:
        raise Conflict(size)
    if checkpoint.size == size and checkpoint.root != root:
        raise Conflict(size)
    if size == 0 < checkpoint.size:
        # Nothing is proved from an empty log, so there is nothing to send.
        holds = not asked.proof
    else:
        holds = verify_consistency(size, checkpoint.size, root, checkpoint.root, asked.proof)
    if not holds:
        raise BadProof("what was cosigned last is not a prefix")
