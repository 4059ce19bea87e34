"""How an agreement comes into force and ends: which step follows which, who may take it, and what contradicts what.

Nothing here reads or writes: ``consent/agreements.py`` stores what comes out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import combinations
from types import MappingProxyType
from typing import Literal, NamedTuple

from consent.errors import StepRefused, UnknownAgreement
from consent.models import Actor, Agreement, AgreementStatus
from schemas.text import _

NEGOTIATED = ("draft", "proposed", "signed")
DRAFT: Literal["draft"] = "draft"


class Move(NamedTuple):
    """What a step does: to the text under negotiation or to the version in force, from which statuses, to which."""

    negotiates: bool
    before: frozenset[str]
    after: AgreementStatus


#: Every step but drafting, which is always possible. A signature leads to ``signed`` once all parties have signed.
STEPS: Mapping[str, Move] = MappingProxyType(
    {
        "propose": Move(True, frozenset({"draft"}), "proposed"),
        "sign": Move(True, frozenset({"proposed"}), "signed"),
        "activate": Move(True, frozenset({"signed"}), "active"),
        "suspend": Move(False, frozenset({"active"}), "suspended"),
        "resume": Move(False, frozenset({"suspended"}), "active"),
        "expire": Move(False, frozenset({"active", "suspended"}), "expired"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One stored version; ``by`` is who stored it, ``PARTY/user``, or who filled the database."""

    agreement: Agreement
    by: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A party's signature on a text: it counts for every version that has it."""

    text_sha256: bytes
    party: str
    signatory: str
    proof_reference: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything stored under one code: its versions in order, at least one, and the signatures."""

    versions: tuple[Version, ...]
    signatures: tuple[Signature, ...]

    @property
    def code(self) -> str:
        """The code of the agreement."""
        return self.versions[0].agreement.code

    @property
    def parties(self) -> frozenset[str]:
        """The two institutions; one, where it asks itself. They are the same in every version."""
        return parties(self.versions[0].agreement)

    @property
    def in_force(self) -> Version | None:
        """The version that the decision looks at, whatever its status: the newest that is past negotiation."""
        found = (each for each in reversed(self.versions) if each.agreement.status not in NEGOTIATED)
        return next(found, None)

    @property
    def pending(self) -> Version | None:
        """The newest text under negotiation, unless it came into force or the agreement ended after it."""
        activated: set[bytes] = set()
        for each in reversed(self.versions):
            if each.agreement.status == "expired":
                return None
            if each.agreement.status == "active":
                activated.add(each.agreement.text_sha256())
            elif each.agreement.status in NEGOTIATED:
                return None if each.agreement.text_sha256() in activated else each
        return None

    def signed_by(self, text_sha256: bytes) -> frozenset[str]:
        """Return the parties that signed a text."""
        return frozenset(each.party for each in self.signatures if each.text_sha256 == text_sha256)

    def possible(self) -> tuple[str, ...]:
        """Return the steps that the statuses allow, in the order of a life; a draft always may be made."""
        return "draft", *(step for step, move in STEPS.items() if self.version_for(move) is not None)

    def version_for(self, move: Move) -> Version | None:
        """Return the version a move applies to, if its status allows it."""
        version = self.pending if move.negotiates else self.in_force
        return version if version is not None and version.agreement.status in move.before else None


class Contradiction(NamedTuple):
    """Two active agreements that say different things about the same exchange: ``differs`` names in what."""

    first: str
    second: str
    requester: str
    holder: str
    dataset: str
    purposes: tuple[str, ...]
    bases: tuple[str, ...]
    differs: tuple[str, ...]


def parties(agreement: Agreement) -> frozenset[str]:
    """Return the institutions that must sign an agreement."""
    return frozenset({agreement.requester, agreement.holder})


def acting_for(actor: Actor, party: str | None, code: str, of: frozenset[str]) -> str:
    """Return the party an actor acts for: their own institution, or the one that whoever runs the machine names.

    Raises :class:`UnknownAgreement` for anybody else: to them the agreement does not exist.
    """
    acting = party if actor.institution is None else actor.institution
    if acting is None or acting not in of or (party is not None and party != acting):
        raise UnknownAgreement(code)
    return acting


def name_of(actor: Actor, party: str) -> str:
    """Return how a version names who stored it."""
    return f"{party}/{actor.user}"


def check_new_text(history: History, draft: Agreement) -> None:
    """Raise :class:`StepRefused` for a draft whose text was in force or signed before: no signature counts twice."""
    text = draft.text_sha256()
    used = any(
        each.agreement.status not in NEGOTIATED and each.agreement.text_sha256() == text for each in history.versions
    )
    if used or history.signed_by(text):
        raise _refused(
            history, "draft", "text-known", _("ese mismo texto ya se firmó o rigió: cambie lo que deba cambiar")
        )


def next_version(history: History, step: str, *, actor: Actor, party: str, at: datetime) -> Agreement:
    """Return the agreement as a step of a party leaves it; raise :class:`StepRefused` where the step is not allowed.

    A signature given with this step is not yet in ``history``.
    """
    move = STEPS[step]
    version = history.version_for(move)
    if version is None:
        raise _refused(history, step, "status", _("su estado no lo permite"))
    current, after = version.agreement, move.after
    signed = history.signed_by(current.text_sha256())
    if step == "sign":
        _may_sign(history, current, signed, actor, party)
        after = "signed" if signed | {party} == history.parties else "proposed"
    if step == "resume" and _institution(version.by) not in (None, party):
        raise _refused(history, step, "suspended-by-other", _("lo suspendió la otra parte y solo ella lo reanuda"))
    if step == "activate" and history.in_force is not None and history.in_force.agreement.status == "suspended":
        raise _refused(history, step, "suspended", _("la versión anterior está suspendida: antes hay que reanudarla"))
    if after == "active":
        if signed != history.parties:
            raise _refused(history, step, "unsigned", _("falta la firma de una parte sobre este texto"))
        if current.valid_to is not None and current.valid_to <= at:
            raise _refused(history, step, "ended", _("su vigencia ya terminó"))
    return replace(current, status=after)


def conflicts(agreements: Iterable[Agreement]) -> list[Contradiction]:
    """Return the pairs of active agreements that differ about the same parties, dataset, purpose and basis.

    Different are fields, labels, treatments, volume or channels, at a time when both are valid. The decision then
    takes the narrower of the two.
    """
    same: dict[tuple[str, str, str], list[Agreement]] = defaultdict(list)
    for agreement in sorted(agreements, key=lambda each: each.code):
        if agreement.status == "active":
            for dataset in agreement.datasets:
                same[agreement.requester, agreement.holder, dataset].append(agreement)
    found = []
    for (requester, holder, dataset), together in sorted(same.items()):
        for first, second in combinations(together, 2):
            purposes = first.purposes & second.purposes
            bases = {each.basis for each in first.bases} & {each.basis for each in second.bases}
            differs = _differences(first, second, dataset)
            if purposes and bases and differs and _meet(first, second):
                shared = tuple(sorted(purposes)), tuple(sorted(bases))
                found.append(Contradiction(first.code, second.code, requester, holder, dataset, *shared, differs))
    return found


def _may_sign(history: History, text: Agreement, signed: frozenset[str], actor: Actor, party: str) -> None:
    if party in signed:
        raise _refused(history, "sign", "signed-before", _("esta parte ya lo firmó"))
    drafters = {
        each.by
        for each in history.versions
        if each.agreement.status == DRAFT and each.agreement.text_sha256() == text.text_sha256()
    }
    if actor.institution is not None and name_of(actor, party) in drafters:
        raise _refused(history, "sign", "drafter", _("quien redactó el texto no lo firma"))


def _institution(by: str | None) -> str | None:
    return by.partition("/")[0] if by is not None and "/" in by else None


def _differences(first: Agreement, second: Agreement, dataset: str) -> tuple[str, ...]:
    compared = {
        "fields": (first.datasets[dataset], second.datasets[dataset]),
        "labels": (first.labels, second.labels),
        "treatments": (_reduced(first, dataset), _reduced(second, dataset)),
        "volume_per_day": (first.volume_per_day, second.volume_per_day),
        "channels": (first.channels, second.channels),
    }
    return tuple(name for name, (one, other) in compared.items() if one != other)


def _reduced(agreement: Agreement, dataset: str) -> dict[str, str]:
    return {field: how for field, how in agreement.treatments.get(dataset, {}).items() if how != "keep"}


def _meet(first: Agreement, second: Agreement) -> bool:
    return (first.valid_to is None or second.valid_from < first.valid_to) and (
        second.valid_to is None or first.valid_from < second.valid_to
    )


def _refused(history: History, step: str, reason: str, what: str) -> StepRefused:
    return StepRefused(history.code, step, reason, what, history.possible())
