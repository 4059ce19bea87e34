"""Which services apply to whom, and which fact counts."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest

from gateway.catalogue.models import Service
from gateway.registry.models import Fact, PersonRef
from gateway.registry.protection import household_status, person_status
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
    )
    for code, spec in code_list("services").items()
}


def person(birth_date: date | None, **attributes: Any) -> PersonRef:
    dead = attributes.pop("deceased_on", None)
    return PersonRef(UUID(int=1), None, birth_date, dead, "F", "11", "1101", attributes)


def fact(service: str, protected: bool, on: date, at: int = 0) -> Fact:
    return Fact(uuid7(), service, protected, "UTGS", "form", on, datetime(2026, 1, 1, at, tzinfo=UTC), None)


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
