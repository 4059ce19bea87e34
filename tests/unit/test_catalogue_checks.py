"""What a catalogue must be to count: every code it names is there, ages, hours and routes are in order."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.catalogue import reading
from gateway.catalogue.changes import plan
from gateway.catalogue.models import KINDS, Item
from schemas.codes import code_list
from schemas.errors import SchemaError

LISTS = {"routes": "service-routes"}
ITEMS = {
    kind: {
        code: Item({**spec, "demonstration": True}, 1, datetime(2026, 11, 1, tzinfo=UTC))
        for code, spec in code_list(LISTS.get(kind, kind)).items()
    }
    for kind in KINDS
}
DOCUMENTS = {kind: {code: item.document for code, item in items.items()} for kind, items in ITEMS.items()}


def changed(kind: str, code: str, **fields: Any) -> dict[str, dict[str, Any]]:
    """A change of one shipped entry; a field with None is taken away."""
    document = {**copy.deepcopy(DOCUMENTS[kind][code]), **fields}
    return {kind: {code: {name: value for name, value in document.items() if value is not None}}}


def test_what_is_shipped_follows_its_schema_and_hangs_together() -> None:
    empty = {kind: dict[str, Item]() for kind in KINDS}
    planned = plan(empty, DOCUMENTS)
    assert planned.mistakes == []
    assert planned.changed == DOCUMENTS


def test_every_category_of_the_life_cycle_has_one_core_package() -> None:
    core = [each["category"] for each in DOCUMENTS["packages"].values() if each["kind"] == "core"]
    assert sorted(core) == sorted(code_list("life-cycle"))
    assert {each["kind"] for each in DOCUMENTS["packages"].values()} == {"core", "extended", "differential"}


def test_services_that_apply_to_whole_categories_of_persons_are_the_ten_of_the_first_release() -> None:
    units = {code: spec["unit"] for code, spec in code_list("life-cycle").items()}
    found = {
        code
        for code, document in DOCUMENTS["services"].items()
        if any(units[category] != "community" for category in document["categories"])
    }
    assert found == {
        "prenatal-control", "vaccination", "growth-control", "school-enrolment", "abrazo", "vocational-training",
        "universal-pension", "health-control", "tekopora",
    }  # fmt: skip


OFFER = {"service": "vaccination"}
WEEK = {"days": ["MO"], "opens": "07:00", "closes": "13:00"}


@pytest.mark.parametrize(
    ("message", "pointer", "rule", "choice"),
    [
        (changed("services", "abrazo", institution="NADIE"), "/services/abrazo/institution", "unknown-code", "MINNA"),
        (changed("services", "abrazo", programme="x"), "/services/abrazo/programme", "unknown-code", "pai"),
        (
            changed("services", "abrazo", requirements=["cedula", "x"]),
            "/services/abrazo/requirements/1",
            "unknown-code",
            "cedula",
        ),
        (
            changed("services", "abrazo", categories=["age-3"]),
            "/services/abrazo/categories/0",
            "unknown-code",
            "age-0-4",
        ),
        (changed("services", "abrazo", requires="rich"), "/services/abrazo/requires", "unknown-code", "poverty"),
        (changed("services", "abrazo", from_age=9, to_age=8), "/services/abrazo/to_age", "ages-crossed", None),
        ({"services": {"abrazo": None}}, "/packages/extended-age-5-13/services/1", "unknown-code", "tekopora"),
        (
            {"requirements": {"cedula": None}},
            "/services/prenatal-control/requirements/0",
            "unknown-code",
            "birth-certificate",
        ),
        (
            changed("locations", "usf-villeta", district="9999"),
            "/locations/usf-villeta/district",
            "unknown-district",
            "1116",
        ),
        (
            changed("locations", "usf-villeta", district="1199"),
            "/locations/usf-villeta/district",
            "unknown-district",
            "1116",
        ),
        (
            changed("locations", "usf-villeta", district="166"),
            "/locations/usf-villeta/district",
            "tax-authority-code",
            "1116",
        ),
        (
            changed("locations", "usf-villeta", offers=[{**OFFER, "districts": ["1116", "0000", "1"]}]),
            "/locations/usf-villeta/offers/0/districts/2",
            "tax-authority-code",
            "0000",
        ),
        (
            changed("locations", "usf-villeta", offers=[{**OFFER, "openings": [{**WEEK, "closes": "07:00"}]}]),
            "/locations/usf-villeta/offers/0/openings/0/closes",
            "hours-crossed",
            None,
        ),
        (
            changed("locations", "usf-villeta", offers=[OFFER, OFFER]),
            "/locations/usf-villeta/offers/1/service",
            "repeated",
            None,
        ),
        (changed("locations", "usf-villeta", latitude="91"), "/locations/usf-villeta/latitude", "coordinates", None),
        (
            changed("packages", "differential-women-18-29", populations=None),
            "/packages/differential-women-18-29/populations",
            "required",
            "women",
        ),
        (
            changed("routes", "violence", steps=[{"id": "a", "service": "soup"}]),
            "/routes/violence/steps/0/service",
            "unknown-code",
            "shelter",
        ),
        (
            changed("routes", "violence", steps=[{"id": "a", "service": "shelter", "next": [{"to": "a"}]}]),
            "/routes/violence/steps/0/next/0/to",
            "unknown-code",
            None,
        ),
        (
            changed(
                "routes",
                "violence",
                steps=[{"id": "a", "service": "shelter", "next": []}, {"id": "b", "service": "shelter"}],
            ),
            "/routes/violence/steps/1/id",
            "unreachable",
            None,
        ),
        (
            changed("routes", "violence", steps=[{"id": "a", "service": "shelter", "next": [{"after": "won"}]}]),
            "/routes/violence/steps/0/next/0/after",
            "unknown-code",
            "provided",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_choices(
    message: dict[str, dict[str, Any]], pointer: str, rule: str, choice: str | None
) -> None:
    found = {mistake.pointer: mistake for mistake in plan(ITEMS, message).mistakes}
    assert found[pointer].rule == rule
    assert (found[pointer].allowed == ()) if choice is None else (choice in found[pointer].allowed)


def test_a_code_of_the_tax_authority_is_answered_with_the_one_that_is_meant() -> None:
    [found] = plan(ITEMS, changed("locations", "usf-villeta", district="166")).mistakes
    assert found.allowed == ("1116",)
    assert "Villeta" in found.detail


@pytest.mark.parametrize(
    ("message", "pointer"),
    [
        ({"services": {"abrazo": {"es": "x"}}}, "/services/abrazo/institution"),
        ({"institutions": {"MDS": None}}, "/institutions/MDS"),
        (changed("services", "abrazo", response_days=0), "/services/abrazo/response_days"),
        (changed("services", "abrazo", cost="12"), "/services/abrazo/cost"),
        (
            changed("locations", "usf-villeta", openings=[{**WEEK, "opens": "7"}]),
            "/locations/usf-villeta/openings/0/opens",
        ),
        ({"soups": {}}, "/soups"),
    ],
)
def test_what_is_no_change_is_refused_with_the_place(message: dict[str, Any], pointer: str) -> None:
    with pytest.raises(SchemaError) as refused:
        plan(ITEMS, message)
    assert pointer in [violation.pointer for violation in refused.value.violations]


def test_only_what_differs_is_changed() -> None:
    message = {"services": {**DOCUMENTS["services"], **changed("services", "abrazo", response_days=9)["services"]}}
    assert plan(ITEMS, message).changed == changed("services", "abrazo", response_days=9)


def test_a_step_goes_on_to_the_next_one_unless_it_says_otherwise() -> None:
    steps = {step.id: step for step in reading.route("r", DOCUMENTS["routes"]["disability"]).steps}
    assert [branch.to for branch in steps["diagnosis"].next] == ["stimulation"]
    assert [(branch.to, branch.after) for branch in steps["certificate"].next][-1] == ("diagnosis", "not_provided")
    assert steps["school"].next == steps["pension"].next == ()


def test_an_offer_has_the_hours_and_the_district_of_its_location_unless_it_says_otherwise() -> None:
    offers = {each.service: each for each in reading.location("l", DOCUMENTS["locations"]["usf-villeta"]).offers}
    assert offers["vaccination"].openings[0].days == ("MO", "TU", "WE", "TH", "FR")
    assert offers["growth-control"].openings[0].days == ("TU", "TH")
    assert offers["vaccination"].districts == ("1116",)
    far = {each.service: each for each in reading.location("l", DOCUMENTS["locations"]["minna-asuncion"]).offers}
    assert "1602" in far["child-protection"].districts
