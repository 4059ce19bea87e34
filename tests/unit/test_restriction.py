"""What a restriction in place of a deletion stops, and what the norm leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from consent_examples import AT, PERSON, RECORD, agreement, caller, person, request

from consent.decision import decide
from consent.models import AgreedBasis, Assignment, EmergencyClaim, RestrictionFact
from consent.policy import build_policy
from consent.subject import refusals

TODAY = AT.date()
POLICY = build_policy([agreement()])


@pytest.mark.parametrize(
    ("restriction", "stops"),
    [
        (RestrictionFact("", "", TODAY), True),
        (RestrictionFact("", "", TODAY - timedelta(days=1)), False),
        (RestrictionFact("PN-IDENT", "", TODAY), True),
        (RestrictionFact("MSPBS", "", TODAY), False),
        (RestrictionFact("", "identity", TODAY), True),
        (RestrictionFact("PN-IDENT", "payroll", TODAY), False),
    ],
)
def test_a_restriction_stops_what_it_is_about_up_to_its_last_day(restriction: RestrictionFact, stops: bool) -> None:
    answer = decide(request(), person(restrictions=(restriction,)), POLICY)
    assert answer.reasons == (("restricted",) if stops else ())
    assert answer.hides_subject is stops


@pytest.mark.parametrize(("hour", "stops"), [(2, True), (3, False)])
def test_its_last_day_is_one_of_paraguay(hour: int, stops: bool) -> None:
    asked = request(at=datetime(2026, 6, 2, hour, 59 if stops else 0, tzinfo=UTC))
    answer = decide(asked, person(restrictions=(RestrictionFact("", "", TODAY),)), POLICY)
    assert answer.reasons == (("restricted",) if stops else ())


@pytest.mark.parametrize(("whose", "stops"), [(PERSON, False), (RECORD, True), (None, True)])
def test_a_person_with_their_own_token_still_sees_their_own(whose: UUID | None, stops: bool) -> None:
    restricted = person(restrictions=(RestrictionFact("", "", TODAY),))
    reasons = refusals(request(caller=caller(person=whose)), restricted, POLICY, "official-authority")
    assert reasons == (("restricted",) if stops else ())


def _rescue(**changes: Any) -> Any:
    claim = EmergencyClaim(reason="danger-to-life", incident="911-1")
    who = caller(user="beto", user_verified=True, assurance=2, authenticated_at=AT, roles=frozenset({"emergency"}))
    return request(caller=who, emergency=claim, basis="consent", **changes)


def test_an_emergency_reaches_restricted_data_and_no_other_protection() -> None:
    clause = agreement(bases=(AgreedBasis("vital-interest", "norm"), AgreedBasis("consent", "norm")))
    clause = replace(clause, roles=frozenset({"emergency"}))
    held = {("MDS", "beto"): (Assignment("emergency", None),)}
    rules = build_policy([clause], assignments=held)
    restriction = (RestrictionFact("", "", TODAY),)
    answer = decide(_rescue(), person(restrictions=restriction), rules)
    assert (answer.emergency, answer.reasons) == (True, ())
    sealed = decide(_rescue(), person(restrictions=restriction, sealed=True), rules)
    assert set(sealed.reasons) == {"sealed", "restricted"}
