"""The life of an agreement: no order of events makes it permit without both signatures, or after it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from consent_examples import AT, agreement
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from consent.agreement_life import (
    STEPS,
    History,
    Signature,
    Version,
    acting_for,
    check_new_text,
    conflicts,
    name_of,
    next_version,
)
from consent.errors import StepRefused, UnknownAgreement
from consent.models import Actor, Agreement

REQUESTER, HOLDER = "MDS", "PN-IDENT"
# Two users of each party, whoever runs the machine for each, and a stranger.
ACTORS = [
    (Actor(institution="MDS", user="ana"), None),
    (Actor(institution="MDS", user="luis"), None),
    (Actor(institution="PN-IDENT", user="eva"), None),
    (Actor(institution="PN-IDENT", user="ivo"), None),
    (Actor(institution=None, user="uid:0"), "MDS"),
    (Actor(institution=None, user="uid:0"), "PN-IDENT"),
    (Actor(institution="MEC", user="ada"), None),
]
ANA, LUIS, EVA, IVO = (actor for actor, _party in ACTORS[:4])
# Four texts; the last two end soon.
TEXTS = [
    agreement(es=f"Texto {number}", version=0, valid_to=AT + timedelta(days=30) if number > 1 else None)
    for number in range(4)
]

COMING_INTO_FORCE = (("propose", ANA), ("sign", LUIS), ("sign", EVA), ("activate", IVO))


class Book:
    """Keeps versions and signatures the way the tables do."""

    def __init__(self) -> None:
        self.history: History | None = None
        self.at = AT

    def draft(self, text: Agreement, actor: Actor, party: str | None = None) -> None:
        acting = acting_for(actor, party, "A", frozenset({REQUESTER, HOLDER}))
        if self.history is not None:
            check_new_text(self.history, text)
        self._store(replace(text, status="draft"), name_of(actor, acting))

    def step(self, step: str, actor: Actor, party: str | None = None) -> None:
        assert self.history is not None
        acting = acting_for(actor, party, "A", self.history.parties)
        after = next_version(self.history, step, actor=actor, party=acting, at=self.at)
        if step == "sign":
            signature = Signature(
                text_sha256=after.text_sha256(),
                party=acting,
                signatory=actor.user,
                proof_reference="exp-1",
                at=self.at,
            )
            self.history = replace(self.history, signatures=(*self.history.signatures, signature))
        self._store(after, name_of(actor, acting))

    def _store(self, stored: Agreement, by: str) -> None:
        before = () if self.history is None else self.history.versions
        version = Version(agreement=replace(stored, version=len(before) + 1), by=by, at=self.at)
        signatures = () if self.history is None else self.history.signatures
        self.history = History(versions=(*before, version), signatures=signatures)

    @property
    def status(self) -> str | None:
        in_force = None if self.history is None else self.history.in_force
        return None if in_force is None else in_force.agreement.status


class Life(RuleBasedStateMachine):
    """Anybody does anything in any order; what may be in force is kept here by hand, from the events alone."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.permits = False
        self.stopped_by: str | None = None
        self.drafted: dict[bytes, set[str]] = {}
        self.signed: dict[bytes, set[str]] = {}
        self.ever_signed: set[bytes] = set()

    @initialize(begun=st.booleans())
    def begin(self, begun: bool) -> None:
        """Half of the lives begin in force."""
        if begun:
            self.draft(TEXTS[0], (ANA, None))
            for step, actor in COMING_INTO_FORCE:
                self._take(step, actor, None)

    @rule(text=st.sampled_from(TEXTS), who=st.sampled_from(ACTORS))
    def draft(self, text: Agreement, who: tuple[Actor, str | None]) -> None:
        actor, party = who
        try:
            self.book.draft(text, actor, party)
        except (StepRefused, UnknownAgreement):
            return
        assert actor.institution != "MEC"
        assert text.text_sha256() not in self.ever_signed
        self.drafted.setdefault(text.text_sha256(), set()).add(str(actor))

    @rule(step=st.sampled_from(sorted(STEPS)), who=st.sampled_from(ACTORS))
    def try_anything(self, step: str, who: tuple[Actor, str | None]) -> None:
        if self.book.history is not None:
            self._take(step, *who)

    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """Take a step that the statuses allow, or most lives would be short."""
        steps = () if self.book.history is None else self.book.history.possible()[1:]
        if steps:
            self._take(data.draw(st.sampled_from(steps)), *data.draw(st.sampled_from(ACTORS[:6])))

    def _take(self, step: str, actor: Actor, party: str | None) -> None:
        assert self.book.history is not None
        pending = self.book.history.pending
        try:
            self.book.step(step, actor, party)
        except (StepRefused, UnknownAgreement):
            return
        acting = actor.institution or party
        assert acting in (REQUESTER, HOLDER)
        if step == "sign":
            assert pending is not None
            text = pending.agreement.text_sha256()
            assert text in self.drafted
            assert actor.institution is None or str(actor) not in self.drafted[text]
            self.signed.setdefault(text, set()).add(acting)
            self.ever_signed.add(text)
        if step == "resume":
            assert acting == self.stopped_by
        if step in ("suspend", "expire"):
            self.permits, self.stopped_by = False, acting
        if step == "expire":
            # What was drafted and signed before the agreement ended counts for nothing that comes after.
            self.signed.clear()
            self.drafted.clear()
        if step in ("activate", "resume"):
            self.permits = True

    @rule()
    def days_pass(self) -> None:
        self.book.at += timedelta(days=10)

    @invariant()
    def only_what_both_signed_and_nobody_stopped_is_active(self) -> None:
        assert (self.book.status == "active") == self.permits
        if self.permits:
            assert self.book.history is not None
            assert self.book.history.in_force is not None
            assert self.signed[self.book.history.in_force.agreement.text_sha256()] == {REQUESTER, HOLDER}


Life.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestLife = Life.TestCase


def active() -> Book:
    book = Book()
    book.draft(TEXTS[0], ANA)
    for step, actor in COMING_INTO_FORCE:
        book.step(step, actor)
    return book


def refusal(act: Callable[..., None], *arguments: Any) -> StepRefused:
    with pytest.raises(StepRefused) as caught:
        act(*arguments)
    return caught.value


def test_a_text_comes_into_force_once_both_parties_signed_it() -> None:
    book = Book()
    book.draft(TEXTS[0], ANA)
    book.step("propose", EVA)
    book.step("sign", LUIS)
    assert book.history is not None
    assert book.history.possible() == ("draft", "sign")
    assert refusal(book.step, "activate", LUIS).possible == ("draft", "sign")
    book.step("sign", EVA)
    assert book.history.possible() == ("draft", "activate")
    book.step("activate", LUIS)
    assert book.status == "active"
    assert [each.agreement.status for each in book.history.versions] == [
        "draft",
        "proposed",
        "proposed",
        "signed",
        "active",
    ]


def test_who_drafted_a_text_does_not_sign_it_and_a_party_signs_once() -> None:
    book = Book()
    book.draft(TEXTS[0], ANA)
    book.step("propose", ANA)
    assert refusal(book.step, "sign", ANA).reason == "drafter"
    book.step("sign", LUIS)
    assert refusal(book.step, "sign", LUIS).reason == "signed-before"
    assert refusal(book.step, "sign", ACTORS[4][0], "MDS").reason == "signed-before"


def test_a_changed_text_needs_both_signatures_again_and_leaves_the_old_one_in_force() -> None:
    book = active()
    book.draft(TEXTS[1], EVA)
    assert book.status == "active"
    assert refusal(book.step, "activate", EVA).reason == "status"
    book.step("propose", EVA)
    book.step("sign", IVO)
    assert refusal(book.step, "activate", EVA).reason == "status"
    book.step("sign", ANA)
    book.step("activate", ANA)
    assert book.history is not None
    assert book.history.in_force is not None
    assert book.history.in_force.agreement.es == "Texto 1"
    assert refusal(book.draft, TEXTS[0], ANA).reason == "text-known"


def test_only_who_suspended_resumes_and_a_new_text_does_not_go_round_it() -> None:
    book = active()
    book.draft(TEXTS[1], ANA)
    for step, actor in (("propose", ANA), ("sign", LUIS), ("sign", EVA), ("suspend", EVA)):
        book.step(step, actor)
    assert refusal(book.step, "resume", ANA).reason == "suspended-by-other"
    assert refusal(book.step, "activate", ANA).reason == "suspended"
    book.step("resume", IVO)
    book.step("activate", ANA)
    assert book.status == "active"


def test_what_ended_stays_ended_with_the_text_under_negotiation() -> None:
    book = active()
    book.draft(TEXTS[1], ANA)
    for step, actor in (("propose", ANA), ("sign", LUIS), ("sign", EVA), ("expire", EVA)):
        book.step(step, actor)
    for step in STEPS:
        assert refusal(book.step, step, ANA).possible == ("draft",)
    for text in TEXTS[:2]:
        assert refusal(book.draft, text, ANA).reason == "text-known"


def test_a_text_whose_time_is_over_does_not_come_into_force() -> None:
    book = Book()
    book.draft(TEXTS[2], ANA)
    for step, actor in (("propose", ANA), ("sign", LUIS), ("sign", EVA)):
        book.step(step, actor)
    book.at += timedelta(days=31)
    assert refusal(book.step, "activate", ANA).reason == "ended"


def test_what_was_stored_without_signatures_is_not_resumed() -> None:
    book = Book()
    book._store(replace(TEXTS[0], status="suspended"), "demonstration")
    assert refusal(book.step, "resume", ANA).reason == "unsigned"


ONE = agreement(code="ONE", datasets={"identity": frozenset({"cedula", "sex"})})


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"datasets": {"identity": frozenset({"cedula"})}}, ("fields",)),
        ({"labels": frozenset({"identifying", "economic"})}, ("labels",)),
        ({"treatments": {"identity": {"sex": "mask"}}}, ("treatments",)),
        ({"volume_per_day": 10, "channels": frozenset({"api", "console"})}, ("volume_per_day", "channels")),
        ({"treatments": {"identity": {"sex": "keep"}}}, None),
        ({"roles": frozenset({"supervisor"})}, None),
        ({"status": "suspended", "volume_per_day": 10}, None),
        ({"requester": "MSPBS", "volume_per_day": 10}, None),
        ({"purposes": frozenset({"public-benefit"}), "volume_per_day": 10}, None),
        ({"bases": agreement().bases[:1], "volume_per_day": 10}, ("volume_per_day",)),
        ({"valid_from": AT + timedelta(days=9), "volume_per_day": 10}, None),
    ],
)
def test_two_active_agreements_about_the_same_exchange_that_differ_contradict_each_other(
    changes: dict[str, Any], differs: tuple[str, ...] | None
) -> None:
    one = replace(ONE, valid_to=AT)
    other = replace(ONE, code="TWO", **changes)
    found = conflicts([other, one])
    if differs is None:
        assert found == []
        return
    [contradiction] = found
    assert (contradiction.first, contradiction.second, contradiction.differs) == ("ONE", "TWO", differs)
    assert set(contradiction.bases) == {each.basis for each in other.bases}
