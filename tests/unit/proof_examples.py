"""A small log in memory, and what it gives away: checkpoints with cosignatures, proofs, exports with their proof."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import Signer, sign_checkpoint
from audit.envelope import GENESIS, Link, SubjectKey, finish, seal
from audit.merkle import Span, consistency_spans, inclusion_spans
from audit.models import Entry
from audit.verify import COSIGNATURE, Key, Policy, cosigned_message, format_key, leaf_hash, make_key, node_hash
from schemas.canonical import canonical_json
from schemas.crypto import decrypt

YEAR = 2026
_ALL_YEARS = Signer("siis.example/audit", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
SIGNER, NEXT = _ALL_YEARS.of(YEAR), _ALL_YEARS.of(YEAR + 1)
WITNESSES = {f"w{number}": Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2, 3)}
TIME = 1_790_000_000
_KEY = bytes(32)


def witness_key(name: str) -> Key:
    return make_key(f"witness.example/{name}", COSIGNATURE, WITNESSES[name].public_key().public_bytes_raw())


POLICY = Policy({SIGNER.origin: SIGNER.verifier}, {name: witness_key(name) for name in WITNESSES})


def vkey(key: Key) -> str:
    return format_key(key.name, key.kind, key.key)


def policy_text(quorum: str = "none", signer: Signer = SIGNER) -> str:
    witnesses = "".join(f"witness {name} {vkey(witness_key(name))}\n" for name in WITNESSES)
    return f"log {vkey(signer.verifier)}\n{witnesses}group two 2 {' '.join(WITNESSES)}\nquorum {quorum}\n"


def cosigned(note: str, *names: str, time: int = TIME) -> str:
    """Put the cosignatures of witnesses behind a note."""
    text = note.partition("\n\n")[0] + "\n"
    for name in names:
        key = witness_key(name)
        signature = key.id + time.to_bytes(8, "big") + WITNESSES[name].sign(cosigned_message(text, time))
        note += f"— {key.name} {base64.b64encode(signature).decode()}\n"
    return note


@dataclass
class SmallLog:
    """Envelopes and groups (with salts) in the order of the log."""

    signer: Signer = SIGNER
    envelopes: list[bytes] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    roots: dict[Span, bytes] = field(default_factory=dict)

    def add(self, type_: str = "disclosure.permitted", **groups: dict[str, Any]) -> int:
        """Write an entry; return its place."""
        place = len(self.envelopes)
        entry = Entry(
            id=UUID(int=0x019A0000_0000_7000_8000_000000000000 + place),
            at=datetime(2026, 10, 13, 14, 0, place % 60, tzinfo=UTC),
            type=type_,
            outcome="done",
            policy_version="2026.1",
            groups=groups,
        )
        sealed = seal(entry, SubjectKey(UUID(int=1), _KEY), "gateway", _KEY)
        row = finish(sealed, Link(0, place, self.leaf(place - 1) if place else GENESIS))
        self.envelopes.append(row.envelope)
        self.groups.append(json.loads(decrypt(_KEY, sealed.detail, b"audit.entry.detail" + entry.id.bytes)))
        return place

    def leaf(self, index: int) -> bytes:
        return leaf_hash(self.envelopes[index])

    def note(self, size: int | None = None) -> str:
        covered = len(self.envelopes) if size is None else size
        return sign_checkpoint(self.signer, covered, self.root((0, covered)))

    def root(self, span: Span) -> bytes:
        """Return the root over a span of leaves; what was worked out once is remembered."""
        start, end = span
        if end - start < 2:
            return self.leaf(start)
        if span not in self.roots:
            middle = start + (1 << (end - start - 1).bit_length() - 1)
            self.roots[span] = node_hash(self.root((start, middle)), self.root((middle, end)))
        return self.roots[span]

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        return [self.root(span) for span in inclusion_spans(index, len(self.envelopes) if size is None else size)]

    def consistency(self, old: int, size: int) -> list[bytes]:
        return [self.root(span) for span in consistency_spans(old, size)]

    def told(self, index: int, size: int | None = None) -> dict[str, Any]:
        """What a proof file tells of an entry."""
        return {
            "log": int(self.signer.origin.rpartition("/")[2]),
            "index": index,
            "envelope": self.envelopes[index].decode(),
            "groups": self.groups[index],
            "proof": [base64.b64encode(node).decode() for node in self.inclusion(index, size)],
        }


def a_log(entries: int = 7) -> SmallLog:
    log = SmallLog()
    for number in range(entries):
        log.add(
            actor={"institution": "MDS", "user": f"operadora-{number}"},
            why={"purpose": "protección", "note": 'línea\n"uno"\t\x07\x7f €😀'},
        )
    return log


@dataclass
class Export:
    """An export and its proof as they lie in a folder; lines and records can be changed before :meth:`write`."""

    data: bytes
    lines: list[dict[str, Any]]

    def write(self, folder: Path, name: str = "export.jsonl") -> Path:
        path = folder / name
        path.write_bytes(self.data)
        proof = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in self.lines)
        path.with_name(f"{name}.proof").write_bytes(proof)
        return path


def an_export(
    log: SmallLog,
    kind: str,
    data: bytes,
    records: Sequence[bytes],
    *,
    witnesses: Sequence[str] = (),
    quorum: str = "none",
    newest_first: bool = False,
    **more: Any,
) -> Export:
    """Export the first entries of a log, one for each record, and write the export into the log.

    ``more`` is what its entry says besides.
    """
    size = len(log.envelopes)
    places = range(len(records))
    told = [log.told(index, size) for index in (reversed(places) if newest_first else places)]
    note = cosigned(log.note(), *witnesses)
    head = {
        "format": "siis-export-proof/1",
        "kind": kind,
        "checkpoints": {str(YEAR): note},
        "policy": policy_text(quorum, log.signer),
    }
    lines = [
        {**entry, "record": hashlib.sha256(record).hexdigest()} for entry, record in zip(told, records, strict=True)
    ]
    digest = hashlib.sha256(data).hexdigest()
    own = log.add(
        "log.exported",
        actor={"institution": "UTGS", "user": "auditora"},
        what={"sha256": digest, "records": len(records), "format": kind, **more},
    )
    # Only what the export says of itself is shown of its own entry.
    itself = {**log.told(own), "groups": {"what": log.groups[own]["what"]}}
    last = {"export": itself, "checkpoint": cosigned(log.note(), *witnesses), "records": len(records), "sha256": digest}
    return Export(data, [head, *lines, last])


def json_lines(log: SmallLog) -> list[bytes]:
    """Write each entry as a line."""
    return [
        canonical_json({"id": json.loads(envelope)["id"], "n": number}) for number, envelope in enumerate(log.envelopes)
    ]


def jsonl_export(entries: int = 7, **how: Any) -> Export:
    log = a_log(entries)
    records = json_lines(log)
    return an_export(log, "jsonl", b"".join(record + b"\n" for record in records), records, **how)
