"""What the facts advise on the universal pension: each rule by itself, at its edges, and with a source missing."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from gateway.crossing import pension
from gateway.crossing.models import Advice, Answer

TODAY = date(2026, 11, 22)
AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
CARD = {
    "cedula": "29900001",
    "given_names": "Ramona",
    "surnames": "Zárate",
    "birth_date": "1955-03-14",
    "nationality": "PARAGUAYA",
}
SEVERE = {"match": True, "degree": "severe", "valid_until": "2029-05-06"}
COMMUNITY = {"community": "Yalve Sanga", "registered": True}


def answer(dataset: str, facts: dict[str, Any] | str) -> Answer:
    if isinstance(facts, str):
        return Answer(dataset, facts, {}, "X", "", None, None, "timeout")  # type: ignore[arg-type]
    return Answer(dataset, "found", facts, "X", "x", AT, "r")


def advise(born: str = "1955-03-14", nationality: str = "PARAGUAYA", **facts: dict[str, Any] | str) -> Advice:
    """Advise on an applicant of whom nothing is known but identity and the facts given (``_`` for ``-``)."""
    given = {name.replace("_", "-"): value for name, value in facts.items()}
    identity = answer("identity", CARD | {"birth_date": born, "nationality": nationality})
    asked = pension.asked(identity, TODAY, certificate="disability-certificate" in given)
    assert set(given) <= asked | {"identity"}, "a fact that nobody would have asked for"
    answers = {name: answer(name, given.get(name, "absent")) for name in asked}
    return pension.advise({"identity": identity} | answers, TODAY)


def codes(advice: Advice) -> set[str]:
    return {finding.code for finding in advice.findings}


@pytest.mark.parametrize(
    ("born", "verdict"),
    [("1961-11-22", "meets"), ("1961-11-23", "does-not-meet"), ("1930-01-01", "meets")],
)
def test_sixty_five_years_count_from_the_birthday(born: str, verdict: str) -> None:
    assert advise(born).verdict == verdict


@pytest.mark.parametrize(
    ("born", "certificate", "verdict", "code"),
    [
        ("1966-11-22", SEVERE, "meets", "age-60-disability"),
        ("1963-01-01", SEVERE | {"degree": "moderate"}, "does-not-meet", "disability-not-severe"),
        ("1963-01-01", SEVERE | {"valid_until": "2026-11-21"}, "does-not-meet", "certificate-expired"),
        ("1963-01-01", SEVERE | {"valid_until": "2026-11-22"}, "meets", "age-60-disability"),
        ("1963-01-01", {"match": False}, "does-not-meet", "certificate-of-another"),
        ("1963-01-01", "absent", "does-not-meet", "no-certificate"),
    ],
)
def test_from_sixty_a_certificate_that_senadis_confirms(born: str, certificate: Any, verdict: str, code: str) -> None:
    advice = advise(born, disability_certificate=certificate)
    assert advice.verdict == verdict
    assert code in codes(advice)


def test_a_certificate_is_asked_about_only_where_it_decides() -> None:
    for born, shown, expected in (
        ("1966-11-23", True, False),
        ("1966-11-22", False, False),
        ("1961-11-22", True, False),
    ):
        identity = answer("identity", CARD | {"birth_date": born})
        assert ("disability-certificate" in pension.asked(identity, TODAY, certificate=shown)) is expected
    identity = answer("identity", CARD | {"birth_date": "1966-11-22"})
    assert "disability-certificate" in pension.asked(identity, TODAY, certificate=True)


@pytest.mark.parametrize(
    ("born", "community", "verdict"),
    [
        ("1971-11-22", COMMUNITY, "meets"),
        ("1970-01-01", COMMUNITY | {"registered": False}, "does-not-meet"),
        ("1970-01-01", "absent", "does-not-meet"),
    ],
)
def test_from_fifty_five_a_registered_community(born: str, community: Any, verdict: str) -> None:
    assert advise(born, indigenous_community=community).verdict == verdict


@pytest.mark.parametrize(
    ("nationality", "since", "verdict", "code"),
    [
        ("BRASILEÑA", "1996-11-22", "meets", "residence"),
        ("BRASILEÑA", "1996-11-23", "does-not-meet", "residence"),
        ("PARAGUAYA NATURALIZADA", "2012-09-17", "look", "naturalised"),
        ("PARAGUAYA NATURALIZADA", "2023-07-03", "does-not-meet", "residence"),
    ],
)
def test_foreigners_need_thirty_years_and_the_naturalised_five(
    nationality: str, since: str, verdict: str, code: str
) -> None:
    entry = {"given_names": "Ramona", "surnames": "ZÁRATE", "birth_date": "1955-03-14", "entry_date": since}
    advice = advise(nationality=nationality, residence=entry)
    assert advice.verdict == verdict
    assert code in codes(advice)
    another = advise(nationality=nationality, residence=entry | {"birth_date": "1955-03-15"})
    assert (another.verdict, "residence-of-another" in codes(another)) == ("look", True)


@pytest.mark.parametrize(
    ("facts", "verdict", "code"),
    [
        ({"death": {"death_date": "2025-08-03"}}, "does-not-meet", "deceased"),
        ({"payroll": {"year": 2026, "month": 8, "entity": "MEC"}}, "does-not-meet", "on-payroll"),
        ({"payroll": {"year": 2026, "month": 7, "entity": "MEC"}}, "meets", "on-payroll"),
        ({"social_insurance": {"insured_type": "pensioner", "enrolled": True}}, "does-not-meet", "other-pension"),
        ({"social_insurance": {"insured_type": "holder", "enrolled": True}}, "does-not-meet", "insured"),
        ({"social_insurance": {"insured_type": "holder", "enrolled": False}}, "meets", "not-contributing"),
        ({"social_insurance": {"insured_type": "dependant", "enrolled": True}}, "meets", "not-contributing"),
        ({"ruc": {"status": "active"}}, "does-not-meet", "taxpayer"),
        ({"ruc": {"status": "cancelled"}}, "meets", "taxpayer"),
        ({"pension_roll": {"status": "active", "since": "2021-04-01"}}, "does-not-meet", "already-on-roll"),
        ({"pension_roll": {"status": "ended", "since": "2021-04-01"}}, "meets", "age-65"),
        ({"birth": {"birth_date": "1966-05-10"}}, "look", "birth-dates-differ"),
    ],
)
def test_what_excludes_and_what_is_only_noted(facts: dict[str, Any], verdict: str, code: str) -> None:
    advice = advise(**facts)
    assert advice.verdict == verdict
    assert code in codes(advice)


def test_the_dead_on_the_roll_are_named_as_such() -> None:
    roll = {"status": "active", "since": "2021-04-01"}
    advice = advise(death={"death_date": "2025-08-03"}, pension_roll=roll)
    assert {"deceased", "dead-on-roll"} <= codes(advice)
    assert "already-on-roll" not in codes(advice)


def test_a_source_that_is_silent_leaves_the_advice_incomplete_unless_another_already_says_no() -> None:
    silent = advise(ruc="unavailable")
    assert silent.verdict == "incomplete"
    assert ["ruc" in text for text in silent.missing] == [True]
    assert advise(ruc="denied").verdict == "incomplete"
    assert advise(ruc="unavailable", death={"death_date": "2025-08-03"}).verdict == "does-not-meet"
    # Without the one fact that could open the door before 65, nobody is told no.
    assert advise("1963-01-01", disability_certificate="unavailable").verdict == "incomplete"


@pytest.mark.parametrize("state", ["absent", "denied", "unavailable"])
def test_without_identity_there_is_no_advice(state: str) -> None:
    advice = pension.advise({"identity": answer("identity", state)}, TODAY)
    assert (advice.verdict, advice.findings, len(advice.missing)) == ("incomplete", (), 1)
