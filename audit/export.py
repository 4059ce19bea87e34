"""Writes the proof that goes with a file of entries: one line per record, then the line of the export's own entry.

DATA and DATA.proof are read by :mod:`audit.verify`, which describes them to whoever receives the pair; only entries
that a signed checkpoint covers are exported, because nothing else can be proven yet.
"""

from __future__ import annotations

import asyncio
from binascii import b2a_base64
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.errors import AuditUnavailable
from audit.keys import Epochs
from audit.merkle import Span, inclusion_spans
from audit.proofs import SignedHead, accepted_by, logs, prove, signed_head
from audit.search import Criteria, Cursor, RawEntry, open_raw, raw, raw_one
from audit.tiles import TileReader
from audit.verify import Policy
from schemas.canonical import sha256

FORMAT = "siis-export-proof/1"
_PAGE = 500
# Making a proof is arithmetic in between few reads: after so many of them others get their turn.
_TURN = 64
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Proven:
    """A numbered entry with the proof that the checkpoint of its log covers it."""

    entry: RawEntry
    hashes: Sequence[bytes]


def write_proof_head(kind: str, checkpoints: Mapping[int, str], policy: str) -> bytes:
    """Return the first line of a proof file.

    ``kind`` is how DATA is written, ``checkpoints`` the notes (with cosignatures) by the year of their log, ``policy``
    the C2SP tlog-policy that says whose signatures count.
    """
    notes = {str(log): note for log, note in checkpoints.items()}
    return _line({"format": FORMAT, "kind": kind, "checkpoints": notes, "policy": policy})


def record_line(proven: Proven, record: bytes) -> bytes:
    """Return the line of one record of DATA; ``record`` are the bytes that the verifier takes for the record."""
    return _line({**_proof_of(proven), "record": sha256(record).hex()})


def last_line(export: Proven, note: str, records: int, digest: bytes) -> bytes:
    """Return the last line: the export's own entry under the checkpoint ``note``, the records, DATA's SHA-256.

    Of the entry only ``what`` is shown, which says what was exported; who did it stays in the log.
    """
    shown = _proof_of(export)
    shown["groups"] = {name: group for name, group in shown.get("groups", {}).items() if name == "what"}
    return _line({"export": shown, "checkpoint": note, "records": records, "sha256": digest.hex()})


async def accepted_heads(engine: AsyncEngine, policy: Policy, patience_s: float) -> dict[int, SignedHead]:
    """Return the newest checkpoint of every log that has one, by its year: what an export made now can prove.

    Waits ``patience_s`` seconds for witnesses that the policy needs; then raises :class:`AuditUnavailable`.
    """
    clock = asyncio.get_running_loop().time
    until, accepted = clock() + patience_s, accepted_by(policy)
    while True:
        async with engine.connect() as conn:
            heads = [await signed_head(conn, log, accepted=accepted) for log in await logs(conn)]
        found = {head.log: head for head in heads if head is not None}
        if all(accepted(head.note) for head in found.values()):
            return found
        if clock() >= until:
            raise AuditUnavailable("witnesses have not signed what is to be exported")
        await asyncio.sleep(_PAUSE_S)


async def proven(
    engine: AsyncEngine, epochs: Epochs, criteria: Criteria, heads: Mapping[int, SignedHead]
) -> AsyncGenerator[list[Proven], None]:
    """Yield all entries that fit and that ``heads`` cover, newest number first, each with its proof, in groups.

    No connection is held while whoever takes the groups is slow. Raises as :func:`audit.search.recent`.
    """
    ends = {log: head.size for log, head in heads.items()}
    after: Cursor | None = None
    while True:
        async with engine.connect() as conn:
            rows, after = await raw(conn, criteria, ends, after=after, limit=_PAGE)
            entries = await asyncio.to_thread(_opened, rows, epochs)
            group = await _with_proofs(conn, entries, ends)
        if group:
            yield group
        if after is None:
            return


async def wait_for_proof(
    engine: AsyncEngine, epochs: Epochs, entry_id: UUID, policy: Policy, patience_s: float
) -> tuple[Proven, str]:
    """Wait until a checkpoint that the policy accepts covers an entry; return it with its proof, and that note.

    Raises :class:`AuditUnavailable` if that takes longer than ``patience_s`` seconds.
    """
    clock = asyncio.get_running_loop().time
    until, accepted = clock() + patience_s, accepted_by(policy)
    while True:
        async with engine.connect() as conn:
            proof = await prove(conn, entry_id, accepted)
            if proof is not None and accepted(proof.head.note):
                own = open_raw(await raw_one(conn, entry_id), epochs)
                return Proven(own, proof.hashes), proof.head.note
        if clock() >= until:
            raise AuditUnavailable("no accepted checkpoint covered the entry in time")
        await asyncio.sleep(_PAUSE_S)


async def _with_proofs(conn: AsyncConnection, entries: Sequence[RawEntry], ends: Mapping[int, int]) -> list[Proven]:
    readers = {log: TileReader(conn, log, ends[log]) for log in {entry.log for entry in entries}}
    group: list[Proven] = []
    for start in range(0, len(entries), _TURN):
        turn = entries[start : start + _TURN]
        spans = [[(entry.log, span) for span in inclusion_spans(entry.index, ends[entry.log])] for entry in turn]
        # Neighbours share most of their paths, so each node is computed once for all of them.
        nodes: dict[tuple[int, Span], bytes] = {}
        for log, reader in readers.items():
            wanted = list({span for path in spans for of, span in path if of == log})
            roots = await reader.roots(wanted)
            nodes.update(zip(((log, span) for span in wanted), roots, strict=True))
        group += [Proven(entry, [nodes[node] for node in path]) for entry, path in zip(turn, spans, strict=True)]
        await asyncio.sleep(0)
    return group


def _opened(rows: Iterable[tuple[Any, ...]], epochs: Epochs) -> list[RawEntry]:
    return [open_raw(row, epochs) for row in rows]


def _proof_of(proven: Proven) -> dict[str, Any]:
    entry = proven.entry
    return {
        "log": entry.log,
        "index": entry.index,
        "envelope": entry.data.decode(),
        **({} if entry.groups is None else {"groups": entry.groups}),
        "proof": [b2a_base64(node, newline=False).decode() for node in proven.hashes],
    }


def _line(value: Mapping[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
