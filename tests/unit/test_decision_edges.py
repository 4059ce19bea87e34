"""The edges of the decision, each once, and the trace that explains it; found by mutation (tests/mutation.md)."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from consent_examples import AT, IDENTITY, agreement, caller, consent, person, request
from test_decision import (
    ADMINISTRATOR,
    ANA,
    CLAUSE,
    CONTROLS,
    HEALTH,
    HELD,
    MANDATE,
    RESCUE,
    RESCUERS,
    policy,
    represented,
    rescue_policy,
    rescuer,
)

from consent.authority import may
from consent.decision import decide
from consent.models import UNKNOWN_SUBJECT, AgreedBasis, Request, SubjectFacts
from consent.policy import Policy

OTHER = agreement(code="B", purposes=frozenset({"public-benefit"}))
CONSENT = request(basis="consent")

TRACES: list[tuple[Request, SubjectFacts, Policy, list[str]]] = [
    (request(), person(), policy(), ["request:ok", "agreement:A@3:fits", "person:ok", "effect:permit"]),
    (
        request(purpose="x", basis="y"),
        person(),
        policy(),
        ["request:unknown-purpose,unknown-basis", "effect:deny"],
    ),
    (
        request(),
        person(sealed=True),
        policy(agreement(), OTHER),
        ["request:ok", "agreement:A@3:fits", "agreement:B@3:purpose", "person:sealed", "effect:deny"],
    ),
    (
        replace(CONTROLS, fields=("controls",)),
        person(),
        policy(HEALTH),
        ["request:ok", "agreement:H@3:fits", "fields:none", "effect:deny"],
    ),
    (
        CONSENT,
        person(consents=(consent(fields=frozenset({"cedula"})),)),
        policy(),
        ["request:ok", "agreement:A@3:fits", "person:ok", "consent:A:given", "effect:permit_redacted"],
    ),
    (
        RESCUE,
        person(),
        rescue_policy(),
        ["request:ok", "agreement:E@3:basis", "emergency:ok", "person:ok", "effect:permit_redacted"],
    ),
    (
        RESCUE,
        person(court_order=True),
        rescue_policy(),
        ["request:ok", "agreement:E@3:basis", "emergency:ok", "person:court-order", "effect:deny"],
    ),
    (
        replace(RESCUE, dataset="birth-entry"),
        person(),
        rescue_policy(),
        ["request:ok", "emergency:ok", "clause:none", "effect:deny"],
    ),
    (
        rescuer(authenticated_at=None),
        person(),
        rescue_policy(),
        ["request:ok", "agreement:E@3:basis", "emergency:emergency-login", "effect:deny"],
    ),
]


@pytest.mark.parametrize(("asked", "facts", "rules", "trace"), TRACES)
def test_the_trace_says_every_step(asked: Request, facts: SubjectFacts, rules: Policy, trace: list[str]) -> None:
    assert list(decide(asked, facts, rules).trace) == trace


WHY_NOT: list[tuple[str, dict[str, Any]]] = [
    ("none", {"agreement": "Z"}),
    ("withdrawn", {"state": "withdrawn"}),
    ("not-yet", {"given_at": AT + timedelta(seconds=1)}),
    ("expired", {"expires_at": AT}),
    ("other-scope", {"scope_sha256": b"x"}),
    ("purpose", {"purposes": frozenset({"public-benefit"})}),
    ("representative", {"representation": MANDATE.id}),
]


@pytest.mark.parametrize(("why", "changes"), WHY_NOT)
def test_the_trace_says_why_a_consent_does_not_count(why: str, changes: dict[str, Any]) -> None:
    assert f"consent:A:{why}" in decide(CONSENT, person(consents=(consent(**changes),)), policy()).trace


def test_the_trace_says_when_it_is_the_person_who_cannot_consent() -> None:
    for why, facts in (("deceased", person(deceased=True)), ("minor", person(birth_date=date(2015, 1, 1)))):
        assert f"consent:A:{why}" in decide(CONSENT, replace(facts, consents=(consent(),)), policy()).trace


def test_a_denial_says_all_it_has_to_say_and_nothing_more() -> None:
    rules = policy()
    answer = decide(request(), person(sealed=True), rules)
    assert isinstance(answer.id, UUID)
    assert (answer.policy_version, answer.withheld, answer.treatments) == (rules.version, {}, {})
    assert (answer.retention_days, answer.emergency) == (None, False)


def test_a_denial_cites_the_agreement_it_came_from() -> None:
    assert decide(replace(CONTROLS, fields=("controls",)), person(), policy(HEALTH)).agreement == ("H", 3)
    assert decide(RESCUE, person(sealed=True), rescue_policy()).agreement == ("E", 3)
    opened = consent(fields=frozenset({"profession"}))
    answer = decide(CONSENT, person(consents=(opened,)), policy())
    assert (answer.agreement, answer.withheld) == (("A", 3), dict.fromkeys(IDENTITY, "consent-scope"))


def test_a_permit_has_the_id_of_its_decision() -> None:
    answer = decide(request(), person(), policy())
    assert isinstance(answer.id, UUID)
    assert answer.permit is not None
    assert answer.permit.decision_id == answer.id


def test_the_suspension_of_somebody_else_changes_nothing() -> None:
    assert decide(request(), person(), policy(suspended=("MEC",))).effect == "permit"


def test_a_person_barred_from_a_case_gets_nothing_with_a_token_of_their_own() -> None:
    own = agreement(roles=frozenset({"citizen"}))
    rules = policy(own)
    rules = replace(rules, roles_by_action=rules.roles_by_action | {"disclosure.fetch": frozenset({"citizen"})})
    asked = request(caller=caller(person=MANDATE.id, roles=frozenset({"citizen"})))
    assert decide(asked, person(barred=frozenset({"None"})), rules).effect == "permit"
    assert decide(asked, person(barred=frozenset({str(MANDATE.id)})), rules).reasons == ("barred",)


def test_nobody_is_barred_under_the_name_of_no_person() -> None:
    assert decide(request(), person(barred=frozenset({"None"})), policy()).effect == "permit"


def test_a_volume_of_one_is_good_for_one() -> None:
    assert decide(request(), person(), policy(agreement(volume_per_day=1))).effect == "permit"


def test_a_compartment_counts_only_for_a_role_that_the_caller_has() -> None:
    wide = replace(HEALTH, roles=frozenset({"operator", "supervisor"}))
    held = {("MINNA", "supervisor"): HELD["MINNA", "operator"]}
    asked = replace(CONTROLS, basis="legal-obligation")
    assert set(decide(asked, person(), policy(wide, compartments=held)).withheld.values()) == {"compartment"}


def test_a_field_closed_twice_keeps_both_reasons_apart() -> None:
    rules = policy(agreement(purposes=frozenset({"official-statistics"})))
    asked = request(purpose="official-statistics", fields=("sex", "given_names", "nationality"))
    assert decide(asked, person(), rules).withheld == {
        "given_names": "not-identified",
        "nationality": "not-in-agreement",
    }


def test_a_consent_under_the_agreement_cited_counts_beside_others() -> None:
    second = agreement(code="B")
    facts = person(consents=(consent(agreement="B", scope_sha256=second.scope_sha256()),))
    answer = decide(request(basis="consent", agreement="B"), facts, policy(agreement(), second))
    assert answer.agreement == ("B", 3)
    assert not any(step.startswith(("narrower:", "consent:A")) for step in answer.trace)


def test_a_mandate_is_good_from_its_first_instant() -> None:
    assert represented(replace(MANDATE, valid_from=consent().given_at)).effect == "permit"


def test_of_two_consents_of_the_same_instant_the_one_recorded_last_counts() -> None:
    older, newer = consent(id=UUID(int=1)), consent(id=UUID(int=2), fields=frozenset({"cedula"}))
    for order in ((older, newer), (newer, older)):
        assert decide(CONSENT, person(consents=order), policy()).released == frozenset({"cedula"})


def test_a_login_of_this_very_instant_is_fresh() -> None:
    assert decide(rescuer(authenticated_at=AT), person(), rescue_policy()).emergency


def test_an_emergency_opens_a_sensitive_field_by_its_own_basis_and_a_compartment_held() -> None:
    clause = replace(
        CLAUSE,
        datasets={"health-controls": frozenset({"cedula", "last_control_kind"})},
        labels=frozenset({"identifying", "pregnancy"}),
    )
    asked = replace(RESCUE, dataset="health-controls", basis="official-authority", fields=("last_control_kind",))
    held = {("MDS", "emergency"): frozenset({"pregnancy"})}
    assert decide(asked, person(), policy(clause, assignments=RESCUERS, compartments=held)).emergency
    assert decide(asked, person(), policy(clause, assignments=RESCUERS)).reasons == ("emergency-clause",)


def test_the_norm_of_an_emergency_is_that_of_the_vital_interest() -> None:
    both = replace(CLAUSE, bases=(AgreedBasis("official-authority", "duty"), AgreedBasis("vital-interest", "life")))
    # A role of the clause cannot act in an ordinary way here, so that the glass has to be broken.
    answer = decide(replace(RESCUE, basis="legal-obligation"), person(), policy(both, assignments=RESCUERS))
    assert (answer.emergency, answer.norm) == (True, "life")


def test_an_emergency_where_nothing_is_agreed_has_no_clause() -> None:
    for facts in (person(), UNKNOWN_SUBJECT):
        answer = decide(replace(RESCUE, dataset="birth-entry"), facts, rescue_policy())
        assert (answer.reasons, answer.hides_subject) == (("emergency-clause",), False)


def test_of_agreements_that_open_as_much_the_one_with_a_volume_is_cited() -> None:
    limited = agreement(code="B", volume_per_day=9)
    assert decide(request(), person(), policy(agreement(), limited)).agreement == ("B", 3)
    tighter = agreement(code="C", volume_per_day=8)
    assert decide(request(), person(), policy(agreement(), limited, tighter)).agreement == ("C", 3)


def test_nobody_may_do_what_no_role_does() -> None:
    assert not may(ANA, "nonsense", policy(assignments=ADMINISTRATOR), AT)
