"""Which services apply to a unit and whether it is protected: the one rule, a pure reading of catalogue and facts.

Of the facts about one service that one counts which was observed last; of those of one day the one whose instrument
ranks higher (code list ``instruments``); of those the one recorded last. A delivery protects for as many days as the
catalogue says. ``mass_rules.py`` says the same in SQL for everybody at once; a test holds the two together row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from uuid import UUID

from gateway.catalogue.models import Service
from gateway.registry.models import Fact, PersonRef, ProtectionStatus, ServiceStatus
from gateway.registry.observations import weight
from gateway.registry.populations import ADULT_AGE, OLDER_AGE
from schemas.ages import age_on, category_of
from schemas.codes import code_list

BEFORE_BIRTH, AT_BIRTH = "before-birth", "at-birth"
PREGNANT = "pregnant"
#: At birth: the first year of life, in completed years below this.
FIRST_YEARS = 1


def person_status(
    person: PersonRef, services: Mapping[str, Service], facts: Iterable[Fact], day: date
) -> ProtectionStatus:
    """Return the protection status of a person on a day (SPS management model: per service and concurrent)."""
    if person.deceased_on is not None and person.deceased_on <= day:
        return ProtectionStatus("person", None, ())
    age = _age(person, day)
    categories = _categories(person, age, day)
    applying = []
    for service in services.values():
        reached = next((code for code in categories if code in service.categories), None)
        if reached is not None and _required(service, person.attributes) and _of_age(service, age):
            applying.append((service, reached))
    found, due = _statuses(applying, facts, day)
    return ProtectionStatus(
        "person",
        category_of(person.birth_date, day),
        found,
        categories,
        _soonest(due, *_turns(person, services, age, day)),
    )


def household_status(
    attributes: Mapping[str, object], services: Mapping[str, Service], facts: Iterable[Fact], day: date
) -> ProtectionStatus:
    """Return the protection status of a household on a day."""
    return _shared_status("household", attributes, services, facts, day)


def community_status(
    attributes: Mapping[str, object], services: Mapping[str, Service], facts: Iterable[Fact], day: date
) -> ProtectionStatus:
    """Return the protection status of a community (barrio or locality) on a day."""
    return _shared_status("community", attributes, services, facts, day)


def turning_ages(services: Iterable[Service]) -> list[int]:
    """Return the ages in completed years, ascending, at which what applies to a person may change."""
    ages = {FIRST_YEARS, ADULT_AGE, OLDER_AGE}
    for bounds in code_list("life-cycle").values():
        if "from_age" in bounds:
            ages |= {bounds["from_age"], bounds["to_age"] + 1}
    for service in services:
        ages |= {service.from_age or 0, 0 if service.to_age is None else service.to_age + 1}
    return sorted(ages - {0})


def _shared_status(
    unit: str, attributes: Mapping[str, object], services: Mapping[str, Service], facts: Iterable[Fact], day: date
) -> ProtectionStatus:
    applying = [
        (service, unit)
        for service in services.values()
        if unit in service.categories and _required(service, attributes)
    ]
    found, due = _statuses(applying, facts, day)
    return ProtectionStatus(unit, unit, found, (unit,), due)


def _age(person: PersonRef, day: date) -> int | None:
    """Return completed years, or None for somebody of unknown age or not born yet."""
    if person.birth_date is None or person.birth_date > day:
        return None
    return age_on(person.birth_date, day)


def _categories(person: PersonRef, age: int | None, day: date) -> tuple[str, ...]:
    by_age = category_of(person.birth_date, day)
    found = (
        BEFORE_BIRTH if person.attributes.get(PREGNANT) is True else None,
        AT_BIRTH if age is not None and age < FIRST_YEARS else None,
        by_age,
    )
    return tuple(dict.fromkeys(code for code in found if code is not None))


def _required(service: Service, attributes: Mapping[str, object]) -> bool:
    return service.requires is None or attributes.get(service.requires) is True


def _of_age(service: Service, age: int | None) -> bool:
    if age is None:
        return True
    return (service.from_age is None or service.from_age <= age) and (service.to_age is None or age <= service.to_age)


def _statuses(
    applying: list[tuple[Service, str]], facts: Iterable[Fact], day: date
) -> tuple[tuple[ServiceStatus, ...], date | None]:
    """Return the status of each service that applies, and the first day on which time alone changes one."""
    by_service: dict[str, list[Fact]] = {service.code: [] for service, _category in applying}
    later: list[date] = []
    for fact in facts:
        if fact.service not in by_service:
            continue
        if fact.observed_on > day:
            later.append(fact.observed_on)
        else:
            by_service[fact.service].append(fact)
    found = []
    for service, category in applying:
        status = _status(service, category, by_service[service.code], day)
        if status.status == "protected" and status.fact is not None and service.coverage_days is not None:
            later.append(status.fact.observed_on + timedelta(days=service.coverage_days + 1))
        found.append(status)
    return tuple(found), _soonest(*later)


def _status(service: Service, category: str, facts: list[Fact], day: date) -> ServiceStatus:
    if not facts:
        return ServiceStatus(
            service.code, category, "unknown", None, "no-fact", core=category not in service.outside_core
        )
    facts.sort(key=_weight, reverse=True)
    chosen = facts[0]
    if not chosen.protected:
        status = "unprotected"
    elif service.coverage_days is not None and chosen.observed_on + timedelta(days=service.coverage_days) < day:
        status = "expired"
    else:
        status = "protected"
    return ServiceStatus(
        service.code, category, status, chosen, _rule(facts), core=category not in service.outside_core
    )


def _weight(fact: Fact) -> tuple[tuple[date, int, datetime], UUID]:
    return weight(fact.observed_on, fact.instrument, fact.recorded_at), fact.id


def _rule(facts: list[Fact]) -> str:
    """Return which rule put the first fact before the second."""
    if len(facts) == 1:
        return "only-fact"
    (first, _), (second, _) = _weight(facts[0]), _weight(facts[1])
    if first[0] != second[0]:
        return "newest"
    return "instrument" if first[1] != second[1] else "recorded-last"


def _turns(person: PersonRef, services: Mapping[str, Service], age: int | None, day: date) -> list[date | None]:
    """Return the coming days on which a person's age or death changes what applies."""
    dies = person.deceased_on
    if person.birth_date is None:
        return [dies]
    if age is None:
        return [dies, person.birth_date]
    next_age = next((turn for turn in turning_ages(services.values()) if turn > age), None)
    return [dies, None if next_age is None else _birthday(person.birth_date, next_age)]


def _birthday(born: date, age: int) -> date:
    """Return the day on which an age is completed; born 29 February, it is 1 March of common years."""
    try:
        return born.replace(year=born.year + age)
    except ValueError:
        return date(born.year + age, 3, 1)


def _soonest(*days: date | None) -> date | None:
    return min((day for day in days if day is not None), default=None)
