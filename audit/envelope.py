"""Turns an entry into the bytes that are hashed (nothing personal) and the bytes that can be made unreadable.

The envelope is the leaf of the tree and stays in clear for ever. It commits to each group of detail by a salted hash
and to the encrypted detail as a whole, so that destroying a subject's key erases the person and breaks no proof.
"""

from __future__ import annotations

import os
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from audit.errors import LogBroken
from audit.models import Entry
from audit.terms import terms_of
from audit.verify import HASH_BYTES, leaf_hash
from schemas.canonical import canonical_json, sha256
from schemas.crypto import decrypt, encrypt

VERSION = 2
GENESIS = bytes(HASH_BYTES)
_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """What the log knows of a subject: a random pseudonym and the data key of the details."""

    pseudonym: UUID
    key: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """An entry whose detail is encrypted and committed to; only its place in a writer's chain is missing.

    ``opening`` is its envelope without that place, which comes last: canonical JSON but for ``,"writer":{…}}``.
    """

    entry: Entry
    pseudonym: UUID | None
    detail: bytes
    terms: list[str]
    opening: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """The end of a writer's chain: slot, how many entries it wrote, and the leaf hash of the last of them."""

    slot: int
    counter: int
    leaf: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """An entry ready to be stored: its place in the writer's chain, and the envelope exactly as hashed."""

    sealed: Sealed
    link: Link
    envelope: bytes


def seal(entry: Entry, key: SubjectKey, recorder: str, log_key: bytes) -> Sealed:
    """Commit to each group (SHA-256 of 16 salt bytes and its canonical JSON) and encrypt the detail.

    The detail is the canonical JSON of ``{group: {"salt": …, "value": …}}``; ``log_key`` is the log's own data key,
    under which users' names become search terms. Raises :class:`TypeError` if a group
    holds a floating-point number or something JSON cannot hold.
    """
    names = sorted(entry.groups)
    salts = os.urandom(_SALT_BYTES * len(names))
    commitments, parts = {}, []
    for place, name in enumerate(names):
        salt = salts[place * _SALT_BYTES : (place + 1) * _SALT_BYTES]
        value = canonical_json(entry.groups[name])
        commitments[name] = _b64(sha256(salt + value))
        # Put together by hand: the same bytes as canonical_json would give, without walking the values twice.
        parts.append(b'"%b":{"salt":"%b","value":%b}' % (name.encode(), b2a_base64(salt, newline=False), value))
    detail = encrypt(key.key, b"{" + b",".join(parts) + b"}", _context(entry.id))
    pseudonym = None if entry.subject is None else key.pseudonym
    terms = terms_of(entry, log_key)
    body = {
        "version": VERSION,
        "id": str(entry.id),
        "at": f"{entry.at.replace(tzinfo=None).isoformat(timespec='microseconds')}Z",
        "type": entry.type,
        "outcome": entry.outcome,
        "recorder": recorder,
        "policy_version": entry.policy_version,
        "correlation": entry.correlation,
        "subject": None if pseudonym is None else str(pseudonym),
        "commitments": commitments,
        "detail_sha256": _b64(sha256(detail)),
        "terms_sha256": terms_digest(terms),
    }
    if entry.statement is not None:
        body["statement"] = dict(entry.statement)
    return Sealed(entry, pseudonym, detail, terms, canonical_json(body)[:-1])


def finish(sealed: Sealed, last: Link) -> Row:
    """Put a sealed entry behind the last one of a writer and hash it (RFC 6962 leaf).

    ``audit.stage`` in the database does the same for an entry in somebody's transaction (:mod:`audit.tables`).
    """
    counter = last.counter + 1
    place = b',"writer":{"counter":%d,"previous":"%b","slot":%d}}' % (counter, _b64(last.leaf).encode(), last.slot)
    envelope = sealed.opening + place
    return Row(sealed, Link(last.slot, counter, leaf_hash(envelope)), envelope)


def terms_digest(terms: Sequence[str]) -> str:
    """Return what an envelope holds of its entry's search terms."""
    return _b64(sha256("\n".join(terms).encode()))


def read_envelope(envelope: bytes) -> dict[str, Any]:
    """Parse envelope bytes; raise :class:`ValueError` if they are not a JSON object."""
    value = orjson.loads(envelope)
    if not isinstance(value, dict):
        raise ValueError("envelope is not an object")
    return value


def open_groups(envelope: Mapping[str, Any], detail: bytes, key: bytes) -> dict[str, dict[str, Any]]:
    """Decrypt a detail and return its groups, each with its ``salt`` (base64) and ``value``, as committed to.

    Raises :class:`~schemas.errors.DecryptionError` if it does not open, :class:`LogBroken` if a group is not what
    was committed to.
    """
    groups: dict[str, dict[str, Any]] = orjson.loads(decrypt(key, detail, _context(UUID(envelope["id"]))))
    for name, group in groups.items():
        committed = _b64(sha256(a2b_base64(group["salt"]) + canonical_json(group["value"])))
        if envelope["commitments"].get(name) != committed:
            raise LogBroken("a detail is not what its envelope commits to")
    return groups


def open_detail(envelope: Mapping[str, Any], detail: bytes, key: bytes) -> dict[str, Any]:
    """Decrypt a detail and return its groups without their salts; raises as :func:`open_groups`."""
    return {name: group["value"] for name, group in open_groups(envelope, detail, key).items()}


def _context(entry_id: UUID) -> bytes:
    return b"audit.entry.detail" + entry_id.bytes


def _b64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()
