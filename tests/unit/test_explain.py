"""An explanation follows the decision rule by rule; the documentation's three cases are those of the program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from consent_examples import AT, agreement, consent, person, request
from hypothesis import given, settings
from test_decision_properties import CASES

from consent.cases import Case, cases, explained, policy
from consent.decision import decide
from consent.explain import account_logged, account_of, explain
from consent.models import Request, SubjectFacts
from consent.policy import Policy, build_policy
from gateway import evidence
from schemas.codes import code_list

PAGE = (Path(__file__).parents[2] / "docs/explanation/decision.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.code)
def test_the_documentation_walks_through_the_cases_that_the_program_prints(case: Case) -> None:
    marks = {"yes": "✓", "no": "✗", "note": "·"}
    lines = [f"  {marks[line.verdict]} {line.text}" for line in explained(case, policy())]
    assert "\n".join([case.title, case.story, *lines]) in PAGE


def test_the_three_cases_end_as_their_titles_promise() -> None:
    rules = policy()
    effects = {case.code: decide(case.request, case.facts, rules) for case in cases()}
    assert effects["pension"].effect == "permit"
    assert set(effects["health"].withheld.values()) == {"consent-sensitive", "consent-scope"}
    assert effects["violence"].reasons == ("sealed",)


@given(CASES)
@settings(max_examples=150, deadline=None)
def test_every_decision_can_be_explained_now_and_from_its_entry_alike(
    case: tuple[Request, SubjectFacts, Policy],
) -> None:
    asked, facts, rules = case
    decision = decide(asked, facts, rules)
    lines = explain(account_of(asked, decision))
    assert lines[-1].text
    verdict = next(line for line in lines if line.rule == "effect").verdict
    assert verdict == ("no" if decision.effect == "deny" else "yes")
    logged = account_logged(evidence.decided("disclosure.denied", asked, decision, subject=None).groups)
    assert logged is not None
    # The log sorts the fields; everything else is told in the same order.
    assert [line[:2] for line in explain(logged)] == [line[:2] for line in lines] or len(decision.withheld) > 1


def test_the_narrower_of_two_agreements_is_named() -> None:
    wide, narrow = agreement(code="A"), agreement(code="B", datasets={"identity": frozenset({"cedula"})})
    asked = request()
    lines = explain(account_of(asked, decide(asked, person(), build_policy([wide, narrow]))))
    [line] = [line for line in lines if line.rule == "narrower"]
    assert "A, B" in line.text


@pytest.mark.parametrize("state", ["withdrawn", "refused", "revoked", "invalidated"])
def test_why_a_consent_does_not_count_is_said(state: str) -> None:
    facts = person(consents=(consent(state=state),))
    asked = request(basis="consent")
    lines = explain(account_of(asked, decide(asked, facts, build_policy([agreement()]))))
    assert code_list("consent-problems")[state]["es"] in next(line.text for line in lines if line.rule == "consent")


def test_a_request_that_no_agreement_foresees_is_told_so() -> None:
    asked = replace(request(), holder="MSPBS", at=AT)
    lines = explain(account_of(asked, decide(asked, person(), build_policy([]))))
    assert any(line.rule == "agreement" and line.verdict == "no" for line in lines)
