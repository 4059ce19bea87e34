"""No order of events yields a permit after withdrawal, expiry, suspension, objection or seal, until what renews it.

The agreement lives by the rules of ``consent/agreement_life.py``; answers and protection are kept as the tables keep
them. Beside them the machine notes, from the events alone, what may be in force, and holds every decision to it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from consent_examples import AT, agreement, consent, person, request
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_agreement_life import ACTORS, ANA, EVA, LUIS, Book

from consent.agreement_life import STEPS
from consent.decision import decide
from consent.errors import StepRefused, UnknownAgreement
from consent.models import Agreement, ConsentFact, RepresentationFact, SubjectFacts
from consent.policy import Policy, build_policy
from schemas.ids import uuid7

PURPOSE = "service-provision"
MOTHER = UUID("01980000-0000-7000-8000-00000000000a")
MANDATE = RepresentationFact(
    id=UUID("01980000-0000-7000-8000-00000000000b"), representative=MOTHER, kind="parent", valid_from=AT
)
# Comes of age after 40 days, at midnight in Paraguay.
BORN = date(2008, 7, 11)
OF_AGE = AT.replace(month=7, day=11, hour=3)
FEWER = {"identity": frozenset({"cedula", "sex"})}
# The same scope under two texts, another scope, and a text that ends after 60 days.
TEXTS = (
    agreement(es="Texto 1", version=0),
    agreement(es="Texto 2", version=0),
    agreement(es="Texto 3", version=0, datasets=FEWER),
    agreement(es="Texto 4", version=0, valid_to=AT + timedelta(days=60)),
)


class Lives(RuleBasedStateMachine):
    """The life of one agreement, of one person's answers under it, and of what protects that person."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.answers: list[ConsentFact] = []
        self.mandate = MANDATE
        self.sealed = self.objects = self.barred = False
        # What the events alone say.
        self.active = False
        self.consented: ConsentFact | None = None

    @rule(text=st.sampled_from(TEXTS), step=st.sampled_from(("draft", *STEPS)), who=st.sampled_from(ACTORS))
    def try_anything(self, text: Agreement, step: str, who: tuple[Any, str | None]) -> None:
        if step == "draft" or self.book.history is not None:
            self._take(step, text, *who)

    @rule(text=st.sampled_from(TEXTS))
    def agree(self, text: Agreement) -> None:
        """Negotiate a text to its end, or as far as the rules allow, or most lives would never permit anything."""
        for step, actor in (("draft", ANA), ("propose", EVA), ("sign", LUIS), ("sign", EVA), ("activate", EVA)):
            if step == "draft" or self.book.history is not None:
                self._take(step, text, actor)

    @precondition(lambda self: self.book.history is not None)
    @rule(step=st.sampled_from(("suspend", "resume", "suspend", "resume", "expire")), who=st.sampled_from((ANA, EVA)))
    def stop_or_go_on(self, step: str, who: Any) -> None:
        self._take(step, TEXTS[0], who)

    def _take(self, step: str, text: Agreement, actor: Any, party: str | None = None) -> None:
        try:
            if step == "draft":
                self.book.draft(text, actor, party)
            else:
                self.book.step(step, actor, party)
        except (StepRefused, UnknownAgreement):
            return
        if step in ("activate", "resume"):
            self.active = True
        elif step in ("suspend", "expire"):
            self.active = False

    @property
    def in_force(self) -> Agreement | None:
        version = None if self.book.history is None else self.book.history.in_force
        return None if version is None else version.agreement

    @precondition(lambda self: self.active)
    @rule(by_mother=st.booleans(), days=st.none() | st.sampled_from((1, 30)))
    def give(self, by_mother: bool, days: int | None) -> None:
        assert self.in_force is not None
        given = consent(
            id=uuid7(),
            given_at=self._now(),
            expires_at=None if days is None else self.book.at + timedelta(days=days),
            scope_sha256=self.in_force.scope_sha256(),
            representation=MANDATE.id if by_mother else None,
        )
        self.answers.append(given)
        self.consented = given

    def _now(self) -> datetime:
        """An instant later than the last: of two answers of the same one the refusal counts, whichever came first."""
        self.book.at += timedelta(microseconds=1)
        return self.book.at

    @rule(state=st.sampled_from(("refused", "given")))
    def answer_otherwise(self, state: Any) -> None:
        """Refuse, or consent to another purpose: either way the answer before counts no more."""
        self.answers.append(
            consent(id=uuid7(), given_at=self._now(), state=state, purposes=frozenset({"public-benefit"}))
        )
        self.consented = None

    @rule(state=st.sampled_from(("withdrawn", "revoked", "expired")))
    def end_consents(self, state: Any) -> None:
        self.answers = [replace(each, state=state) if each.state == "given" else each for each in self.answers]
        self.consented = None

    @rule(at_once=st.booleans())
    def end_mandate(self, at_once: bool) -> None:
        if self.mandate.ended_at is None:
            self.mandate = replace(self.mandate, ended_at=self.book.at + timedelta(days=0 if at_once else 5))

    @rule(which=st.sampled_from(("sealed", "objects", "barred")), on=st.booleans())
    def protect(self, which: str, on: bool) -> None:
        setattr(self, which, on)

    @rule(time=st.sampled_from((timedelta(microseconds=1), timedelta(hours=12), timedelta(days=1), timedelta(days=9))))
    def time_passes(self, time: timedelta) -> None:
        self.book.at += time

    @invariant()
    def every_decision_is_what_the_events_say(self) -> None:
        at = self.book.at
        agreed = self.in_force
        open_now = self.active and agreed is not None and (agreed.valid_to is None or at < agreed.valid_to)
        open_now = open_now and not self.sealed
        facts = person(
            birth_date=BORN,
            sealed=self.sealed,
            objections=frozenset({PURPOSE} if self.objects else ()),
            barred=frozenset({str(MOTHER)} if self.barred else ()),
            consents=tuple(self.answers),
            representations=(self.mandate,),
        )
        expected = {
            "legal-obligation": open_now,
            "official-authority": open_now and not self.objects,
            "consent": open_now and not self.objects and self._consent_counts(agreed),
        }
        policy = build_policy([] if agreed is None else [agreed])
        assert {basis: self._permitted(basis, facts, policy) for basis in expected} == expected

    def _consent_counts(self, agreed: Agreement | None) -> bool:
        given, at = self.consented, self.book.at
        if given is None or agreed is None or given.scope_sha256 != agreed.scope_sha256():
            return False
        if given.expires_at is not None and given.expires_at <= at:
            return False
        if given.representation is None:
            return at >= OF_AGE
        ended = self.mandate.ended_at is not None and self.mandate.ended_at <= at
        return at < OF_AGE and not ended and not self.barred

    def _permitted(self, basis: str, facts: SubjectFacts, policy: Policy) -> bool:
        return decide(request(basis=basis, at=self.book.at), facts, policy).permit is not None


Lives.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestLives = Lives.TestCase


def test_the_lives_drawn_consent_often_enough_to_mean_something() -> None:
    permitted: list[str] = []

    class Watched(Lives):
        def _permitted(self, basis: str, facts: SubjectFacts, policy: Policy) -> bool:
            answer = super()._permitted(basis, facts, policy)
            permitted.extend([basis] * answer)
            return answer

    Watched.TestCase.settings = settings(
        max_examples=40, stateful_step_count=50, deadline=None, database=None, derandomize=True
    )
    Watched.TestCase("runTest").runTest()
    assert permitted.count("consent") >= 20
    assert permitted.count("official-authority") > permitted.count("consent")
