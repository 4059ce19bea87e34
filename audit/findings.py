"""Turns what a walk over the log met into problems that name the entry concerned, the first wrong one first.

One altered row shows in several places: a number without its entry here, an entry without its number there. This
module puts such pairs together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from audit.models import Problem, ProblemKind
from schemas.text import _

LIMIT = 100
# Among problems without a number: direct evidence first, then what only follows from it.
DIRECT, WAITING, CHAIN, STATE = range(4)


@dataclass(frozen=True, slots=True)
class Lost:
    """An entry that exists but does not stand where it should: unnumbered, or under a number that is not its own.

    ``wrong`` tells which of its stored bytes contradict its envelope; ``fits`` that it comes next in its writer's
    chain and the writer counted it.
    """

    entry_id: UUID
    leaf: bytes
    slot: int
    counter: int
    log: int | None
    index: int | None
    wrong: str | None
    fits: bool


@dataclass(frozen=True, slots=True)
class Dangling:
    """A number of the sequence whose entry is not there."""

    log: int | None
    index: int
    entry_id: UUID
    leaf: bytes


@dataclass(slots=True)
class Findings:
    """Everything met; each list is cut at a hundred, so that a wiped log does not fill the memory.

    ``log`` is the log (a year) that the walk is in; what is told of a number is told of that log.
    """

    log: int | None = None
    _problems: list[tuple[int, Problem]] = field(default_factory=list)
    _gaps: list[tuple[int | None, int, int]] = field(default_factory=list)
    _holes: list[tuple[int, int, int, Problem]] = field(default_factory=list)
    _dangling: list[Dangling] = field(default_factory=list)
    _lost: list[Lost] = field(default_factory=list)

    def problem(
        self, kind: ProblemKind, index: int | None, entry_id: UUID | None, what: str, rank: int = DIRECT
    ) -> None:
        """Note a problem whose place in the log walked through is known."""
        self._problem(kind, self.log, index, entry_id, what, rank)

    def _problem(
        self,
        kind: ProblemKind,
        log: int | None,
        index: int | None,
        entry_id: UUID | None,
        what: str,
        rank: int = DIRECT,
    ) -> None:
        if len(self._problems) < LIMIT:
            self._problems.append((rank, Problem(kind, log, index, entry_id, what)))

    def gap(self, first: int, last: int) -> None:
        """Note numbers that nobody has, ``first`` to ``last``."""
        if len(self._gaps) < LIMIT:
            self._gaps.append((self.log, first, last))

    def hole(self, slot: int, first: int, last: int, index: int | None, entry_id: UUID) -> None:
        """Note that a writer's chain jumps over its entries ``first`` to ``last`` just before this entry."""
        if len(self._holes) < LIMIT:
            what = _("en la cadena del escritor {slot} faltan {count} entradas antes de esta")
            text = what.format(slot=slot, count=last - first + 1)
            self._holes.append((slot, first, last, Problem("missing", self.log, index, entry_id, text)))

    def dangling(self, item: Dangling) -> None:
        """Note a number without an entry."""
        if len(self._dangling) < LIMIT:
            self._dangling.append(item)

    def lost(self, item: Lost) -> None:
        """Note an entry out of place."""
        if len(self._lost) < LIMIT:
            self._lost.append(item)

    @property
    def displaced(self) -> bool:
        """True if entries or numbers are missing or out of place, so that sums at the end cannot come out either."""
        return bool(self._gaps or self._dangling or self._lost)

    def conclude(self) -> tuple[Problem, ...]:
        """Return the problems in the order of their numbers, those without one last."""
        lost = self._match_dangling(list(self._lost))
        gaps = self._match_gap(lost)
        for log, first, last in gaps:
            what = _("faltan {count} entradas en la secuencia").format(count=last - first + 1)
            self._problem("missing", log, first, None, what)
        for item in lost:
            self._report_lost(item)
        if not self.displaced:
            for _slot, _first, _last, problem in self._holes:
                self._problems.append((CHAIN, problem))
        ordered = sorted(self._problems, key=lambda p: (p[1].index is None, p[1].log or 0, p[1].index or 0, p[0]))
        return tuple(problem for _rank, problem in ordered[:LIMIT])

    def _match_dangling(self, lost: list[Lost]) -> list[Lost]:
        """Bring together numbers without entry and entries without number: the leaf hash says who belongs to whom."""
        for item in self._dangling:
            match = next((other for other in lost if other.leaf == item.leaf), None)
            if match is None:
                self._problem("missing", item.log, item.index, item.entry_id, _("la entrada fue quitada"))
            else:
                lost.remove(match)
                what = _("la entrada y su número ya no llevan el mismo identificador")
                self._problem("changed", item.log, item.index, match.entry_id, what)
        return lost

    def _match_gap(self, lost: list[Lost]) -> list[tuple[int | None, int, int]]:
        """With one number missing and one entry out of place, the one is the other's."""
        if len(self._gaps) != 1 or self._gaps[0][1] != self._gaps[0][2] or len(lost) != 1:
            return self._gaps
        [item], (log, index, _last) = lost, self._gaps[0]
        lost.clear()
        if item.index is None:
            self._problem("missing", log, index, item.entry_id, _("la entrada perdió su número en la secuencia"))
        else:
            what = _("la entrada lleva el número {number}").format(number=item.index)
            self._problem("reordered", log, index, item.entry_id, what)
        return []

    def _report_lost(self, item: Lost) -> None:
        jumps = [p for slot, first, last, p in self._holes if slot == item.slot and first <= item.counter <= last]
        skipped = bool(jumps)
        kind: ProblemKind
        if item.index is not None:
            # Whoever stands where this one should have come first is out of place as well.
            for jump in jumps:
                what = _("la entrada está antes de una anterior a ella")
                self._problem("reordered", jump.log, jump.index, jump.entry_id, what)
        if item.wrong is not None:
            kind, what = "changed", item.wrong
        elif item.index is not None and (skipped or item.fits):
            kind, what = "reordered", _("la entrada lleva un número que no es el suyo")
        elif item.index is not None:
            kind, what = "duplicated", _("la entrada está más de una vez en la secuencia")
        elif skipped or item.fits:
            kind, what = "missing", _("la entrada no tiene número ni está en espera")
        else:
            kind, what = "foreign", _("nadie de este registro escribió la entrada")
        self._problem(kind, item.log, item.index, item.entry_id, what)
