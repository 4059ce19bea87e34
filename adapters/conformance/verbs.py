"""The verbs of a manifest as the kit asks them: the question, the examples, and what each example must become."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Any
from uuid import UUID

from adapters.base import ProducerAdapter
from adapters.conformance.cases import Cases, Example, examples
from adapters.conformance.documents import names_in, names_within
from adapters.errors import ContractBroken
from adapters.manifest import Manifest
from adapters.models import (
    AlreadyTaken,
    Found,
    Identifier,
    Malformed,
    NotFound,
    Page,
    Provenance,
    ReferralMessage,
    Rejected,
    RejectedRow,
    Reply,
    Row,
    Taken,
    Unavailable,
)
from schemas.ids import uuid7
from schemas.permit import Rehearsal
from schemas.text import _

#: Says what is wrong with an outcome of the right type, ``None`` for nothing.
Check = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True)
class Read:
    """A register read to its end: good rows, bad rows."""

    rows: tuple[Row, ...]
    rejects: tuple[RejectedRow, ...]
    sha256: bytes
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Expected:
    """What a case must end in: one of these types, and where it is the first of them, passing the check."""

    types: tuple[type, ...]
    check: Check = lambda _outcome: None

    def __or__(self, other: type) -> Expected:
        """Allow another type too."""
        return Expected((*self.types, other), self.check)


MALFORMED, UNAVAILABLE = Expected((Malformed,)), Expected((Unavailable,))


class Verb(ABC):
    """One verb of one manifest, about one dataset or register where it is about any."""

    #: It may change something there.
    effect = False
    #: The example from which the faults are derived.
    main = "found"

    def __init__(self, name: str, of: str, manifest: Manifest, cases: Cases) -> None:
        self.name, self.of, self.manifest = name, of, manifest
        self.section = cases.section(name, of or None)
        self.examples = examples(self.section)
        self._transport = cases.transport

    @property
    def playable(self) -> bool:
        """Whether there is a main example; without one nothing can be derived."""
        return self.main in self.examples

    @property
    def label(self) -> str:
        """Name it in a report."""
        return f"{self.name} {self.of}".strip()

    @property
    def good(self) -> Example:
        """The main example."""
        return self.examples[self.main]

    @abstractmethod
    def expected(self, example: Example) -> Expected:
        """Say what an example must become."""

    @abstractmethod
    async def ask(self, adapter: ProducerAdapter, *, other: bool = False, before: Any = None) -> Any:
        """Call the verb; ``other`` asks about somebody else, ``before`` is what came of asking already."""

    def bad_rows(self) -> frozenset[int]:
        """Return the numbers of the rows that the main example has rejected."""
        return frozenset(item["row"] for item in self.good.content.get("rejects", ()))

    def fields(self) -> Mapping[str, Any]:
        """Return the field table as the manifest has it."""
        return {}

    def required(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Give each required field and its names in an answer."""
        for name, spec in self.fields().items():
            if isinstance(spec, dict) and spec.get("required") and "default" not in spec:
                yield name, names_in(spec["from"])

    def coded(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Give each field whose codes are all listed, and its names in an answer."""
        for name, spec in self.fields().items():
            if isinstance(spec, dict) and "codes" in spec and "otherwise" not in spec:
                yield name, names_in(spec["from"])

    #: What an answer must become that breaks the contract as a whole.
    broken = MALFORMED

    def spoilt(self, field: str, names: Collection[str], *, everywhere: bool = True) -> Expected:
        """Say what must become of an answer that breaks the contract in one field, ``names`` being its in there.

        ``everywhere``: in every item, where there are several; otherwise in some.
        """
        return MALFORMED


class Fetch(Verb):
    """``fetch`` of one dataset."""

    def __init__(self, dataset: str, manifest: Manifest, cases: Cases) -> None:
        super().__init__("fetch", dataset, manifest, cases)
        self.dataset = manifest.datasets[dataset]

    def expected(self, example: Example) -> Expected:
        """Say what an example must become."""
        if example.malformed:
            return MALFORMED
        if example.name == "not_found":
            return Expected((NotFound,))
        if example.name == "rejected":
            return Expected((Rejected,), partial(_same_code, example.content["code"]))
        return Expected((Found,), partial(_same_facts, example.content["facts"]))

    async def ask(self, adapter: ProducerAdapter, *, other: bool = False, before: Any = None) -> Any:
        """Ask for the example's identifier, or another one."""
        value = self.section["identifier"]
        if other:
            value = value[:-1] + ("2" if value.endswith("1") else "1")
        identifier = Identifier(self.dataset.identifier, value)
        return await adapter.fetch(Rehearsal(), self.of, identifier, self.section.get("presented", {}))

    def fields(self) -> Mapping[str, Any]:
        """Return the dataset's."""
        found: Mapping[str, Any] = self.manifest.source.content["datasets"][self.of]["fields"]
        return found


class Send(Verb):
    """``send`` of a referral, or of more about one."""

    effect = True
    main = "taken"

    def __init__(self, name: str, manifest: Manifest, cases: Cases) -> None:
        super().__init__(name, "", manifest, cases)
        self.message = _referral(self.section.get("service", min(manifest.services)), manifest)
        if name != "send":
            self.message = replace(self.message, kind=name, message_id=uuid7())

    @property
    def playable(self) -> bool:
        """Whether there is a main example; a folder, which says nothing, needs none."""
        return self._transport == "folder" or super().playable

    def expected(self, example: Example) -> Expected:
        """Say what an example must become."""
        if example.malformed:
            return MALFORMED
        if example.name == "rejected":
            return Expected((Rejected,), partial(_same_code, example.content["code"]))
        kind = AlreadyTaken if example.name == "already_taken" else Taken
        reference = partial(_same_reference, example.content.get("reference", ""))
        return Expected((kind,), reference)

    async def ask(self, adapter: ProducerAdapter, *, other: bool = False, before: Any = None) -> Any:
        """Send the referral, always the same one."""
        return await adapter.send(Rehearsal(), self.message)

    def required(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Give what the outcome "taken" hangs on."""
        for place, rule in enumerate(self.manifest.source.content[self.name].get("outcomes", ())):
            if rule["is"] == "taken" and "when" in rule:
                yield f"outcomes.{place}.when", names_within(rule["when"])


class Poll(Verb):
    """``poll`` for counter-referrals."""

    main = "page"
    broken = Expected((Page, Malformed), lambda page: _rejected(0, (), True, page.items, page.rejects))

    def expected(self, example: Example) -> Expected:
        """Say what an example must become."""
        if example.malformed:
            return self.broken
        return Expected((Page,), partial(_same_page, example.content))

    async def ask(self, adapter: ProducerAdapter, *, other: bool = False, before: Any = None) -> Any:
        """Ask from the beginning."""
        return await adapter.poll(Rehearsal(), None)

    def spoilt(self, field: str, names: Collection[str], *, everywhere: bool = True) -> Expected:
        """Let each item fall by itself, or the whole."""
        check = partial(_rejected, len(self.bad_rows()), frozenset([field, *names]), everywhere)
        return Expected((Page, Malformed), lambda page: check(page.items, page.rejects))

    def one_rejected(self) -> Expected:
        """Say what must become of an answer whose last item is damaged."""
        check = partial(_all_but_one, len(self.bad_rows()), len(self.good.content["replies"]))
        return Expected((Page, Malformed), lambda page: check(page.items, page.rejects))

    def fields(self) -> Mapping[str, Any]:
        """Return the page's."""
        found: Mapping[str, Any] = self.manifest.source.content["poll"]["fields"]
        return found


class Bulk(Verb):
    """``bulk`` of one register, read to its end."""

    broken = Expected((Read, Malformed), lambda read: _rejected(0, (), True, read.rows, read.rejects))

    def expected(self, example: Example) -> Expected:
        """Say what an example must become."""
        if example.malformed:
            return self.broken
        if example.name == "not_found":
            return Expected((NotFound,))
        return Expected((Read,), partial(_same_rows, example.content))

    async def ask(self, adapter: ProducerAdapter, *, other: bool = False, before: Any = None) -> Any:
        """Take the register, unless it was before, and read its rows; one that turns out to be none is malformed."""
        taken = frozenset([before.sha256] if isinstance(before, Read) else [])
        outcome = await adapter.bulk(Rehearsal(), self.of, taken)
        if isinstance(outcome, NotFound | Rejected | Unavailable | Malformed) or not hasattr(outcome, "rows"):
            return outcome
        rows: list[Row] = []
        rejects: list[RejectedRow] = []
        try:
            async for batch in outcome.rows():
                rows += [item for item in batch if isinstance(item, Row)]
                rejects += [item for item in batch if isinstance(item, RejectedRow)]
        except ContractBroken as broken:
            return Malformed(broken.reason, outcome.provenance)
        finally:
            await outcome.close()
        return Read(tuple(rows), tuple(rejects), outcome.sha256, outcome.provenance)

    def spoilt(self, field: str, names: Collection[str], *, everywhere: bool = True) -> Expected:
        """Let each row fall by itself, or the whole."""
        check = partial(_rejected, len(self.bad_rows()), frozenset([field, *names]), everywhere)
        return Expected((Read, Malformed), lambda read: check(read.rows, read.rejects))

    def one_rejected(self) -> Expected:
        """Say what must become of an answer whose last row is damaged."""
        check = partial(_all_but_one, len(self.bad_rows()), len(self.good.content["rows"]))
        return Expected((Read, Malformed), lambda read: check(read.rows, read.rejects))

    def fields(self) -> Mapping[str, Any]:
        """Return the register's."""
        found: Mapping[str, Any] = self.manifest.source.content["bulk"][self.of]["fields"]
        return found


def verbs_of(manifest: Manifest, cases: Cases) -> Iterator[Verb]:
    """Give the verbs a manifest has."""
    yield from (Fetch(name, manifest, cases) for name in manifest.datasets)
    if manifest.send is not None:
        yield Send("send", manifest, cases)
    yield from (Send(kind, manifest, cases) for kind in manifest.further)
    if manifest.poll is not None:
        yield Poll("poll", "", manifest, cases)
    yield from (Bulk("bulk", name, manifest, cases) for name in manifest.bulk)


def _referral(service: str, manifest: Manifest) -> ReferralMessage:
    """Make a referral of an invented girl with a name that most systems get wrong."""
    return ReferralMessage(
        referral_id=uuid7(),
        service=service,
        requester="UTGS",
        recipient=manifest.institution,
        identifiers=(Identifier("urn:passport", "X1"), Identifier("cedula", "4123456")),
        given_names="Ñasaindy",
        surnames="Agüero Yvyra'i",
        birth_date=date(2015, 5, 1),
        sex="F",
        department="11",
        district="1116",
        reason_code="protection-gap",
        reason_text="Sin el servicio",
        priority="routine",
        issued_at=datetime(2026, 11, 22, 10, 0, tzinfo=UTC),
        due_on=date(2026, 12, 22),
    )


def _same_facts(expected: Mapping[str, Any], outcome: Found) -> str | None:
    return _differing(expected, outcome.facts)


def _differing(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Name the fields that differ, in value or in type."""
    names = {*expected, *found}
    wrong = sorted(name for name in names if _typed(expected, name) != _typed(found, name))
    return _("otros datos: {names}").format(names=", ".join(wrong)) if wrong else None


def _typed(facts: Mapping[str, Any], name: str) -> Any:
    # One equals True to Python, and not to anybody else.
    return (name in facts, type(facts.get(name)), facts.get(name))


def _same_code(expected: str, outcome: Rejected) -> str | None:
    return None if outcome.code == expected else _("otro código")


def _same_reference(expected: str, outcome: Taken | AlreadyTaken) -> str | None:
    return None if outcome.reference == expected else _("otra referencia")


def _same_page(expected: Mapping[str, Any], page: Page) -> str | None:
    wanted = [dict(item) for item in expected.get("replies", ())]
    if [_reply(item) for item in page.items] != wanted:
        return _("otras contrarreferencias")
    if expected.get("cursor", page.cursor) != page.cursor or expected.get("more", False) is not page.more:
        return _("otro cursor u otra continuación")
    return _same_rejects(expected, page.rejects)


def _reply(reply: Reply) -> dict[str, str]:
    found = {item.name: getattr(reply, item.name) for item in fields(Reply) if item.name != "raw_codes"}
    return {name: _text(value) for name, value in found.items() if value is not None}


def _text(value: UUID | date | str) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def _same_rows(expected: Mapping[str, Any], read: Read) -> str | None:
    if len(read.rows) != len(expected["rows"]):
        return _("{n} filas buenas, no {wanted}").format(n=len(read.rows), wanted=len(expected["rows"]))
    for wanted, row in zip(expected["rows"], read.rows, strict=True):
        if (wrong := _differing(wanted, row.facts)) is not None:
            return _("fila {n}: {what}").format(n=row.row, what=wrong)
    return _same_rejects(expected, read.rejects)


def _same_rejects(expected: Mapping[str, Any], rejects: Sequence[RejectedRow]) -> str | None:
    wanted = [(item["row"], item["column"]) for item in expected.get("rejects", ())]
    return None if [(item.row, item.column) for item in rejects] == wanted else _("otras filas rechazadas")


def _rejected(
    known_bad: int, blamed: Collection[str], everywhere: bool, rows: Sequence[object], rejects: Sequence[RejectedRow]
) -> str | None:
    if len(rejects) <= known_bad or (rows and everywhere):
        return _("filas sacadas de un contenido que no cumple el contrato")
    others = [item for item in rejects if not any(name in item.column for name in blamed)]
    return _("rechazada por otro campo") if blamed and len(others) > known_bad else None


def _all_but_one(known_bad: int, good: int, rows: Sequence[object], rejects: Sequence[RejectedRow]) -> str | None:
    whole = len(rows) == good - 1 and len(rejects) == known_bad + 1
    return None if whole else _("no quedan todas las filas menos la dañada")
