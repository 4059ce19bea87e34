"""Which services apply to whom, and which fact counts."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest

from gateway.catalogue.models import Service
from gateway.registry.models import Fact, PersonRef
from gateway.registry.protection import community_status, household_status, person_status
from schemas.ages import age_on, category_of
from schemas.codes import code_list
from schemas.ids import uuid7

TODAY = date(2026, 11, 22)
SERVICES = {
    code: Service(
        code=code,
        institution=spec["institution"],
        names={"es": spec["es"], "en": spec["en"]},
        categories=frozenset(spec["categories"]),
        requires=spec.get("requires"),
        from_age=spec.get("from_age"),
        response_days=spec["response_days"],
        to_age=spec.get("to_age"),
        coverage_days=spec.get("coverage_days"),
    )
    for code, spec in code_list("services").items()
}


def person(birth_date: date | None, **attributes: Any) -> PersonRef:
    dead = attributes.pop("deceased_on", None)
    return PersonRef(UUID(int=1), None, birth_date, dead, "F", "11", "1101", attributes)


def fact(service: str, protected: bool, on: date, at: int = 0, instrument: str = "fips") -> Fact:
    return Fact(uuid7(), service, protected, "UTGS", instrument, on, datetime(2026, 1, 1, at, tzinfo=UTC), None)


def service(code: str, *categories: str, **more: Any) -> Service:
    given = {"requires": None, "from_age": None, "response_days": 1, **more}
    return Service(code=code, institution="MSPBS", names={}, categories=frozenset(categories), **given)


@pytest.mark.parametrize(
    ("born", "on", "years"),
    [
        (date(2024, 2, 29), date(2025, 2, 28), 0),
        (date(2024, 2, 29), date(2025, 3, 1), 1),
        (date(2021, 11, 22), TODAY, 5),
        (date(2021, 11, 23), TODAY, 4),
    ],
)
def test_age_counts_completed_years(born: date, on: date, years: int) -> None:
    assert age_on(born, on) == years


def test_categories_meet_without_gap_or_overlap() -> None:
    found = [category_of(date(TODAY.year - age, 1, 1), TODAY) for age in range(0, 110)]
    assert None not in found
    assert [found.index(code) for code in dict.fromkeys(found)] == [0, 5, 14, 18, 30, 60]


def test_someone_born_tomorrow_or_never_has_no_category() -> None:
    assert category_of(date(2026, 11, 23), TODAY) is None
    assert category_of(None, TODAY) is None


def test_a_child_without_facts_has_unknown_services_and_is_not_protected() -> None:
    status = person_status(person(date(2023, 5, 1)), SERVICES, (), TODAY)
    assert {item.service: item.status for item in status.services} == {
        "vaccination": "unknown",
        "growth-control": "unknown",
    }
    assert not status.concurrent
    assert set(status.gaps) == {"vaccination", "growth-control"}


def test_concurrent_means_every_applicable_service() -> None:
    child = person(date(2023, 5, 1))
    one = [fact("vaccination", True, TODAY)]
    assert not person_status(child, SERVICES, one, TODAY).concurrent
    assert person_status(child, SERVICES, [*one, fact("growth-control", True, TODAY)], TODAY).concurrent


def test_nobody_is_concurrent_without_any_applicable_service() -> None:
    assert not household_status({}, SERVICES, (), TODAY).concurrent


def test_the_newest_fact_counts_and_a_later_one_does_not_count_yet() -> None:
    child = person(date(2023, 5, 1))
    facts = [
        fact("vaccination", True, date(2026, 1, 10)),
        fact("vaccination", False, date(2026, 3, 10)),
        fact("vaccination", True, date(2026, 12, 1)),
    ]
    status = person_status(child, SERVICES, facts, TODAY)
    assert next(item for item in status.services if item.service == "vaccination").status == "unprotected"


def test_of_two_facts_of_one_day_the_one_recorded_later_counts() -> None:
    child = person(date(2023, 5, 1))
    facts = [fact("vaccination", True, TODAY, at=5), fact("vaccination", False, TODAY, at=2)]
    status = person_status(child, SERVICES, facts, TODAY)
    assert next(item for item in status.services if item.service == "vaccination").status == "protected"


def test_requirements_open_services_and_ages_close_them() -> None:
    def codes(who: PersonRef) -> set[str]:
        return {item.service for item in person_status(who, SERVICES, (), TODAY).services}

    assert "abrazo" not in codes(person(date(2015, 1, 1)))
    assert "abrazo" in codes(person(date(2015, 1, 1), **{"child-labour": True}))
    assert "prenatal-control" in codes(person(date(2000, 1, 1), pregnant=True))
    assert "universal-pension" not in codes(person(date(1964, 1, 1)))
    assert "universal-pension" in codes(person(date(1961, 11, 22)))


def test_the_dead_need_no_service() -> None:
    assert person_status(person(date(1950, 1, 1), deceased_on=TODAY), SERVICES, (), TODAY).services == ()


def test_a_poor_household_needs_tekopora() -> None:
    assert household_status({"poverty": True}, SERVICES, (), TODAY).gaps == ("tekopora",)
    assert household_status({}, SERVICES, (), TODAY).gaps == ()


@pytest.mark.parametrize(
    ("facts", "status", "rule"),
    [
        ([], "unknown", "no-fact"),
        ([fact("vaccination", True, TODAY)], "protected", "only-fact"),
        ([fact("vaccination", True, TODAY), fact("vaccination", False, date(2026, 1, 1))], "protected", "newest"),
        (
            [fact("vaccination", True, TODAY), fact("vaccination", False, TODAY, instrument="counter-referral")],
            "unprotected",
            "instrument",
        ),
        (
            [
                fact("vaccination", False, TODAY, 3),
                fact("vaccination", True, TODAY, 9),
                fact("vaccination", False, TODAY, 5, instrument="of no list"),
            ],
            "protected",
            "recorded-last",
        ),
        (
            [fact("vaccination", False, date(2026, 1, 1)), fact("vaccination", True, date(2025, 1, 1), 9)],
            "unprotected",
            "newest",
        ),
    ],
)
def test_each_answer_says_by_which_rule_its_fact_counts(facts: list[Fact], status: str, rule: str) -> None:
    found = person_status(person(date(2023, 5, 1)), {"vaccination": SERVICES["vaccination"]}, facts, TODAY)
    assert [(item.status, item.rule) for item in found.services] == [(status, rule)]


def test_a_delivery_protects_for_as_many_days_as_the_catalogue_says() -> None:
    services = {"check": service("check", "age-0-4", coverage_days=30)}
    facts = [fact("check", True, date(2026, 10, 1))]

    def status(day: date) -> tuple[str, date | None]:
        found = person_status(person(date(2023, 5, 1)), services, facts, day)
        return found.services[0].status, found.due_on

    assert status(date(2026, 10, 31)) == ("protected", date(2026, 11, 1))
    assert status(date(2026, 11, 1)) == ("expired", date(2028, 5, 1))
    assert status(date(2026, 9, 30)) == ("unknown", date(2026, 10, 1))


@pytest.mark.parametrize(
    ("born", "marks", "categories"),
    [
        (date(2026, 11, 22), {}, ("at-birth", "age-0-4")),
        (date(2025, 11, 23), {}, ("at-birth", "age-0-4")),
        (date(2025, 11, 22), {}, ("age-0-4",)),
        (date(2010, 1, 1), {"pregnant": True}, ("before-birth", "age-14-17")),
        (date(2010, 1, 1), {"pregnant": "no"}, ("age-14-17",)),
        (None, {"pregnant": True}, ("before-birth",)),
        (date(2027, 1, 1), {}, ()),
    ],
)
def test_who_is_in_which_categories(born: date | None, marks: dict[str, Any], categories: tuple[str, ...]) -> None:
    assert person_status(person(born, **marks), SERVICES, (), TODAY).categories == categories


def test_only_core_services_decide_whether_protection_is_concurrent_and_in_each_category_for_itself() -> None:
    services = {
        "birth": service("birth", "at-birth"),
        "growth": service("growth", "age-0-4"),
        "play": service("play", "age-0-4", outside_core=frozenset({"age-0-4"})),
    }
    baby = person(date(2026, 10, 1))
    status = person_status(baby, services, [fact("growth", True, TODAY)], TODAY)
    assert (status.concurrent, status.applicable_in, status.concurrent_in) == (
        False,
        ("at-birth", "age-0-4"),
        ("age-0-4",),
    )
    assert set(status.gaps) == {"birth", "play"}
    assert person_status(baby, services, [fact("growth", True, TODAY), fact("birth", True, TODAY)], TODAY).concurrent


def test_ages_bound_a_service_on_both_sides_and_say_when_that_changes() -> None:
    services = {"young": service("young", "age-14-17", "age-18-29", from_age=16, to_age=20)}

    def applies(born: date) -> tuple[bool, date | None]:
        found = person_status(person(born), services, (), TODAY)
        return bool(found.services), found.due_on

    assert applies(date(2010, 11, 23)) == (False, date(2026, 11, 23))
    assert applies(date(2010, 11, 22)) == (True, date(2028, 11, 22))
    assert applies(date(2005, 11, 23)) == (True, date(2026, 11, 23))
    assert applies(date(2005, 11, 22)) == (False, date(2035, 11, 22))


def test_a_community_needs_the_services_of_communities() -> None:
    services = {"road": service("road", "community"), "cash": service("cash", "household", requires="poverty")}
    found = community_status({"poverty": True}, services, [fact("road", False, TODAY)], TODAY)
    assert [(item.service, item.status) for item in found.services] == [("road", "unprotected")]
