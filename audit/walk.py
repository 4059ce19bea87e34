"""Holds every stored row to what it must be: entry to envelope, number to number, writer to chain, root to signature.

No database here: the rows come in order, one after the other, and nothing of them is kept but the ends.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple
from uuid import UUID

from audit.envelope import GENESIS, read_envelope, terms_digest
from audit.findings import CHAIN, STATE, Dangling, Findings, Lost
from audit.merkle import Frontier
from audit.tables import INTEGRATOR_SLOT
from audit.tiles import WIDTH, Edge, hashes_of
from audit.verify import Checkpoint, Key, NotValid, leaf_hash, open_signed
from schemas.canonical import sha256
from schemas.ids import parse_uuid
from schemas.text import _

_COPIED = ("id", "type", "outcome", "at", "subject", "detail_sha256", "terms", "writer_slot", "writer_counter")
# Envelopes of this version had no search terms.
_WITHOUT_TERMS = 1


class StoredEntry(NamedTuple):
    """A row of ``audit.entry``: ids as text, ``at`` as RFC 3339 with the era in front (``AD 2026-…Z``)."""

    id: str
    envelope: bytes
    leaf: bytes
    detail: bytes
    type: str
    outcome: str
    at: str | None
    pseudonym: str | None
    slot: int
    counter: int
    terms: list[str]


class StoredCheckpoint(NamedTuple):
    """A row of ``audit.checkpoint``, ``at`` as in :class:`StoredEntry`."""

    size: int
    number: int
    note: str
    root: bytes
    frontier: bytes
    at: str | None


class Seen(NamedTuple):
    """What an entry says of itself: the leaf its envelope gives, its place in a chain, and what contradicts it."""

    id: str
    leaf: bytes
    slot: int
    counter: int
    previous: str | None
    wrong: str | None
    statement: dict[str, Any] | None = None


@dataclass(slots=True)
class Block:
    """What occurs among 256 entries: the first and last instant as in :class:`StoredEntry`, and the search terms."""

    first: str | None
    last: str | None
    terms: set[str]


@dataclass(frozen=True, slots=True)
class End:
    """The last entry met of one writer."""

    counter: int
    leaf: bytes
    index: int | None
    entry_id: UUID | None


_START = End(0, GENESIS, None, None)


def examine(row: StoredEntry) -> Seen:
    """Recompute the leaf of an entry and compare every stored copy with its envelope."""
    leaf = leaf_hash(row.envelope)
    if leaf != row.leaf:
        wrong = _("el sobre no da el hash de hoja guardado")
        return Seen(row.id, leaf, row.slot, row.counter, None, wrong)
    try:
        return _compare(row, leaf, read_envelope(row.envelope))
    except (ValueError, KeyError, TypeError):
        return Seen(row.id, leaf, row.slot, row.counter, None, _("el sobre no es un sobre de este registro"))


def _compare(row: StoredEntry, leaf: bytes, said: dict[str, Any]) -> Seen:
    writer = said["writer"]
    slot, counter, previous = writer["slot"], writer["counter"], writer["previous"]
    told = (
        said["id"],
        said["type"],
        said["outcome"],
        f"AD {said['at']}",
        said["subject"],
        said["detail_sha256"],
        None if said["version"] == _WITHOUT_TERMS else said["terms_sha256"],
        slot,
        counter,
    )
    digest = b2a_base64(sha256(row.detail), newline=False).decode()
    terms = None if said["version"] == _WITHOUT_TERMS and not row.terms else terms_digest(row.terms)
    stored = (row.id, row.type, row.outcome, row.at, row.pseudonym, digest, terms, row.slot, row.counter)
    if told == stored:
        return Seen(row.id, leaf, slot, counter, previous, None, said.get("statement"))
    # Whoever can write rows can write an envelope of any shape: what is used below must be of the right type.
    entry_id = str(parse_uuid(said["id"]))
    if type(slot) is not int or type(counter) is not int:
        raise TypeError("writer")
    differing = ", ".join(name for name, one, other in zip(_COPIED, told, stored, strict=True) if one != other)
    return Seen(entry_id, leaf, slot, counter, previous, _("no coincide con el sobre: {0}").format(differing))


@dataclass(frozen=True, slots=True)
class Start:
    """Where a walk through a log begins: at 0, or behind what was pruned, with the state there."""

    log: int
    verifier: Key
    frontier: Frontier
    edge: Edge
    chains: dict[int, tuple[int, bytes]]


class Walk:
    """The state of a check on its way through one log after the other, from the first entry to the end."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.frontier = Frontier()
        self.edge = Edge()
        self.blocks: dict[int, Block] = {}
        self.entries = 0
        self.checkpoints = 0
        self.next = 0
        self._checkpoints_here = 0
        self._number = 0
        self._verifier: Key | None = None
        self._chains = dict.fromkeys(range(INTEGRATOR_SLOT + 1), _START)
        # Below which number which logs were pruned, with the root there, until the entry that says so is met.
        self._pruned: dict[int, tuple[int, str]] = {}
        # What this machine last signed of the log, known apart from the database.
        self.remembered: Checkpoint | None = None
        self._due: deque[StoredCheckpoint] = deque()
        self._newest_at: str | None = None
        self._intact = True
        self._block: Block | None = None
        # The note that the next log has to begin with.
        self._closing: str | None = None
        self._signed = 0
        self._first = True

    def begin(self, start: Start) -> None:
        """Enter a log; the writers' chains go on from the one before."""
        if self.findings.log is not None and start.log <= self.findings.log:
            raise ValueError("logs come in the order of their years")
        self.findings.log = start.log
        self._verifier = start.verifier
        self.frontier, self.edge, self.next = start.frontier, start.edge, start.frontier.size
        self._checkpoints_here = self._number = 0
        self._newest_at, self._intact, self._block = None, True, None
        if self.next:
            self._pruned[start.log] = (self.next, start.frontier.root().hex())
        for slot, (counter, leaf) in start.chains.items():
            if slot in self._chains and counter > self._chains[slot].counter:
                self._chains[slot] = End(counter, leaf, None, None)
        self._first = self.next == 0

    def expect(self, checkpoints: Iterable[StoredCheckpoint]) -> None:
        """Hand in the next checkpoints by size; each is looked at when the walk has come to its size."""
        self._due.extend(checkpoints)

    def numbered(self, index: int, entry_id: str, leaf: bytes, row: StoredEntry | None, size: int) -> None:
        """Take the next row of the sequence with its entry; ``size`` is the size the tree is known to have."""
        self.entries += 1
        if index != self.next and not self.next < index < size:
            self._out_of_place(index, entry_id, leaf, row)
            return
        self.skip_to(index)
        self.next = index + 1
        if row is None:
            self.findings.dangling(Dangling(self.findings.log, index, UUID(entry_id), leaf))
            self._newest_at = None
        else:
            seen = examine(row)
            if seen.wrong is not None:
                self.findings.problem("changed", index, UUID(entry_id), seen.wrong)
            elif seen.leaf != leaf:
                self.findings.problem("changed", index, UUID(entry_id), _("la secuencia lleva otro hash de hoja"))
            self._opening(seen, row.type, index)
            self._pruning(seen, row.type)
            leaf = seen.leaf if seen.leaf == row.leaf else leaf
            if not self._chain(seen, leaf, index):
                self._lost(seen, index)
            self._newest_at = row.at
        self.frontier.append(leaf)
        self.edge.append(leaf)
        self._gather(index, row)
        while self._due and self._due[0].size <= self.next:
            self._checkpoint(self._due.popleft())

    def _opening(self, seen: Seen, kind: str, index: int) -> None:
        """Hold the first entry of a log to the last checkpoint of the log before."""
        if not self._first:
            return
        self._first = False
        said = (seen.statement or {}).get("checkpoint") if kind == "log.opened" else None
        if said != self._closing:
            text = _("el registro del año no empieza con el último punto de control del anterior")
            self.findings.problem("not_a_prefix", index, UUID(seen.id), text)

    def _pruning(self, seen: Seen, kind: str) -> None:
        said = seen.statement or {}
        if kind == "log.pruned" and self._pruned.get(said.get("log", 0)) == (said.get("minimum"), said.get("root")):
            del self._pruned[said["log"]]

    def skip_to(self, index: int) -> None:
        """Note that the numbers from here up to ``index`` are missing."""
        if index > self.next:
            self.findings.gap(self.next, index - 1)
            self._intact = False
            self.next = index

    def unnumbered(self, row: StoredEntry, waiting: bool, counters: dict[int, int]) -> None:
        """Take an entry without number, in the order of the writers' counters; ``counters`` is how far each came."""
        seen = examine(row)
        self._pruning(seen, row.type)
        end = self._chains.get(seen.slot)
        fits = end is not None and seen.counter == end.counter + 1 and counters.get(seen.slot, 0) >= seen.counter
        chained = self._chain(seen, row.leaf, None) if waiting or fits else False
        if waiting and chained:
            if seen.wrong is not None:
                self.findings.problem("changed", None, UUID(seen.id), seen.wrong)
        else:
            self._lost(seen, None, fits=fits and chained)

    def leave(self, tree: list[tuple[int, bytes, int]], *, closed: bool) -> None:
        """Hold the end of a log to what its tree remembers; a closed one must be signed to its last entry."""
        for checkpoint in self._due:
            self._checkpoint(checkpoint)
        self._due.clear()
        if self.remembered is not None:
            text = _("el registro no contiene lo último que firmó esta máquina")
            self.findings.problem("not_a_prefix", self.remembered.size - 1, None, text, STATE)
        if closed and (self._closing is None or self._signed != self.next):
            text = _("el registro cerrado no está firmado hasta su última entrada")
            self.findings.problem("missing", None, None, text, STATE)
        if len(tree) != 1:
            self.findings.problem("missing", None, None, _("el estado del árbol no está"), STATE)
        for size, frontier, checkpoints in tree:
            if size != self.next:
                self.findings.problem("changed", None, None, _("el árbol tiene otro tamaño que la secuencia"), STATE)
            elif self._intact and frontier != self.frontier.to_bytes():
                self.findings.problem("changed", None, None, _("el árbol guardado no es el de la secuencia"), STATE)
            if checkpoints != self._checkpoints_here:
                self.findings.problem("missing", None, None, _("falta un punto de control"), STATE)

    def _gather(self, index: int, row: StoredEntry | None) -> None:
        """Note what occurs among 256 entries, if they are all there."""
        if index % WIDTH == 0:
            self._block = Block(row.at, row.at, set()) if row is not None else None
        if self._block is None or row is None or row.at is None:
            self._block = None
            return
        self._block.first = min(self._block.first or row.at, row.at)
        self._block.last = max(self._block.last or row.at, row.at)
        self._block.terms.update(row.terms)
        if index % WIDTH == WIDTH - 1:
            self.blocks[index // WIDTH] = self._block

    def block(self, number: int, stored: Block | None, expected: Block) -> None:
        """Hold what a search skips by to what occurs in the entries."""
        if self._intact and stored != expected:
            text = _("el índice de búsqueda no dice lo que hay en estas entradas")
            self.findings.problem("changed", number * WIDTH, None, text, STATE)

    def tile(self, level: int, number: int, stored: bytes, expected: bytes) -> None:
        """Hold a stored tile to the hashes that the walk came to."""
        if not self._intact or stored == expected:
            return
        pairs = enumerate(zip_longest(hashes_of(stored), hashes_of(expected)))
        first = next(place for place, (one, other) in pairs if one != other)
        text = _("la tesela {level}/{number} del árbol no es la de la secuencia").format(level=level, number=number)
        self.findings.problem("changed", (number * WIDTH + first) << 8 * level, None, text, STATE)

    def writers(self, writers: Iterable[tuple[int, int, bytes]], *, named: bool = False) -> None:
        """Hold the ends of the chains to what the writers remember, after the last row of the last log.

        ``named``: entries that waited were found missing, by their names; the one before them is no place to begin.
        """
        for log in self._pruned:
            self.findings.log = log
            text = _("faltan las primeras entradas y ninguna dice quién ordenó quitarlas")
            self.findings.problem("missing", 0, None, text, STATE)
        self.findings.log = None
        there = {slot: (counter, leaf) for slot, counter, leaf in writers}
        if there.keys() != self._chains.keys():
            self.findings.problem("missing", None, None, _("falta la fila de un escritor"), STATE)
        if self.findings.displaced:
            return
        for slot, end in self._chains.items():
            counter, leaf = there.get(slot, (end.counter, end.leaf))
            if counter > end.counter:
                what = _("después de esta faltan {count} entradas del escritor {slot}")
                text = what.format(count=counter - end.counter, slot=slot)
                self.findings.problem("missing", None if named else end.index, end.entry_id, text, STATE)
            elif (counter, leaf) != (end.counter, end.leaf):
                text = _("el escritor {slot} recuerda otra última entrada").format(slot=slot)
                self.findings.problem("changed", end.index, end.entry_id, text, STATE)

    def _chain(self, seen: Seen, leaf: bytes, index: int | None) -> bool:
        """Hang an entry behind its writer's last; False if it belongs before it or to no writer of ours."""
        end = self._chains.get(seen.slot)
        if end is None or seen.counter <= end.counter:
            return False
        entry_id = UUID(seen.id)
        if seen.counter > end.counter + 1:
            self.findings.hole(seen.slot, end.counter + 1, seen.counter - 1, index, entry_id)
        elif seen.previous is not None and seen.previous != b2a_base64(end.leaf, newline=False).decode():
            # The later entry fixed the earlier one's hash when it was written, so the earlier one was replaced.
            named = (end.index, end.entry_id) if end.entry_id else (index, entry_id)
            self.findings.problem("changed", *named, _("la siguiente de su escritor enlaza con otro hash"))
        self._chains[seen.slot] = End(seen.counter, leaf, index, entry_id)
        return True

    def _out_of_place(self, index: int, entry_id: str, leaf: bytes, row: StoredEntry | None) -> None:
        if row is None:
            self.findings.dangling(Dangling(self.findings.log, index, UUID(entry_id), leaf))
        else:
            self._lost(examine(row), index)

    def _lost(self, seen: Seen, index: int | None, fits: bool = False) -> None:
        end = self._chains.get(seen.slot)
        beyond = index is not None and end is not None and seen.counter > end.counter
        where = None if index is None else self.findings.log
        item = Lost(UUID(seen.id), seen.leaf, seen.slot, seen.counter, where, index, seen.wrong, fits or beyond)
        self.findings.lost(item)

    def _checkpoint(self, row: StoredCheckpoint) -> None:
        """Hold a checkpoint to its signature, its own columns, and the tree at its size."""
        last = row.size - 1 if row.size > 0 else None
        self.checkpoints += 1
        self._checkpoints_here += 1
        self._closing, self._signed = row.note, row.size
        if self.remembered is not None and (row.size, row.root) == (self.remembered.size, self.remembered.root):
            self.remembered = None
        if row.number != self._number:
            text = _("falta el punto de control {number}").format(number=self._number)
            self.findings.problem("missing", last, None, text, CHAIN)
        self._number = row.number + 1
        try:
            if self._verifier is None:
                raise ValueError("no log was entered")
            said = open_signed(row.note, self._verifier)
        except NotValid:
            self.findings.problem("signature", last, None, _("la firma del punto de control no vale"), CHAIN)
            return
        # Three lines, a blank one and our signature: what we sign has no room for another byte.
        if (said.size, said.root, row.note.count("\n")) != (row.size, row.root, 5):
            self.findings.problem("changed", last, None, _("el punto de control no es el que se firmó"), CHAIN)
        elif row.size > self.next or row.size < 1:
            text = _("el registro es más corto que lo que se firmó")
            self.findings.problem("missing", self.next, None, text, CHAIN)
        elif row.size < self.frontier.size:
            # Behind it everything was pruned: the signature is all that can be checked.
            return
        elif self._intact and row.root != self.frontier.root():
            text = _("las entradas hasta aquí no dan la raíz firmada")
            self.findings.problem("not_a_prefix", last, None, text, CHAIN)
        elif self._intact and (row.frontier, row.at) != (self.frontier.to_bytes(), self._newest_at or row.at):
            self.findings.problem("changed", last, None, _("el punto de control no coincide con el árbol"), CHAIN)
