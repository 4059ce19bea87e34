"""Which services apply to a unit and whether it is protected: a pure reading of the catalogue and the facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

from gateway.catalogue.models import Service
from gateway.registry.models import Fact, PersonRef, ProtectionStatus, ServiceStatus
from schemas.ages import age_on, category_of


def person_status(
    person: PersonRef, services: Mapping[str, Service], facts: Iterable[Fact], day: date
) -> ProtectionStatus:
    """Return the protection status of a person on a day (SPS management model: per service and concurrent)."""
    if person.deceased_on is not None and person.deceased_on <= day:
        return ProtectionStatus("person", None, ())
    category = category_of(person.birth_date, day)
    latest = _latest(facts, day)
    found = []
    for service in services.values():
        reached = _category_reached(service, person, category, day)
        if reached is not None:
            found.append(_status(service.code, reached, latest.get(service.code)))
    return ProtectionStatus("person", category, tuple(found))


def household_status(
    attributes: Mapping[str, object], services: Mapping[str, Service], facts: Iterable[Fact], day: date
) -> ProtectionStatus:
    """Return the protection status of a household on a day."""
    latest = _latest(facts, day)
    found = [
        _status(service.code, "household", latest.get(service.code))
        for service in services.values()
        if "household" in service.categories and (service.requires is None or attributes.get(service.requires) is True)
    ]
    return ProtectionStatus("household", "household", tuple(found))


def _category_reached(service: Service, person: PersonRef, category: str | None, day: date) -> str | None:
    if service.requires is not None and person.attributes.get(service.requires) is not True:
        return None
    if "before-birth" in service.categories:
        return "before-birth"
    if category is None or category not in service.categories:
        return None
    too_young = (
        service.from_age is not None
        and person.birth_date is not None
        and age_on(person.birth_date, day) < service.from_age
    )
    return None if too_young else category


def _latest(facts: Iterable[Fact], day: date) -> dict[str, Fact]:
    chosen: dict[str, Fact] = {}
    for fact in facts:
        if fact.observed_on > day:
            continue
        other = chosen.get(fact.service)
        if other is None or (fact.observed_on, fact.recorded_at) >= (other.observed_on, other.recorded_at):
            chosen[fact.service] = fact
    return chosen


def _status(service: str, category: str, fact: Fact | None) -> ServiceStatus:
    if fact is None:
        return ServiceStatus(service, category, "unknown", None)
    return ServiceStatus(service, category, "protected" if fact.protected else "unprotected", fact)
