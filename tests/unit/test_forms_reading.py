"""Which forms cannot be true, and what is told of them; numbers for those without a cédula; what counts of two."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from gateway import errors
from gateway.catalogue.models import Service
from gateway.intake.forms_reading import Form, read_form
from gateway.registry.local_ids import new_local_id, parse_local_id, spoken
from gateway.registry.observations import Observation, judged
from gateway.registry.service import normalise
from schemas import geography
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier, SchemaError
from schemas.ids import uuid7
from schemas.validation import validate

TODAY = date(2026, 11, 23)
SERVICES = {
    code: Service(
        code=code,
        institution=spec["institution"],
        names={"es": spec["es"], "en": spec["en"]},
        categories=frozenset(spec["categories"]),
        requires=spec.get("requires"),
        from_age=spec.get("from_age"),
        response_days=spec["response_days"],
    )
    for code, spec in code_list("services").items()
}
PLACE = {"department": "05", "district": "0521", "locality": "San Miguel"}
ANA: dict[str, Any] = {"given_names": "Ana", "surnames": "Páez", "birth_date": "1990-05-01", "sex": "F"}


def form(**changes: Any) -> dict[str, Any]:
    return {"kind": "full", "observed_on": "2026-11-20", "place": PLACE, "members": [ANA], **changes}


def read(message: dict[str, Any]) -> Form:
    validate(f"form-{message['kind']}", message)
    return read_form(message, SERVICES, TODAY)


def wrong(message: dict[str, Any]) -> dict[str, errors.Mistake]:
    with pytest.raises(errors.Invalid) as refused:
        read(message)
    assert refused.value.code == "invalid-form"
    return {each.pointer: each for each in refused.value.mistakes}


@pytest.mark.parametrize(
    ("changes", "pointer", "rule"),
    [
        ({"observed_on": "2026-02-30"}, "/observed_on", "not-a-date"),
        ({"observed_on": "20261120"}, "/observed_on", "not-a-date"),
        ({"observed_on": "2026-11-24"}, "/observed_on", "in-the-future"),
        ({"members": []}, "/members", "no-members"),
        ({"members": [ANA, ANA | {"birth_date": "2026-11-21"}]}, "/members/1/birth_date", "born-later"),
        ({"members": [ANA | {"birth_date": "1890-01-01"}]}, "/members/0/birth_date", "impossible-age"),
        ({"members": [ANA | {"deceased_on": "1980-01-01"}]}, "/members/0/deceased_on", "died-before-birth"),
        ({"members": [ANA | {"sex": "X"}]}, "/members/0/sex", "unknown-code"),
        ({"members": [ANA | {"relation": "boss"}]}, "/members/0/relation", "unknown-code"),
        ({"members": [ANA | {"services": {"flights": True}}]}, "/members/0/services/flights", "unknown-service"),
        ({"members": [ANA | {"services": {"tekopora": True}}]}, "/members/0/services/tekopora", "unknown-service"),
        ({"household": {"services": {"vaccination": True}}}, "/household/services/vaccination", "unknown-service"),
        ({"household": {"characteristics": {"pregnant": True}}}, "/household/characteristics/pregnant", "unknown-code"),
        ({"household": {"id": "here"}}, "/household/id", "unknown-household"),
        (
            {"members": [ANA | {"identifier": {"system": "cedula", "value": "1.234.567"}}]},
            "/members/0/identifier/value",
            "bad-identifier",
        ),
        (
            {"members": [ANA | {"identifier": {"system": "cedula", "value": cedula}} for cedula in ("0777", "777")]},
            "/members/1/identifier/value",
            "twice-on-the-form",
        ),
        ({"place": PLACE | {"department": "18"}}, "/place/department", "tax-authority-code"),
        ({"place": PLACE | {"department": "99"}}, "/place/department", "unknown-department"),
        ({"place": PLACE | {"district": "0001"}}, "/place/district", "unknown-district"),
        ({"place": PLACE | {"district": "1101"}}, "/place/district", "district-of-another-department"),
        (
            {"kind": "community", "members": None, "priorities": ["tekopora", "tekopora"]},
            "/priorities/1",
            "twice-in-the-list",
        ),
        ({"kind": "community", "members": None, "priorities": ["roads"]}, "/priorities/0", "unknown-service"),
    ],
)
def test_what_cannot_be_is_told_with_its_place_and_the_choices(
    changes: dict[str, Any], pointer: str, rule: str
) -> None:
    told = wrong({name: value for name, value in form(**changes).items() if value is not None})
    assert {place: each.rule for place, each in told.items()} == {pointer: rule}
    assert told[pointer].detail
    assert bool(told[pointer].allowed) == (rule.startswith(("unknown-c", "unknown-s", "unknown-d", "tax", "district")))


def test_a_district_of_the_tax_authority_is_known_as_such_in_every_department() -> None:
    for department in geography.departments():
        there = geography.districts(department.ine)
        for code in {place.sifen for place in there if place.sifen is not None}:
            told = wrong(form(place=PLACE | {"department": department.ine, "district": code}))
            assert told["/place/district"].rule == "tax-authority-code"
            assert told["/place/district"].allowed == tuple(place.ine for place in there)


def test_every_mistake_is_told_at_once() -> None:
    told = wrong(form(observed_on="x", place=PLACE | {"district": "1"}, members=[ANA | {"sex": "-"}]))
    assert told.keys() == {"/observed_on", "/place/district", "/members/0/sex"}


def test_a_form_is_read_into_observations_and_facts() -> None:
    member = ANA | {"characteristics": {"pregnant": True}, "services": {"prenatal-control": False}}
    found = read(form(members=[member], household={"characteristics": {"poverty": False}}))
    [ana] = found.members
    assert ana.observed == {"pregnant": "true", "birth_date": "1990-05-01", "sex": "F"}
    assert (ana.services, found.household_observed) == ({"prenatal-control": False}, {"poverty": "false"})


def test_a_simplified_form_has_neither_services_nor_characteristics() -> None:
    with pytest.raises(SchemaError):
        read(form(kind="simplified", members=[ANA | {"services": {"vaccination": True}}]))


# Local numbers


def test_a_local_number_is_found_again_however_it_was_written() -> None:
    number = new_local_id()
    assert len(number) == 10
    assert normalise("local", spoken(number)) == normalise("local", f" {number} ") == number


def test_a_wrong_digit_and_two_exchanged_are_always_found() -> None:
    number = new_local_id()
    for place in range(10):
        for digit in set("0123456789") - {number[place]}:
            with pytest.raises(InvalidIdentifier):
                parse_local_id(number[:place] + digit + number[place + 1 :])
    for place in range(9):
        exchanged = number[:place] + number[place + 1] + number[place] + number[place + 2 :]
        if exchanged != number:
            with pytest.raises(InvalidIdentifier):
                parse_local_id(exchanged)


@pytest.mark.parametrize("text", ["", "123", "0123456789", "١٢٣٤٥٦٧٨٩٠", "1234567", "1" * 30])
def test_what_is_no_local_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdentifier):
        parse_local_id(text)


# What counts


def seen(value: str, day: int, instrument: str = "fips", hour: int = 0) -> Observation:
    at = datetime(2026, 11, 20, hour, tzinfo=UTC)
    return Observation(uuid7(), "pregnant", value, "UTGS", instrument, date(2026, 11, day), at, None)


@pytest.mark.parametrize(
    ("observations", "counts"),
    [
        ([seen("true", 2), seen("false", 1, "counter-referral", 9)], "true"),
        ([seen("true", 1, "register"), seen("false", 1, "fips", 9)], "true"),
        ([seen("true", 1, hour=3), seen("false", 1, hour=2)], "true"),
        ([seen("false", 1), seen("true", 1)], "true"),
        ([seen("false", 1, "hearsay", 9), seen("true", 1, "synthetic-form")], "true"),
    ],
    ids=["newest-day", "rank-of-instrument", "recorded-last", "added-last", "unlisted-instrument"],
)
def test_one_rule_says_what_counts_and_the_others_stay_beside_it(observations: list[Observation], counts: str) -> None:
    for some in (observations, observations[::-1]):
        told = judged(some)["pregnant"]
        assert told.counts.value == counts
        assert {told.counts.id, *(other.id for other in told.others)} == {each.id for each in observations}
        assert told.contradicted
