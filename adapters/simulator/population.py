"""Decides who lives in the simulated country: households of people who do not exist, the same for the same seed.

Any likeness to a living person is chance: numbers and names are drawn, so never ask a real system about them. Only
``Random.random`` is used, the one sequence that Python promises to keep across versions and platforms. Services have
a stream of their own, so that editing the catalogue changes nobody's name, household or number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from random import Random

from adapters.models import Identifier
from adapters.simulator import names
from adapters.simulator import proportions as shares
from adapters.simulator.cedulas import YEARS, Cedulas
from adapters.simulator.proportions import Table, Value
from schemas.codes import code_list
from schemas.geography import districts

_OLDEST = 99
_YEARS_SINCE_DEATH = 3
_PHONE = "595960"  # a mobile range in which no operator is known to give numbers


@dataclass(frozen=True, slots=True)
class SimPerson:
    """One person as the state knows them, dates without time zone, codes as text.

    ``cedula`` is in the form of :func:`schemas.ids.parse_cedula`; ``nationality`` is ISO 3166-1 alpha-3;
    ``twin_of`` and ``guardian`` are person numbers inside the household, ``twin_of`` on the second twin only;
    ``phone`` is twelve digits, ``5959`` first. Sort the sets before writing them out: their order is not fixed.
    """

    number: int
    cedula: str | None
    foreign_documents: tuple[Identifier, ...]
    given_names: str
    surnames: str
    birth_date: date
    sex: str
    department: str
    district: str
    locality: str
    marital_status: str
    nationality: str
    profession: str | None
    deceased_on: date | None
    twin_of: int | None
    guardian: int | None
    indigenous_community: str | None
    disability: str
    pregnant: bool
    child_labour: bool
    phone: str | None
    special_attention: frozenset[str]
    services: frozenset[str]


@dataclass(frozen=True, slots=True)
class SimHousehold:
    """People under one roof, adults first, and the services that the household as such receives."""

    number: int
    members: tuple[SimPerson, ...]
    department: str
    district: str
    locality: str
    poverty: bool
    services: frozenset[str]


def generate(persons: int, seed: int, today: date = date(2026, 11, 22)) -> Iterator[SimHousehold]:
    """Yield households until exactly ``persons`` people have been made; numbers run from 1 without gaps.

    The same seed and day give the same people, whatever ``persons`` is: a larger population starts with the smaller
    one, whose last household may be cut short. Memory does not grow with ``persons``.
    Raises ValueError for a negative number or seed, and for a day on which somebody alive may have no cédula series.
    """
    if persons < 0 or seed < 0:
        raise ValueError("persons and seed must not be negative")
    if today.year not in YEARS or today.year - _OLDEST - 1 not in YEARS:
        raise ValueError(f"today must lie between {YEARS.start + _OLDEST + 1} and {YEARS.stop - 1}")
    return _households(persons, seed, today)


def _households(persons: int, seed: int, today: date) -> Iterator[SimHousehold]:
    maker = _Maker(seed, today)
    made = number = 0
    while made < persons:
        number += 1
        household = maker.household(number, made + 1)
        if made + len(household.members) > persons:
            household = replace(household, members=household.members[: persons - made])
        made += len(household.members)
        yield household


@dataclass(slots=True)
class _Draft:
    """A person before numbers, documents and services; ``born`` is a proleptic ordinal day."""

    sex: str
    age: int
    born: int
    given: str
    paternal: str
    maternal: str
    nationality: str
    parent: bool = False
    marital: str = "S"
    twin: int | None = None
    died: int | None = None


@dataclass(frozen=True, slots=True)
class _Home:
    """What the members of a household share."""

    department: str
    district: str
    locality: str
    community: str | None
    nationality: str
    poverty: bool = False


class _Maker:
    """The state of one run: two streams of chance, the calendar and the cédula counters."""

    def __init__(self, seed: int, today: date) -> None:
        self.rng = Random(2 * seed)
        self.service_rng = Random(2 * seed + 1)
        self.today = today
        self.cedulas = Cedulas(self.rng)
        self.birthdays = [birthday_limit(today, age).toordinal() for age in range(_OLDEST + 2)]
        self.places = Table(*((ine, float(row[0])) for ine, row in shares.DEPARTMENTS.items()))
        self.districts = {ine: _districts_by_rank(ine) for ine in shares.DEPARTMENTS}

    # Draws --------------------------------------------------------------------------------------

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def between(self, low: int, high: int) -> int:
        return low + int(self.rng.random() * (high - low + 1))

    def any_of(self, values: Sequence[Value]) -> Value:
        return values[int(self.rng.random() * len(values))]

    def popular(self, values: Sequence[Value]) -> Value:
        """Draw from a list whose front is drawn more often, so that namesakes occur as they do in life."""
        return values[int(self.rng.random() * self.rng.random() * len(values))]

    def birthday(self, age: int) -> int:
        """Draw a day of birth that makes somebody exactly ``age`` completed years old today."""
        return self.birthdays[age] - int(self.rng.random() * (self.birthdays[age] - self.birthdays[age + 1]))

    # Names --------------------------------------------------------------------------------------

    def given_name(self, sex: str, home: _Home) -> str:
        guarani = self.chance(shares.GUARANI_GIVEN_NAME[home.community is not None])
        if sex == "F":
            return self.popular(names.GUARANI_F if guarani else names.GIVEN_F)
        return self.popular(names.GUARANI_M if guarani else names.GIVEN_M)

    def given_names(self, sex: str, home: _Home) -> str:
        first = self.given_name(sex, home)
        if not self.chance(shares.TWO_GIVEN_NAMES):
            return first
        second = self.given_name(sex, home)
        return first if second == first else f"{first} {second}"

    def surname(self, home: _Home, nationality: str) -> str:
        if nationality != "PRY":
            return self.any_of(names.FOREIGN_SURNAMES[nationality])
        return self.popular(names.SURNAMES if home.community is None else names.GUARANI_SURNAMES)

    # Households ---------------------------------------------------------------------------------

    def household(self, number: int, first: int) -> SimHousehold:
        home = self.home()
        drafts = self.family(shares.HOUSEHOLDS.draw(self.rng), home)
        group = "with children" if any(draft.age < 18 for draft in drafts) else "other"
        home = replace(home, poverty=self.chance(shares.POVERTY["indigenous" if home.community else group]))
        for draft in drafts:
            self.fate(draft)
        if len(drafts) > 1 and drafts[0].marital == drafts[1].marital == "C":
            for one, other in (drafts[:2], drafts[1::-1]):
                if other.died is not None and one.died is None:
                    one.marital = "V"
        members = tuple(self.person(drafts, place, first, home) for place in range(len(drafts)))
        services = self.services(_household_services(), {"poverty": home.poverty})
        return SimHousehold(number, members, home.department, home.district, home.locality, home.poverty, services)

    def home(self) -> _Home:
        department = self.places.draw(self.rng)
        district = self.districts[department].draw(self.rng)
        if self.chance(shares.DEPARTMENTS[department][1]):
            community = self.any_of(names.COMMUNITIES)
            return _Home(department, district, community, community, "PRY")
        locality = self.any_of(names.NEIGHBOURHOODS if self.chance(shares.URBAN) else names.RURAL_PLACES)
        nationality = shares.NATIONALITIES.draw(self.rng) if self.chance(shares.FOREIGN_HOUSEHOLDS) else "PRY"
        return _Home(department, district, locality, None, nationality)

    def family(self, kind: str, home: _Home) -> list[_Draft]:
        """Make the members of a household: head, partner, grandparent, then the children from the oldest down."""
        age = self.between(*shares.AGES[kind].draw(self.rng))
        if kind == "alone":
            return [self.adult("F" if self.chance(shares.WOMEN_ALONE.at(age)) else "M", age, home)]
        if kind == "one parent":
            sex = "F" if self.chance(shares.MOTHERS_AMONG_SINGLE_PARENTS) else "M"
            parent = self.adult(sex, age, home)
            absent = self.surname(home, home.nationality)
            if sex == "M":
                return [parent, *self.children(parent.age, parent.paternal, absent, home)]
            if self.chance(shares.FATHER_UNRECORDED):
                return [parent, *self.children(parent.age, parent.paternal, parent.maternal, home)]
            return [parent, *self.children(parent.age, absent, parent.paternal, home)]
        woman = self.adult("F", age, home)
        man = self.adult("M", min(max(20, age + self.between(*shares.MAN_OLDER_BY)), 95), home)
        woman.marital = man.marital = "C" if self.chance(shares.MARRIED_COUPLES) else "S"
        pair = [man, woman] if self.chance(shares.MAN_IS_HEAD) else [woman, man]
        if kind == "couple":
            return pair
        elders = [self.grandparent(pair[0], home)] if kind == "three generations" else []
        return [*pair, *elders, *self.children(woman.age, man.paternal, woman.paternal, home)]

    def adult(self, sex: str, age: int, home: _Home) -> _Draft:
        paternal, maternal = (self.surname(home, home.nationality) for _ in range(2))
        draft = _Draft(sex, age, self.birthday(age), self.given_names(sex, home), paternal, maternal, home.nationality)
        draft.parent = True
        draft.marital = shares.SINGLE_STATUS.at(age).draw(self.rng)
        return draft

    def grandparent(self, head: _Draft, home: _Home) -> _Draft:
        """Make a parent of the head, who gave them the surname they have in common."""
        sex = "F" if self.chance(shares.WOMEN_AMONG_GRANDPARENTS) else "M"
        elder = self.adult(sex, min(head.age + self.between(*shares.GRANDPARENT_OLDER_BY), _OLDEST), home)
        elder.parent = False
        elder.paternal = head.maternal if elder.sex == "F" else head.paternal
        return elder

    def children(self, parent_age: int, paternal: str, maternal: str, home: _Home) -> list[_Draft]:
        children: list[_Draft] = []
        parent_then = self.between(*shares.FIRST_CHILD_AT)
        for _ in range(shares.CHILDREN.draw(self.rng)):
            age = parent_age - parent_then
            parent_then += self.between(*shares.BETWEEN_CHILDREN)
            if age < 0:
                break
            if not self.chance(shares.STILL_AT_HOME.at(age)):
                continue
            here = home.nationality == "PRY" or self.chance(shares.FOREIGN_CHILD_BORN_HERE)
            sex = "M" if self.chance(shares.NEWBORN_MALE) else "F"
            child = _Draft(sex, age, self.birthday(age), self.given_names(sex, home), paternal, maternal,
                           "PRY" if here else home.nationality)  # fmt: skip
            children.append(child)
            if self.chance(shares.TWIN_BIRTHS):
                children.append(self.twin(child, home))
        return children

    def twin(self, first: _Draft, home: _Home) -> _Draft:
        second = replace(first, twin=-1)
        if self.chance(shares.TWINS_OF_ONE_SEX):
            shared = first.given.split()[0]
            while second.given == first.given or second.given == f"{shared} {shared}":
                second.given = f"{shared} {self.given_name(first.sex, home)}"
            return second
        boy, girl = self.any_of(names.TWIN_NAMES)
        second.sex = "F" if first.sex == "M" else "M"
        first.given, second.given = (boy, girl) if first.sex == "M" else (girl, boy)
        return second

    # People -------------------------------------------------------------------------------------

    def fate(self, draft: _Draft) -> None:
        if self.chance(shares.DEAD.at(draft.age)):
            yesterday = self.today.toordinal() - 1
            earliest = max(draft.born, self.birthdays[_YEARS_SINCE_DEATH])
            draft.died = self.between(earliest, yesterday) if earliest <= yesterday else None

    def guardian(self, drafts: list[_Draft], first: int) -> int | None:
        """Choose a minor's guardian among the living adults: parents first, a woman before a man."""
        if self.chance(shares.MINOR_WITHOUT_GUARDIAN):
            return None
        adults = [
            (not draft.parent, draft.sex, place)
            for place, draft in enumerate(drafts)
            if draft.age >= 18 and draft.died is None
        ]
        return first + min(adults)[2] if adults else None

    def documents(self, draft: _Draft, home: _Home) -> tuple[str | None, tuple[Identifier, ...]]:
        foreign: tuple[Identifier, ...] = ()
        if draft.nationality != "PRY":
            # The FHIR registry's system for passports: sid/passport-, then ISO 3166-1 alpha-3.
            system = f"http://hl7.org/fhir/sid/passport-{draft.nationality}"
            foreign = (Identifier(system, f"{self.any_of('ABCF')}{self.between(100_000, 99_999_999):08}"),)
            without = shares.WITHOUT_CEDULA["foreign"]
        elif draft.age < 1:
            without = shares.WITHOUT_CEDULA["before first birthday"]
        elif home.community is not None:
            without = shares.WITHOUT_CEDULA["indigenous"]
        else:
            without = shares.WITHOUT_CEDULA["minor" if draft.age < 18 else "adult"]
        return None if self.chance(without) else self.cedulas.next(date.fromordinal(draft.born).year), foreign

    def person(self, drafts: list[_Draft], place: int, first: int, home: _Home) -> SimPerson:
        draft = drafts[place]
        age, alive = draft.age, draft.died is None
        cedula, foreign = self.documents(draft, home)
        profession = self.popular(names.PROFESSIONS) if age >= 18 and self.chance(shares.WITH_PROFESSION) else None
        disability = shares.DISABILITY.at(age).draw(self.rng)
        pregnant = draft.sex == "F" and 15 <= age < 45 and alive and self.chance(shares.PREGNANT)
        working = 5 <= age < 18 and alive and self.chance(shares.CHILD_LABOUR[home.poverty])
        phoned = age >= 14 and alive and self.chance(shares.WITH_PHONE[home.poverty])
        groups = {
            "children": age < 18,
            "women": draft.sex == "F",
            "older-adults": age >= 60,
            "disability": disability != "none",
            "indigenous": home.community is not None,
            "poverty": home.poverty,
        }
        needs = {"pregnant": pregnant, "child-labour": working, "poverty": home.poverty}
        services = self.services(_person_services(age), needs)
        return SimPerson(
            number=first + place,
            cedula=cedula,
            foreign_documents=foreign,
            given_names=draft.given,
            surnames=f"{draft.paternal} {draft.maternal}",
            birth_date=date.fromordinal(draft.born),
            sex=draft.sex,
            department=home.department,
            district=home.district,
            locality=home.locality,
            marital_status=draft.marital,
            nationality=draft.nationality,
            profession=profession,
            deceased_on=None if draft.died is None else date.fromordinal(draft.died),
            twin_of=None if draft.twin is None else first + place + draft.twin,
            guardian=self.guardian(drafts, first) if age < 18 else None,
            indigenous_community=home.community,
            disability=disability,
            pregnant=pregnant,
            child_labour=working,
            phone=f"{_PHONE}{self.between(0, 999_999):06}" if phoned else None,
            special_attention=frozenset(group for group, belongs in groups.items() if belongs),
            services=services if alive or self.service_rng.random() < shares.DEAD_STILL_SERVED else frozenset(),
        )

    def services(self, offered: tuple[tuple[str, str | None], ...], needs: dict[str, bool]) -> frozenset[str]:
        """Draw which of the services meant for somebody they already receive."""
        meant = (code for code, need in offered if need is None or needs[need])
        coverage, others = shares.COVERAGE, shares.COVERAGE_OF_OTHERS
        return frozenset(code for code in meant if self.service_rng.random() < coverage.get(code, others))


def birthday_limit(day: date, years: int) -> date:
    """Return the last birth date that makes somebody ``years`` old on ``day``; 28 February for an absent 29th."""
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return day.replace(year=day.year - years, day=28)


def _districts_by_rank(department: str) -> Table[str]:
    ranked = enumerate(districts(department), 1)
    return Table(*((row.ine, 1 / (rank + shares.DISTRICT_RANK_OFFSET)) for rank, row in ranked))


@lru_cache(maxsize=_OLDEST + 1)
def _person_services(age: int) -> tuple[tuple[str, str | None], ...]:
    """Return the services of the catalogue for somebody of this age, each with what it requires besides."""
    found = []
    for code, service in code_list("services").items():
        for name in service["categories"]:
            category = code_list("life-cycle")[name]
            youngest = max(category.get("from_age", 0), service.get("from_age", 0))
            if category["unit"] == "person" and youngest <= age <= category.get("to_age", _OLDEST):
                found.append((code, service.get("requires")))
                break
    return tuple(found)


@lru_cache(maxsize=1)
def _household_services() -> tuple[tuple[str, str | None], ...]:
    """Return the services of the catalogue that a household receives as one, each with what it requires besides."""
    kind = code_list("life-cycle")
    return tuple(
        (code, service.get("requires"))
        for code, service in code_list("services").items()
        if any(kind[name]["unit"] == "household" for name in service["categories"])
    )
