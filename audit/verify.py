"""Decides whether what a log gives away holds: notes, checkpoints, cosignatures, policies, proofs and exports.

One file with nothing but the standard library and `cryptography`, readable in one sitting: an auditor carries it away
and runs it alone, `python verify.py --help`. Formats: C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-policy,
tlog-proof; RFC 9162 for the tree. Whatever it is given ends in a verdict, never in an accident.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import errno
import functools
import hashlib
import itertools
import json
import re
import shutil
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar
from xml.parsers import expat

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

#: Signature types of C2SP signed-note: the log's own signature, and a witness's.
ED25519, COSIGNATURE = 1, 4

_ID_BYTES, _TIME_BYTES = 4, 8
_NOTE_LIMIT, _SIGNATURES_LIMIT = 1_000_000, 100
_LONGEST_PROOF = 63
_LAST_SECOND = (1 << 63) - 1
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})\Z")
_NO_TEXT = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_NAME = re.compile(r"[^\s+]+\Z")
_PROOF_HEADER = "c2sp.org/tlog-proof@v1"

# What is read whole is small; the rest is read in pieces, so that no file can fill the memory, nor a ZIP the disk.
_LINE_LIMIT = 4_000_000
_STRINGS_LIMIT, _CELLS_LIMIT, _DEPTH_LIMIT = 100_000_000, 256, 32
_ROWS_LIMIT = 1_048_576
_ZIP_LIMIT, _MEMBERS_LIMIT = 16_000_000_000, 10_000
_SWELL_FROM, _SWELL_LIMIT = 100_000_000, 200
_CHUNK = 65_536
_LONGEST_NUMBER = 20
# What the libraries raise over a damaged ZIP or workbook.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    expat.ExpatError,
    struct.error,
    EOFError,
    LookupError,
    RuntimeError,
    OverflowError,
    UnicodeError,
)

_T = TypeVar("_T")


def _(text: str) -> str:
    """Mark a text for translation; alone, this file speaks Spanish."""
    return text


class NotValid(ValueError):
    """What was given does not hold. ``what`` is a sentence for a person, without anything of the content.

    ``kind`` is changed, missing, reordered, duplicated, foreign, signature, not_a_prefix or malformed. Where: ``file``
    in a ZIP, ``record`` of an export (or line of a policy) from 1, ``log`` and ``index`` of an entry.
    """

    def __init__(
        self,
        kind: str,
        what: str,
        *,
        file: str | None = None,
        record: int | None = None,
        log: str | None = None,
        index: int | None = None,
    ) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind, self.what, self.file, self.record, self.log, self.index = kind, what, file, record, log, index


@dataclass(frozen=True, slots=True)
class Key:
    """A public key with the name it signs under; ``id`` are the four bytes that stand for both in a note."""

    name: str
    kind: int
    key: bytes
    id: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: which log, how many leaves, and the root over them."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """Whose signatures count: logs by origin, witnesses by name, and how many of them are needed.

    ``groups`` are thresholds with their members, each group after those it names; ``quorum`` is a witness, a group or
    ``none``.
    """

    logs: Mapping[str, Key]
    witnesses: Mapping[str, Key] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    quorum: str = "none"

    def quorum_met(self, names: Collection[str]) -> bool:
        """Say whether the cosignatures of these witnesses are enough."""
        met = set(names) & self.witnesses.keys()
        for group, (threshold, members) in self.groups.items():
            if sum(member in met for member in members) >= threshold:
                met.add(group)
        return self.quorum == "none" or self.quorum in met


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint that its log signed, and the witnesses of the policy that cosigned it (seconds since 1970)."""

    checkpoint: Checkpoint
    witnesses: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A proof as read, nothing verified: index, inclusion proof, the note of a checkpoint, and extra data."""

    index: int
    hashes: tuple[bytes, ...]
    note: str
    extra: bytes | None


def leaf_hash(entry: bytes) -> bytes:
    """Return SHA-256(0x00 ‖ entry) (RFC 6962 clause 2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 ‖ left ‖ right) (RFC 6962 clause 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Say whether the leaf stands at ``index`` (from 0) of the tree of ``size`` leaves with this root.

    RFC 9162 clause 2.1.3.2. Any hash that is not 32 bytes, and any number out of range, is simply not valid.
    """
    if not 0 <= index < size or not _are_hashes(leaf_hash, root, *proof):
        return False
    node, last, current = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            current = node_hash(sibling, current)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and current == root


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Say whether the tree of ``old_size`` leaves is a prefix of the tree of ``new_size`` leaves.

    RFC 9162 clause 2.1.4.2. Equal sizes need equal roots and an empty proof. Nothing can be proved from an empty
    tree to a larger one, so that is not valid either.
    """
    if not 0 <= old_size <= new_size or not _are_hashes(old_root, new_root, *proof):
        return False
    if old_size == new_size:
        return not proof and old_root == new_root and (old_size > 0 or old_root == EMPTY_ROOT)
    if old_size == 0 or not proof:
        return False
    # An old tree that is a perfect subtree of the new one is its own first node; the proof leaves it out.
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


def _are_hashes(*values: bytes) -> bool:
    return all(isinstance(value, bytes) and len(value) == HASH_BYTES for value in values)


def parse_key(text: str) -> Key:
    """Read a verifier key, name+hexadecimal id+base64 of type and key (C2SP signed-note); raises NotValid."""
    name, plus, rest = text.partition("+")
    hexadecimal, second, encoded = rest.partition("+")
    if not plus or not second or not _NAME.match(name) or not re.match(r"[0-9a-fA-F]{8}\Z", hexadecimal):
        raise NotValid("malformed", _("no es una clave de verificación"))
    data = _base64(encoded)
    if data[:1] not in (bytes([ED25519]), bytes([COSIGNATURE])) or len(data) != 1 + HASH_BYTES:
        raise NotValid("malformed", _("la clave de verificación no es Ed25519"))
    key = make_key(name, data[0], data[1:])
    if key.id.hex() != hexadecimal.lower():
        raise NotValid("malformed", _("el identificador de la clave no es el suyo"))
    return key


def make_key(name: str, kind: int, key: bytes) -> Key:
    """Put a key of 32 bytes under a name: id = SHA-256(name ‖ newline ‖ type ‖ key), cut (C2SP signed-note)."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape") + b"\n" + bytes([kind]) + key).digest()
    return Key(name, kind, key, digest[:_ID_BYTES])


def format_key(name: str, kind: int, key: bytes) -> str:
    """Write a verifier key as :func:`parse_key` reads it."""
    return f"{name}+{make_key(name, kind, key).id.hex()}+{_encoded(bytes([kind]) + key)}"


def parse_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Cut a note into its text and its signatures, as (name, id ‖ signature) (C2SP signed-note).

    Verifies nothing. Raises :class:`NotValid` for anything that is not exactly the format.
    """
    if len(note) > _NOTE_LIMIT:
        raise NotValid("malformed", _("la nota es demasiado larga"))
    if _NO_TEXT.search(note):
        raise NotValid("malformed", _("la nota no es texto en UTF-8"))
    body, blank, tail = note.rpartition("\n\n")
    lines = tail[:-1].split("\n")
    if not blank or not tail.endswith("\n") or len(lines) > _SIGNATURES_LIMIT:
        raise NotValid("malformed", _("la nota no termina en firmas"))
    signatures = []
    for line in lines:
        match = _SIGNATURE_LINE.match(line)
        data = _base64(match[2]) if match else b""
        if match is None or len(data) <= _ID_BYTES:
            raise NotValid("malformed", _("una línea de firma está mal escrita"))
        signatures.append((match[1], data))
    return body + "\n", signatures


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a checkpoint, signatures apart; extension lines are allowed and not looked at.

    Raises :class:`NotValid` for anything that is not exactly the format (C2SP tlog-checkpoint).
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise NotValid("malformed", _("un punto de control tiene tres líneas"))
    return Checkpoint(lines[0], _number(lines[1]), _hash(lines[2]))


def check_signature(key: Key, text: str, signature: bytes) -> None:
    """Raise :class:`NotValid` unless ``signature`` (id ‖ 64 bytes) is this log key's over the text of a note."""
    _verify(key, signature[_ID_BYTES:], text.encode())


def check_cosignature(key: Key, text: str, signature: bytes) -> int:
    """Return when (seconds since 1970) a witness cosigned; ``signature`` is id ‖ time ‖ 64 bytes.

    Raises :class:`NotValid` unless it is this witness's over the text of a checkpoint (C2SP tlog-cosignature).
    """
    time, rest = signature[_ID_BYTES : _ID_BYTES + _TIME_BYTES], signature[_ID_BYTES + _TIME_BYTES :]
    seconds = int.from_bytes(time, "big")
    if len(time) != _TIME_BYTES or seconds > _LAST_SECOND:
        raise NotValid("signature", _("la firma del testigo está mal escrita"))
    _verify(key, rest, cosigned_message(text, seconds))
    return seconds


def cosigned_message(text: str, seconds: int) -> bytes:
    """Return what a witness signs over the text of a checkpoint at a moment (C2SP tlog-cosignature, Ed25519)."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def parse_policy(text: str) -> Policy:
    """Read whose signatures count (C2SP tlog-policy); raises :class:`NotValid` for anything else.

    Names are bytes to the format: decode a file as UTF-8 with ``surrogateescape``. Only Ed25519 keys, and one key for
    each origin.
    """
    if len(text) > _NOTE_LIMIT or not text.endswith("\n") or re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text):
        raise NotValid("malformed", _("la política no es un texto de líneas"))
    reader = _PolicyReader()
    for number, line in enumerate(text[:-1].split("\n"), 1):
        words = re.split(r"[ \t]+", line.strip(" \t"))
        if words[0].startswith("#") or words == [""]:
            continue
        try:
            reader.take(words)
        except NotValid as error:
            raise NotValid(error.kind, error.what, record=number) from error
    if reader.quorum is None:
        raise NotValid("malformed", _("la política no dice qué testigos bastan"))
    return Policy(reader.logs, reader.witnesses, reader.groups, reader.quorum)


class _PolicyReader:
    """A policy on its way, line by line."""

    def __init__(self) -> None:
        self.logs: dict[str, Key] = {}
        self.witnesses: dict[str, Key] = {}
        self.groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.quorum: str | None = None
        # Witnesses and groups, those of them in a group already, and keys: a long policy is read line by line once.
        self._names: set[str] = set()
        self._members: set[str] = set()
        self._keys: set[tuple[int, bytes]] = set()

    def take(self, words: list[str]) -> None:
        match words:
            case ["log", text] | ["log", text, _]:
                key = self._key(text, ED25519)
                self._unused(key.name, self.logs)
                self.logs[key.name] = key
            case ["witness", name, text] | ["witness", name, text, _]:
                self._unused(name, self._names)
                self.witnesses[name] = self._key(text, COSIGNATURE)
                self._names.add(name)
            case ["group", name, threshold, *members] if members:
                self._unused(name, self._names)
                self.groups[name] = (self._threshold(threshold, members), tuple(members))
                self._names.add(name)
            case ["quorum", name] if self.quorum is None and (name == "none" or name in self._names):
                self.quorum = name
            case _:
                raise NotValid("malformed", _("una línea de la política está mal escrita"))

    def _key(self, text: str, kind: int) -> Key:
        key = parse_key(text)
        if key.kind != kind:
            raise NotValid("malformed", _("la clave es de otro tipo de firma"))
        if (kind, key.key) in self._keys:
            raise NotValid("malformed", _("la misma clave está dos veces en la política"))
        self._keys.add((kind, key.key))
        return key

    def _unused(self, name: str, names: Collection[str]) -> None:
        if name in names or name == "none":
            raise NotValid("malformed", _("el mismo nombre está dos veces en la política"))

    def _threshold(self, word: str, members: list[str]) -> int:
        wanted = set(members)
        if len(wanted) != len(members) or not wanted <= self._names or wanted & self._members:
            raise NotValid("malformed", _("un grupo nombra a quien no está antes o ya está en un grupo"))
        self._members.update(members)
        threshold = {"any": 1, "all": len(members)}.get(word) or _number(word)
        if not 1 <= threshold <= len(members):
            raise NotValid("malformed", _("un grupo pide más miembros de los que tiene"))
        return threshold


def open_checkpoint(note: str, policy: Policy) -> Signed:
    """Return the checkpoint in a note that a log of the policy signed and that its quorum cosigned.

    Signatures of unknown keys are ignored; a false one of a known key condemns the note. Raises :class:`NotValid`.
    """
    text, signatures = parse_note(note)
    checkpoint = parse_checkpoint(text)
    known = {(key.name, key.id): None for key in policy.logs.values()}
    cosigners = {(key.name, key.id): name for name, key in policy.witnesses.items()}
    log = policy.logs.get(checkpoint.origin)
    if log is None:
        raise NotValid("foreign", _("el punto de control es de otro registro"))
    signed = False
    witnesses: dict[str, int] = {}
    for name, data in signatures:
        place = (name, data[:_ID_BYTES])
        if place in cosigners:
            witness = cosigners[place]
            seconds = check_cosignature(policy.witnesses[witness], text, data)
            witnesses[witness] = max(seconds, witnesses.get(witness, 0))
        elif place in known:
            check_signature(policy.logs[name], text, data)
            signed = signed or name == log.name
    if not signed:
        raise NotValid("signature", _("el punto de control no está firmado por su registro"))
    if not policy.quorum_met(witnesses):
        raise NotValid("signature", _("faltan firmas de testigos"))
    return Signed(checkpoint, witnesses)


def open_signed(note: str, key: Key) -> Checkpoint:
    """Return the checkpoint in a note that the log of this key signed, whoever else did; raises NotValid."""
    return open_checkpoint(note, Policy({key.name: key})).checkpoint


def parse_proof(text: str) -> TlogProof:
    """Read a proof (C2SP tlog-proof) without verifying anything; raises :class:`NotValid`."""
    head, blank, note = text.partition("\n\n")
    lines = head.split("\n")
    if len(text) > 2 * _NOTE_LIMIT or not blank or lines.pop(0) != _PROOF_HEADER:
        raise NotValid("malformed", _("no es una prueba de C2SP tlog-proof"))
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = _base64(lines.pop(0).removeprefix("extra "))
    if not lines or not lines[0].startswith("index ") or len(lines) > 1 + _LONGEST_PROOF:
        raise NotValid("malformed", _("la prueba no dice el lugar de la entrada"))
    index = _number(lines.pop(0).removeprefix("index "))
    return TlogProof(index, tuple(_hash(line) for line in lines), note, extra)


def format_proof(index: int, hashes: Sequence[bytes], note: str) -> str:
    """Write a proof: the place of an entry, its inclusion proof, and the note of the checkpoint (C2SP tlog-proof)."""
    lines = [_PROOF_HEADER, f"index {index}", *map(_encoded, hashes)]
    return "\n".join(lines) + f"\n\n{note}"


def check_proof(text: str, leaf_hash: bytes, policy: Policy) -> Signed:
    """Verify that an entry is in a log of the policy; return the checkpoint that covers it. Raises NotValid."""
    proof = parse_proof(text)
    signed = open_checkpoint(proof.note, policy)
    checkpoint = signed.checkpoint
    if proof.index >= checkpoint.size:
        raise NotValid("missing", _("el punto de control no llega hasta la entrada"), index=proof.index)
    if not verify_inclusion(leaf_hash, proof.index, checkpoint.size, proof.hashes, checkpoint.root):
        raise NotValid("changed", _("la entrada y su camino no dan la raíz firmada"), index=proof.index)
    return signed


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What a valid export holds; ``place`` is where its own entry stands: (origin, index).

    ``files`` are the other files that this entry fixes, with their SHA-256.
    ``bare`` records come without their detail: erased, or not shown. ``trusted`` is false where the keys came with the
    export itself.
    """

    kind: str
    records: int
    bare: int
    sha256: str
    heads: Mapping[str, Signed]
    place: tuple[str, int]
    trusted: bool
    files: Mapping[str, str]


def check_checkpoints(old: str, new: str, policy: Policy, proof: Sequence[bytes] | None = None) -> bool:
    """Say whether the older checkpoint is proved a prefix of the newer one; False where only a proof could tell.

    Without a proof, equal sizes are judged and contradictions found. Raises :class:`NotValid`.
    """
    before, after = open_checkpoint(old, policy).checkpoint, open_checkpoint(new, policy).checkpoint
    if before.origin != after.origin:
        raise NotValid("foreign", _("los dos puntos de control son de registros distintos"))
    if before.size > after.size:
        raise NotValid("not_a_prefix", _("el punto de control nuevo es más corto que el viejo"), index=after.size)
    if before.size == after.size and before.root != after.root:
        raise NotValid("not_a_prefix", _("dos raíces firmadas para el mismo tamaño: el registro muestra dos caras"))
    if proof is None and before.size < after.size:
        return before.size == 0
    if before.size and not verify_consistency(before.size, after.size, before.root, after.root, proof or ()):
        raise NotValid("not_a_prefix", _("la prueba no muestra que el registro solo creció"))
    return True


def check_export(data: Path, proof: Path | None = None, policy: Policy | None = None) -> ExportReport:
    """Verify an export against its proof (siis-export-proof/1, docs/reference/proofs.md); raises NotValid, OSError.

    ``proof`` is the file with ``.proof`` behind the name of ``data`` unless given. Without ``policy`` the keys are
    those that the proof brings along: that shows damage, but no forger. Memory does not grow with the export.
    """
    path = data.with_name(f"{data.name}.proof") if proof is None else proof
    lines = _lines(path)
    head = _shaped(_object(next(lines, b"")), "format", "kind", "checkpoints", "policy")
    if head.get("format") != "siis-export-proof/1":
        raise NotValid("malformed", _("no es una prueba de exportación"))
    kind = _field(head, "kind", str)
    keys = policy or parse_policy(_field(head, "policy", str))
    notes = _field(head, "checkpoints", dict)
    heads = {log: _head(log, _text(note), keys) for log, note in notes.items()}
    records = _records(data, kind)
    count, bare, places = 0, 0, _Places()
    for count, line in enumerate(lines):
        try:
            told = _object(line)
            if "export" in told:
                break
            record = next(records, None)
            without, agree = _check_record(told, heads, places, record)
            if agree and record is not None and kind == "jsonl":
                _check_told(record, told)
        except NotValid as error:
            error.record = count + 1
            raise
        if not agree:
            raise _difference(data, kind, path, count + 1)
        bare += without
    else:
        raise NotValid("missing", _("la prueba está cortada: falta su última línea"))
    if next(records, None) is not None:
        raise _difference(data, kind, path, count + 1)
    if next(lines, None) is not None:
        raise NotValid("malformed", _("hay más después de la última línea de la prueba"))
    digest = _digest_of(data)
    place, said = _check_last(told, keys, heads, {"sha256": digest, "records": count, "format": kind})
    origins = {place[0], *(signed.checkpoint.origin for signed in heads.values())}
    if len({origin.rpartition("/")[0] for origin in origins}) > 1:
        raise NotValid("foreign", _("los puntos de control son de registros distintos"))
    files = _field(said, "files", dict) if "files" in said else {}
    return ExportReport(kind, count, bare, digest, heads, place, policy is not None, files)


def _head(log: str, note: str, policy: Policy) -> Signed:
    signed = open_checkpoint(note, policy)
    if signed.checkpoint.origin.rpartition("/")[2] != log:
        raise NotValid("foreign", _("el punto de control es de otro registro"), log=log)
    return signed


def _check_record(
    told: dict[str, Any], heads: Mapping[str, Signed], places: _Places, record: bytes | None
) -> tuple[bool, bool]:
    """Verify one line of a proof; return whether it lacks the detail, and whether the record is the expected one."""
    rest = {name: value for name, value in told.items() if name != "record"}
    envelope, groups = _check_entry(rest, heads)
    places.take(_field(told, "log", int), _field(told, "index", int))
    if record is None or _digest(record) != _field(told, "record", str):
        return False, False
    # The proof ties the record to an entry, and this ties the entry to the record.
    if _field(envelope, "id", str).encode() not in record:
        raise NotValid("foreign", _("la fila no es de la entrada que la prueba"))
    return bool(envelope.get("commitments")) and not groups, True


def _check_told(record: bytes, told: dict[str, Any]) -> None:
    """Hold what a row of JSON lines says of its entry to what is proved of it; its SHA-256 is the exporter's word."""
    row, text, groups = _object(record), _field(told, "envelope", str).encode(), told.get("groups")
    proved = {
        "log": told["log"],
        "index": told["index"],
        "leaf_hash": leaf_hash(text).hex(),
        "envelope": _object(text),
        "detail": None if groups is None else {name: group["value"] for name, group in groups.items()},
        "erased": groups is None,
    }
    if any(_canonical(row[name]) != _canonical(value) for name, value in proved.items() if name in row):
        raise NotValid("changed", _("la fila no dice lo que su entrada"), log=str(told["log"]), index=told["index"])


def _check_last(
    told: dict[str, Any], policy: Policy, heads: Mapping[str, Signed], facts: Mapping[str, Any]
) -> tuple[tuple[str, int], dict[str, Any]]:
    """Verify the export's own entry, which says what was exported; return where it stands, and what it says."""
    own = _field(_shaped(told, "export", "checkpoint", "records", "sha256"), "export", dict)
    log, index = str(_field(own, "log", int)), _field(own, "index", int)
    signed = _head(log, _field(told, "checkpoint", str), policy)
    other = heads.get(log, signed).checkpoint
    if other.size == signed.checkpoint.size and other.root != signed.checkpoint.root:
        raise NotValid("not_a_prefix", _("dos raíces firmadas para el mismo tamaño: el registro muestra dos caras"))
    envelope, groups = _check_entry(own, {log: signed})
    if envelope.get("type") not in ("log.exported", "log.bundled"):
        raise NotValid("foreign", _("la última entrada no es la de una exportación"), log=log, index=index)
    said = groups.get("what", {})
    if any(said.get(name) != value for name, value in facts.items()):
        raise NotValid("changed", _("el archivo no es el que se exportó"), log=log, index=index)
    if (_field(told, "records", int), _field(told, "sha256", str)) != (facts["records"], facts["sha256"]):
        raise NotValid("changed", _("la última línea de la prueba no dice lo que se exportó"))
    return (signed.checkpoint.origin, index), said


class _Places:
    """The places that records came from: in the order of the log or against it, none twice."""

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None
        self._up: bool | None = None

    def take(self, log: int, index: int) -> None:
        place = (log, index)
        if self._last == place:
            raise NotValid("duplicated", _("la misma entrada está dos veces"), log=str(log), index=index)
        if self._last is not None:
            up = place > self._last
            if self._up not in (None, up):
                raise NotValid(
                    "reordered", _("las entradas no están en el orden del registro"), log=str(log), index=index
                )
            self._up = up
        self._last = place


def _check_entry(told: dict[str, Any], heads: Mapping[str, Signed]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the envelope of an entry and its groups, once the entry is proved to be in its log as shown."""
    _shaped({"groups": {}, **told}, "log", "index", "envelope", "groups", "proof")
    log, index = str(_field(told, "log", int)), _field(told, "index", int)
    head = heads.get(log)
    if head is None:
        raise NotValid("foreign", _("la entrada es de un registro sin punto de control"), log=log, index=index)
    text = _field(told, "envelope", str).encode()
    hashes = [_hash(_text(value)) for value in _field(told, "proof", list)]
    checkpoint = head.checkpoint
    if not 0 <= index < checkpoint.size:
        raise NotValid("missing", _("el punto de control no llega hasta la entrada"), log=log, index=index)
    if not verify_inclusion(leaf_hash(text), index, checkpoint.size, hashes, checkpoint.root):
        raise NotValid("changed", _("la entrada y su camino no dan la raíz firmada"), log=log, index=index)
    envelope = _object(text)
    groups = {}
    for name, group in (_field(told, "groups", dict) if "groups" in told else {}).items():
        salt, value = _base64(_field(group, "salt", str)), _field(_shaped(group, "salt", "value"), "value", dict)
        if _field(envelope, "commitments", dict).get(name) != _encoded(
            hashlib.sha256(salt + _canonical(value)).digest()
        ):
            raise NotValid("changed", _("un detalle no es el que la entrada fijó"), log=log, index=index)
        groups[name] = value
    return envelope, groups


def _difference(data: Path, kind: str, proof: Path, at: int) -> NotValid:
    """Name what is wrong where records and proof first differ: at place ``at``, from 1."""

    def wanted() -> Iterator[str]:
        with contextlib.suppress(NotValid):
            for line in itertools.islice(_lines(proof), 1, None):
                told = _object(line)
                if "export" in told:
                    return
                yield str(told.get("record"))

    def given() -> Iterator[str]:
        with contextlib.suppress(NotValid):
            yield from map(_digest, _records(data, kind))

    want = next(itertools.islice(wanted(), at - 1, None), None)
    have = next(itertools.islice(given(), at - 1, None), None)
    if have is None:
        return NotValid("missing", _("faltan filas al final"), record=at)
    if have in itertools.islice(wanted(), at - 1):
        return NotValid("duplicated", _("la fila ya estuvo antes"), record=at)
    if want is None:
        return NotValid("foreign", _("la fila no es de la exportación"), record=at)
    stands_later = want in given()
    if have in wanted():
        if stands_later:
            return NotValid("reordered", _("la fila está antes de su lugar"), record=at)
        return NotValid("missing", _("falta la fila de este lugar"), record=at)
    if stands_later:
        return NotValid("foreign", _("la fila no es de la exportación"), record=at)
    return NotValid("changed", _("la fila no es la que se exportó"), record=at)


def check_bundle(file: Path, policy: Policy | None = None) -> tuple[dict[str, ExportReport], list[str]]:
    """Verify every export in a ZIP and the files it fixes; return the reports by name, and the files nothing speaks of.

    Raises :class:`NotValid` with the name of the file, OSError.
    """
    reports: dict[str, ExportReport] = {}
    with _readable(_("el ZIP está dañado")), zipfile.ZipFile(file) as bundle:
        names = _sound(bundle)
        if any(re.search(r"\\|:|^/|(?:^|/)\.{0,2}(?:/|\Z)", name) for name in names):
            raise NotValid("malformed", _("un archivo del ZIP no está en su lugar"))
        known = set[str]()
        for name in (each for each in names if f"{each}.proof" in names):
            with tempfile.TemporaryDirectory() as folder, _named(name):
                data, proof = Path(folder, "data"), Path(folder, "proof")
                for member, path in ((name, data), (f"{name}.proof", proof)):
                    with bundle.open(member) as source, path.open("wb") as copy:
                        shutil.copyfileobj(source, copy)
                reports[name] = check_export(data, proof, policy)
            known |= {name, f"{name}.proof", *reports[name].files}
            for other, digest in reports[name].files.items():
                with _named(other):
                    _check_fixed(bundle, other, digest)
    if not reports:
        raise NotValid("missing", _("en el ZIP no hay un archivo con su prueba"))
    return reports, [each for each in names if each not in known]


def _check_fixed(bundle: zipfile.ZipFile, name: str, digest: str) -> None:
    if name not in bundle.namelist():
        raise NotValid("missing", _("falta un archivo del expediente"))
    with bundle.open(name) as source:
        if _digest_from(source) != digest:
            raise NotValid("changed", _("el archivo no es el que se puso en el expediente"))


@contextlib.contextmanager
def _named(file: str) -> Iterator[None]:
    """Add the name of the file that was looked at to what is not valid."""
    try:
        yield
    except NotValid as error:
        error.file = file
        raise


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    """Turn what a damaged ZIP or workbook makes the library raise into :class:`NotValid`."""
    try:
        yield
    except NotValid:
        raise
    except _DAMAGE as error:
        raise NotValid("malformed", what) from error
    except OSError as error:
        # A ZIP can send its reader to a place that no file has.
        if error.errno != errno.EINVAL:
            raise
        raise NotValid("malformed", what) from error


def _sound(archive: zipfile.ZipFile) -> list[str]:
    """Return the names in a ZIP after looking at what it says of their sizes: it must not swell beyond reason."""
    members, total = archive.infolist(), 0
    for member in members:
        total += member.file_size
        if member.file_size > _SWELL_FROM and member.file_size > _SWELL_LIMIT * member.compress_size:
            raise NotValid("malformed", _("el ZIP crece más de lo razonable"))
    names = [member.filename for member in members]
    # Folders that do not tell letters by their case would put one file in the place of another.
    if total > _ZIP_LIMIT or len(names) > _MEMBERS_LIMIT or len({name.casefold() for name in names}) != len(names):
        raise NotValid("malformed", _("el ZIP tiene demasiado, o un nombre dos veces"))
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise NotValid("malformed", _("el ZIP usa una compresión que no se lee"))
    return names


def _records(data: Path, kind: str) -> Iterator[bytes]:
    """Yield the records of an export as they are hashed: lines, or the texts of a row's cells between U+001F."""
    if kind == "xlsx":
        yield from itertools.islice(_rows(data), 1, None)
    elif kind in ("csv", "jsonl", "fhir", "ocsf"):
        yield from itertools.islice(_lines(data), 1 if kind == "csv" else 0, None)
    else:
        raise NotValid("malformed", _("la prueba es de un formato que no se conoce"))


def _rows(data: Path) -> Iterator[bytes]:
    """Yield the rows of the first sheet of a workbook, the heading first, all as wide as the heading."""
    with _readable(_("el libro está dañado")), zipfile.ZipFile(data) as book:
        strings: list[str] = []
        if "xl/sharedStrings.xml" in _sound(book):
            if book.getinfo("xl/sharedStrings.xml").file_size > _STRINGS_LIMIT:
                raise NotValid("malformed", _("el libro es demasiado grande"))
            with book.open("xl/sharedStrings.xml") as part:
                strings.extend(text for [(_column, _kind, text)] in _elements(part, "si"))
        width = 0
        with book.open("xl/worksheets/sheet1.xml") as part:
            for number, cells in enumerate(_elements(part, "row"), 1):
                if number > _ROWS_LIMIT:
                    raise NotValid("malformed", _("el libro es demasiado grande"))
                row = {column: strings[_number(text)] if kind == "s" else text for column, kind, text in cells}
                width = max(width, *row) if row else width
                yield "\x1f".join(row.get(column, "") for column in range(1, width + 1)).encode()


class _Part:
    """Takes in a part of a workbook: rows of cells, or shared strings, each as (column from 1, type, text)."""

    def __init__(self, wanted: str) -> None:
        self.done: list[list[tuple[int, str, str]]] = []
        self._wanted, self._cells, self._text = wanted, list[tuple[int, str, str]](), list[str]()
        self._column, self._type, self._inside, self._size, self._depth = 0, "", False, 0, 0

    def doctype(self, *_told: object) -> None:
        raise NotValid("malformed", _("el libro lleva un DOCTYPE"))

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        tag = name.rpartition(":")[2]
        self._depth += 1
        if self._depth > _DEPTH_LIMIT or len(self._cells) > _CELLS_LIMIT:
            raise NotValid("malformed", _("el libro es demasiado grande"))
        if tag == self._wanted:
            self._cells, self._text, self._column, self._size = [], [], 0, 0
        elif tag == "c":
            self._column = _column(attributes["r"]) if "r" in attributes else self._column + 1
            if self._column > _CELLS_LIMIT:
                raise NotValid("malformed", _("el libro es demasiado grande"))
            self._type, self._text = attributes.get("t", "n"), []
        self._inside = tag in ("t", "v")

    def end(self, name: str) -> None:
        tag = name.rpartition(":")[2]
        self._inside = False
        self._depth -= 1
        if tag == "c" or tag == self._wanted == "si":
            self._cells.append((self._column, self._type, "".join(self._text)))
        if tag == self._wanted:
            self.done.append(self._cells)

    def text(self, text: str) -> None:
        self._size += len(text)
        if self._size > _LINE_LIMIT:
            raise NotValid("malformed", _("una fila es demasiado larga"))
        if self._inside:
            self._text.append(text)


def _elements(part: IO[bytes], wanted: str) -> Iterator[list[tuple[int, str, str]]]:
    """Yield what :class:`_Part` finds, piece by piece."""
    taking = _Part(wanted)
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler, parser.CharacterDataHandler = taking.doctype, taking.text
    parser.StartElementHandler, parser.EndElementHandler = taking.start, taking.end
    fed, more = 0, True
    while more:
        chunk = part.read(_CHUNK)
        fed, more = fed + len(chunk), bool(chunk)
        parser.Parse(chunk, not more)
        if fed - parser.CurrentByteIndex > _LINE_LIMIT:
            raise NotValid("malformed", _("el libro es demasiado grande"))
        found, taking.done = taking.done, []
        yield from found


def _column(reference: str) -> int:
    match = re.match(r"[A-Z]{1,3}(?=[0-9]*\Z)", reference)
    if match is None:
        raise NotValid("malformed", _("una celda no dice dónde está"))
    return functools.reduce(lambda number, letter: number * 26 + ord(letter) - 64, match[0], 0)


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file without their newlines; none may be cut or longer than the limit."""
    with path.open("rb") as file:
        while line := file.readline(_LINE_LIMIT):
            if not line.endswith(b"\n"):
                raise NotValid("malformed", _("una línea está cortada o es demasiado larga"))
            yield line[:-1]


def _object(data: bytes) -> dict[str, Any]:
    """Read one JSON object strictly: UTF-8, no name twice, no floating-point number, no half character."""
    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=_once, parse_float=_refuse, parse_constant=_refuse, parse_int=_short)
        if "\\u" in text:
            _canonical(value)
    except (ValueError, RecursionError) as error:
        raise NotValid("malformed", _("no es JSON como debe ser")) from error
    if not isinstance(value, dict):
        raise NotValid("malformed", _("no es un objeto JSON"))
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _refuse(text: str) -> Any:
    raise ValueError("a number that is no integer")


def _short(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("an integer too large")
    return int(text)


def _field(value: Any, name: str, kind: type[_T]) -> _T:
    found = value.get(name) if isinstance(value, dict) else None
    if type(found) is not kind:
        raise NotValid("malformed", _("falta un campo o es de otro tipo"))
    return found


def _shaped(value: Any, *names: str) -> dict[str, Any]:
    """Refuse what has other names than these: a name that nobody reads is one that nobody verifies."""
    if not isinstance(value, dict) or value.keys() != set(names):
        raise NotValid("malformed", _("falta un campo o sobra uno"))
    return value


def _text(value: Any) -> str:
    return _field({"": value}, "", str)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _digest(record: bytes) -> str:
    return hashlib.sha256(record).hexdigest()


def _digest_of(file: Path) -> str:
    with file.open("rb") as source:
        return _digest_from(source)


def _digest_from(source: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := source.read(_CHUNK):
        digest.update(piece)
    return digest.hexdigest()


def _verify(key: Key, signature: bytes, message: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise NotValid("signature", _("una firma no vale")) from error


def _number(text: str) -> int:
    number = int(text) if _NUMBER.match(text) else _LAST_SECOND + 1
    if number > _LAST_SECOND:
        raise NotValid("malformed", _("un número está mal escrito"))
    return number


def _hash(text: str) -> bytes:
    value = _base64(text)
    if len(value) != HASH_BYTES:
        raise NotValid("malformed", _("un hash no tiene 32 bytes"))
    return value


def _base64(text: str) -> bytes:
    """Decode base64 that is exactly what encoding its value gives (RFC 4648 clause 3.5), so no byte can differ."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NotValid("malformed", _("no es base64")) from error
    if not data or _encoded(data) != text:
        raise NotValid("malformed", _("no es base64 canónico"))
    return data


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the arguments name and print the verdict; return 0 valid, 1 not valid, 2 unusable input."""
    parser = argparse.ArgumentParser(prog="verify.py", description=_("Verifica pruebas del registro, sin red."))
    commands = parser.add_subparsers(dest="command", required=True)
    for name, files in (
        ("proof", ["file"]),
        ("checkpoints", ["old", "new"]),
        ("export", ["file"]),
        ("bundle", ["file"]),
    ):
        command = commands.add_parser(name)
        for each in files:
            command.add_argument(each, type=Path)
        command.add_argument("--policy", type=Path, required=name in ("proof", "checkpoints"))
        if name == "proof":
            command.add_argument("--leaf", required=True, help=_("hash de hoja, 64 cifras hexadecimales"))
        if name in ("checkpoints", "export"):
            command.add_argument("--proof", type=Path)
    given = parser.parse_args(arguments)
    try:
        for line in _judge(given):
            print(line)
    except NotValid as error:
        place = {"file": error.file, "record": error.record, "log": error.log, "index": error.index}
        print(_("NO VÁLIDO"), error.kind, *(f"{name}={_shown(at)}" for name, at in place.items() if at is not None))
        print(error.what)
        return 1
    except OSError as error:
        print(_("No se puede leer"), error.filename, error.strerror, file=sys.stderr)
        return 2
    return 0


def _judge(given: argparse.Namespace) -> Iterator[str]:
    policy = read_policy(given.policy) if given.policy else None
    if given.command == "proof" and policy:
        text = read_text(given.file)
        signed = check_proof(text, read_leaf(given.leaf), policy)
        yield _("VÁLIDO") + f" {_shown(signed.checkpoint.origin)} index={parse_proof(text).index}"
        yield from _told(signed)
    elif given.command == "checkpoints" and policy:
        proof = read_hashes(given.proof) if given.proof else None
        proved = check_checkpoints(read_text(given.old), read_text(given.new), policy, proof)
        if not proved:
            print(
                _("Las firmas valen; que el nuevo continúa al viejo solo lo muestra una prueba: --proof"),
                file=sys.stderr,
            )
            raise SystemExit(2)
        yield _("VÁLIDO")
    elif given.command == "bundle" or given.file.suffix == ".zip":
        reports, others = check_bundle(given.file, policy)
        for name, report in reports.items():
            yield from _reported(name, report)
        yield _("Sin prueba en el ZIP:") + f" {', '.join(map(_shown, others))}"
    else:
        yield from _reported(given.file.name, check_export(given.file, given.proof, policy))


def _told(signed: Signed) -> Iterator[str]:
    head = signed.checkpoint
    yield "  " + _("Punto de control:") + f" {_shown(head.origin)} {head.size} {_encoded(head.root)}"
    for name, seconds in signed.witnesses.items():
        yield "  " + _("Testigo:") + f" {_shown(name)} {seconds}"


def _reported(name: str, report: ExportReport) -> Iterator[str]:
    origin, index = report.place
    yield _("VÁLIDO") + f" {_shown(name)} {report.kind} {report.records} sha256={report.sha256}"
    yield "  " + _("Registrada en:") + f" {_shown(origin)} index={index}"
    yield "  " + _("Filas sin detalle, borrado o no mostrado:") + f" {report.bare}"
    for signed in report.heads.values():
        yield from _told(signed)
    if not report.trusted:
        yield "  " + _("Las claves son las que trae el propio archivo: repita con --policy y claves recibidas aparte.")


def _shown(text: object) -> str:
    return "".join(character if character.isprintable() else "?" for character in str(text))[:300]


def read_text(file: Path) -> str:
    """Read a small file of UTF-8; raises NotValid, OSError."""
    try:
        return _small(file).decode()
    except UnicodeDecodeError as error:
        raise NotValid("malformed", _("el archivo no es texto en UTF-8")) from error


def read_policy(file: Path) -> Policy:
    """Read a policy file; raises NotValid, OSError."""
    return parse_policy(_small(file).decode(errors="surrogateescape"))


def read_hashes(file: Path) -> list[bytes]:
    """Read a proof of consistency: a hash in base64 on each line; raises NotValid, OSError."""
    text = read_text(file).removesuffix("\n")
    return [_hash(line) for line in text.split("\n")] if text else []


def read_leaf(text: str) -> bytes:
    """Read a leaf hash in hexadecimal; raises NotValid."""
    if not re.match(r"[0-9a-fA-F]{64}\Z", text):
        raise NotValid("malformed", _("el hash de hoja son 64 cifras hexadecimales"))
    return bytes.fromhex(text)


def _small(file: Path) -> bytes:
    with file.open("rb") as source:
        data = source.read(2 * _NOTE_LIMIT + 1)
    if len(data) > 2 * _NOTE_LIMIT:
        raise NotValid("malformed", _("el archivo es demasiado grande"))
    return data


if __name__ == "__main__":
    sys.exit(main())
