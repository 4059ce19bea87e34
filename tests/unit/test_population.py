"""The simulated population: the same for the same seed, plausible, and valid by our own code lists."""

from __future__ import annotations

import gc
import hashlib
import os
import statistics
import subprocess
import sys
import tracemalloc
import unicodedata
from collections import Counter
from collections.abc import Iterable
from datetime import date
from itertools import islice
from pathlib import Path

import pytest

from adapters.simulator import cedulas as cedula_module
from adapters.simulator import names, population, proportions
from adapters.simulator.population import SimHousehold, SimPerson, generate
from schemas.codes import code_list
from schemas.geography import departments, district
from schemas.ids import parse_cedula

TODAY = date(2026, 11, 22)
SIZE = 20_000
#: Of the first 300 people of seed 7, without services, which follow the catalogue. It changes when the proportions,
#: the word lists or the districts do; it must never change by itself, on any Python or system.
GOLDEN = "a1cd48dd58d358177104409557832d2f42e288d21acf0a1be4f6851d0f75d9d8"

ROOT = Path(__file__).resolve().parents[2]
PRINT_FINGERPRINT = (
    "from tests.unit.test_population import *; print(fingerprint(people(generate(300, 7)), services=True))"
)


def people(households: Iterable[SimHousehold]) -> list[SimPerson]:
    return [person for household in households for person in household.members]


def age(person: SimPerson, on: date = TODAY) -> int:
    born = person.birth_date
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))


def fingerprint(persons: Iterable[SimPerson], services: bool = False) -> str:
    digest = hashlib.sha256()
    for person in persons:
        fields = [getattr(person, name) for name in SimPerson.__slots__ if services or name != "services"]
        digest.update(repr([sorted(value) if isinstance(value, frozenset) else value for value in fields]).encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def households() -> list[SimHousehold]:
    return list(generate(SIZE, seed=7))


@pytest.fixture(scope="module")
def persons(households: list[SimHousehold]) -> list[SimPerson]:
    return people(households)


# The same again -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_people() -> None:
    assert list(generate(500, 3)) == list(generate(500, 3))


def test_another_seed_gives_other_people() -> None:
    assert people(generate(50, 3)) != people(generate(50, 4))


def test_the_people_are_the_ones_they_were_when_this_test_was_written() -> None:
    assert fingerprint(people(generate(300, 7))) == GOLDEN


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_the_order_of_sets_in_a_process_changes_nothing(hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", PRINT_FINGERPRINT]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == fingerprint(people(generate(300, 7)), services=True)


@pytest.mark.parametrize("smaller", [1, 2, 99, 1_000])
def test_a_larger_population_starts_with_the_smaller_one(smaller: int, persons: list[SimPerson]) -> None:
    assert people(generate(smaller, 7)) == persons[:smaller]


@pytest.mark.parametrize("wanted", [0, 1, 7, 1_000])
def test_exactly_as_many_people_are_made_as_asked_for(wanted: int) -> None:
    assert [person.number for person in people(generate(wanted, 1))] == list(range(1, wanted + 1))


def test_households_are_numbered_without_gaps(households: list[SimHousehold]) -> None:
    assert [household.number for household in households] == list(range(1, len(households) + 1))


@pytest.mark.parametrize(("wanted", "seed"), [(-1, 1), (1, -1)])
def test_a_negative_number_or_seed_is_refused(wanted: int, seed: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        generate(wanted, seed)


@pytest.mark.parametrize("today", [date(1999, 12, 31), date(2101, 1, 1)])
def test_a_day_outside_the_cedula_series_is_refused(today: date) -> None:
    with pytest.raises(ValueError, match="today"):
        generate(1, 1, today)


def test_on_a_leap_day_people_born_on_1_march_have_not_had_their_birthday() -> None:
    assert population.birthday_limit(date(2028, 2, 29), 1) == date(2027, 2, 28)
    assert population.birthday_limit(date(2028, 2, 29), 4) == date(2024, 2, 29)
    assert len(people(generate(500, 1, date(2028, 2, 29)))) == 500


def test_memory_does_not_grow_with_the_population() -> None:
    stream = generate(10**9, 1)
    tracemalloc.start()
    held = []
    for number, _ in enumerate(islice(stream, 3_000), 1):
        if number % 1_000 == 0:
            gc.collect()  # also empties the interpreter's lists of free objects
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[2] < held[0] + 20_000


# Identity -------------------------------------------------------------------------------------------------------------


def test_cedulas_are_unique_and_in_the_form_they_are_stored_in(persons: list[SimPerson]) -> None:
    cedulas = [person.cedula for person in persons if person.cedula is not None]
    assert len(set(cedulas)) == len(cedulas)
    assert all(parse_cedula(cedula) == cedula for cedula in cedulas)
    assert len({cedula.rstrip("ABC") for cedula in cedulas}) == len(cedulas)


def test_cedulas_stay_unique_when_a_year_of_birth_has_used_up_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedula_module, "CEDULA_BLOCKS", ((1900, 1_000), (2100, 1_400)))
    cedula_module._first_number.cache_clear()
    found = [person.cedula for person in people(generate(3_000, 1)) if person.cedula is not None]
    cedula_module._first_number.cache_clear()
    assert len(set(found)) == len(found)
    assert sum(len(cedula) == 8 for cedula in found) > 1_000


def test_older_people_have_lower_cedulas(persons: list[SimPerson]) -> None:
    numbered = [(person.birth_date.year, int(person.cedula.rstrip("ABC"))) for person in persons if person.cedula]
    by_year = [number for _, number in sorted(numbered)]
    assert all(a < b for (a_year, a), (b_year, b) in zip(sorted(numbered), sorted(numbered)[1:], strict=False)
               if a_year < b_year)  # fmt: skip
    assert sum(1_000_000 <= number <= 9_999_999 for number in by_year) > 0.9 * len(by_year)


def test_old_series_carry_a_letter_and_only_before_1960(persons: list[SimPerson]) -> None:
    lettered = [person for person in persons if person.cedula and not person.cedula.isdigit()]
    assert {str(person.cedula)[-1] for person in lettered} == {"A", "B", "C"}
    assert max(person.birth_date.year for person in lettered) < 1960


def test_names_are_written_in_nfc_with_spanish_and_guarani_letters(persons: list[SimPerson]) -> None:
    text = " ".join(f"{person.given_names} {person.surnames} {person.locality}" for person in persons)
    assert unicodedata.is_normalized("NFC", text)
    for letter in ("ñ", "á", "é", "í", "ó", "ú", "ü", "ã", "ẽ", "ĩ", "õ", "ỹ", "g̃", "'", "Ñ", "Á", "É", "Ó", "Ú"):
        assert letter in text, letter


def test_children_carry_the_first_surnames_of_both_parents(households: list[SimHousehold]) -> None:
    found = 0
    for household in households:
        if len(household.members) < 3:
            continue
        head, partner, *_, last = household.members
        if age(last) < 18 and {head.sex, partner.sex} == {"M", "F"} and head.marital_status == "C":
            man, woman = (head, partner) if head.sex == "M" else (partner, head)
            firsts = [
                next((name for name in pool if parent.surnames.startswith(f"{name} ")), parent.surnames.split()[0])
                for parent, pool in ((man, ("De la Cruz", "da Silva")), (woman, ("De la Cruz", "da Silva")))
            ]
            found += last.surnames == " ".join(firsts)
    assert found > 1_000


def test_foreigners_have_a_document_of_their_country(persons: list[SimPerson]) -> None:
    foreigners = [person for person in persons if person.nationality != "PRY"]
    assert {person.nationality for person in foreigners} == set(names.FOREIGN_SURNAMES)
    for person in persons:
        systems = [document.system for document in person.foreign_documents]
        expected = [f"http://hl7.org/fhir/sid/passport-{person.nationality}"] if person.nationality != "PRY" else []
        assert systems == expected
    assert len({document for person in persons for document in person.foreign_documents}) == len(foreigners)


def test_phones_are_mobile_numbers_of_a_range_nobody_has(persons: list[SimPerson]) -> None:
    phones = [person.phone for person in persons if person.phone is not None]
    assert all(phone.isdigit() and len(phone) == 12 and phone.startswith("595960") for phone in phones)
    assert all(age(person) >= 14 for person in persons if person.phone is not None)


# Families -------------------------------------------------------------------------------------------------------------


def test_twins_share_birth_date_household_and_most_of_their_name(households: list[SimHousehold]) -> None:
    pairs = 0
    for household in households:
        members = {person.number: person for person in household.members}
        for second in household.members:
            if second.twin_of is None:
                continue
            first = members[second.twin_of]
            pairs += 1
            assert (first.birth_date, first.surnames) == (second.birth_date, second.surnames)
            assert first.given_names != second.given_names
            assert first.given_names[:1] == second.given_names[:1]
            assert first.cedula != second.cedula or first.cedula is None
    assert 40 < pairs < 200


def test_every_guardian_is_a_living_adult_of_the_same_household(households: list[SimHousehold]) -> None:
    guarded = Counter[bool]()
    for household in households:
        members = {person.number: person for person in household.members}
        for person in household.members:
            if age(person) >= 18:
                assert person.guardian is None
                continue
            guarded[person.guardian is not None] += 1
            if person.guardian is not None:
                assert age(members[person.guardian]) >= 18
                assert members[person.guardian].deceased_on is None
    assert 0.01 < guarded[False] / guarded.total() < 0.08


def test_minors_left_without_a_living_adult_have_no_guardian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proportions, "DEAD", proportions.ByAge((18, 0.0), (200, 0.7)))
    orphaned = 0
    for household in generate(3_000, 1):
        living = {person.number for person in household.members if age(person) >= 18 and person.deceased_on is None}
        minors = [person for person in household.members if age(person) < 18]
        assert all(person.guardian is None or person.guardian in living for person in minors)
        orphaned += 0 if living else len(minors)
    assert orphaned > 100


def test_every_member_lives_where_the_household_does(households: list[SimHousehold]) -> None:
    for household in households:
        assert {(p.department, p.district, p.locality) for p in household.members} == {
            (household.department, household.district, household.locality)
        }


def test_the_dead_died_after_they_were_born_and_before_today(persons: list[SimPerson]) -> None:
    dead = [person for person in persons if person.deceased_on is not None]
    assert all(person.birth_date <= person.deceased_on < TODAY for person in dead if person.deceased_on)
    assert not any(person.pregnant or person.child_labour or person.phone for person in dead)
    assert any(person.services for person in dead)
    assert any(age(person) >= 65 and not person.services for person in dead)


# Proportions ----------------------------------------------------------------------------------------------------------


def share(persons: list[SimPerson], count: int) -> float:
    return count / len(persons)


def test_ages_and_sexes_are_those_of_the_census(persons: list[SimPerson]) -> None:
    ages = [age(person) for person in persons]
    assert share(persons, sum(years < 15 for years in ages)) == pytest.approx(0.25, abs=0.015)
    assert share(persons, sum(15 <= years < 65 for years in ages)) == pytest.approx(0.66, abs=0.015)
    assert share(persons, sum(years >= 65 for years in ages)) == pytest.approx(0.09, abs=0.015)
    assert statistics.median(ages) == pytest.approx(29, abs=2)
    assert share(persons, sum(person.sex == "M" for person in persons)) == pytest.approx(0.5, abs=0.015)


def test_groups_of_special_attention_have_their_documented_shares(persons: list[SimPerson]) -> None:
    found = Counter(group for person in persons for group in person.special_attention)
    assert found.keys() == proportions.SPECIAL_ATTENTION.keys()
    for group, expected in proportions.SPECIAL_ATTENTION.items():
        assert share(persons, found[group]) == pytest.approx(expected, abs=0.008), group


def test_all_departments_have_people_in_proportion(persons: list[SimPerson]) -> None:
    found = Counter(person.department for person in persons)
    total = sum(thousands for thousands, _ in proportions.DEPARTMENTS.values())
    assert found.keys() == {row.ine for row in departments()}
    for ine, (thousands, _) in proportions.DEPARTMENTS.items():
        assert share(persons, found[ine]) == pytest.approx(thousands / total, rel=0.15, abs=0.003), ine


def test_people_without_cedula_are_more_among_the_indigenous_and_the_newborn(persons: list[SimPerson]) -> None:
    def without(group: list[SimPerson]) -> float:
        return sum(person.cedula is None for person in group) / len(group)

    assert 0.02 < without(persons) < 0.08
    assert without([person for person in persons if person.indigenous_community]) > 0.18
    assert without([person for person in persons if age(person) == 0]) > 0.4
    assert without([person for person in persons if age(person) >= 18 and person.nationality == "PRY"]) < 0.03


def test_pregnancy_and_child_labour_occur_only_where_they_can(persons: list[SimPerson]) -> None:
    assert all(person.sex == "F" and 15 <= age(person) < 45 for person in persons if person.pregnant)
    assert all(5 <= age(person) < 18 for person in persons if person.child_labour)
    assert 0.007 < share(persons, sum(person.pregnant for person in persons)) < 0.018
    assert 0.01 < share(persons, sum(person.child_labour for person in persons)) < 0.03


# Code lists -----------------------------------------------------------------------------------------------------------


def test_all_codes_are_in_their_lists(households: list[SimHousehold], persons: list[SimPerson]) -> None:
    for person in persons:
        assert district(person.district).department == person.department
        assert person.marital_status in "SCVD"
        assert person.disability in ("none", "mild", "severe")
        assert person.services <= code_list("services").keys()
    for household in households:
        assert household.services <= code_list("services").keys()


def meant_for(code: str, person: SimPerson, poverty: bool) -> bool:
    """Whether the catalogue means a service for a person, worked out from the code lists alone."""
    service, categories = code_list("services")[code], code_list("life-cycle")
    needs = {"pregnant": person.pregnant, "child-labour": person.child_labour, "poverty": poverty, None: True}
    return needs[service.get("requires")] and any(
        categories[name]["unit"] == "person"
        and categories[name].get("from_age", 0) <= age(person) <= categories[name].get("to_age", 150)
        and age(person) >= service.get("from_age", 0)
        for name in service["categories"]
    )


def test_services_reach_only_those_they_are_meant_for_and_leave_gaps(households: list[SimHousehold]) -> None:
    meant, reached = Counter[str](), Counter[str]()
    for household in households:
        for person in household.members:
            if person.deceased_on is not None:
                continue
            for code in code_list("services"):
                if meant_for(code, person, household.poverty):
                    meant[code] += 1
                    reached[code] += code in person.services
                else:
                    assert code not in person.services
    assert meant.keys() == proportions.COVERAGE.keys() - {"tekopora"}
    for code, number in meant.items():
        assert 0.25 < 1 - reached[code] / number < 0.65, code


def test_a_household_in_poverty_may_have_its_transfer_and_another_may_not(households: list[SimHousehold]) -> None:
    poor = [household for household in households if household.poverty]
    assert 0.3 < sum("tekopora" not in household.services for household in poor) / len(poor) < 0.6
    assert not any(household.services for household in households if not household.poverty)


def test_people_come_as_a_stream() -> None:
    first = list(islice(generate(10**9, 1), 3))
    assert [household.number for household in first] == [1, 2, 3]
