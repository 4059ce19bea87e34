"""What simulated institutions know of a person fits together, and every branch of the pension's rules has somebody."""

from __future__ import annotations

from collections import Counter

import pytest

from adapters.simulator.dossier import age, archive
from adapters.simulator.pension_cases import CASES, households
from adapters.simulator.people import load
from adapters.simulator.population import generate
from adapters.simulator.records import Dossier
from schemas.geography import district
from schemas.ids import parse_cedula

NAMED = {case.person.cedula for case in CASES}


@pytest.fixture(scope="module")
def everybody() -> list[Dossier]:
    return list(archive(8_000, 7).values())


@pytest.fixture(scope="module")
def drawn(everybody: list[Dossier]) -> list[Dossier]:
    return [dossier for dossier in everybody if dossier.person.cedula not in NAMED]


def test_the_same_seed_gives_the_same_facts_whatever_the_size() -> None:
    smaller, larger = archive(200, 3), archive(400, 3)
    # The last household of the smaller country is cut short, so its members may be insured by nobody.
    assert sum(larger[cedula] != dossier for cedula, dossier in smaller.items()) <= 8
    assert archive(200, 3) == smaller
    assert archive(200, 4) != smaller


def test_all_who_have_a_cedula_have_a_dossier_and_identificaciones_knows_the_same() -> None:
    assert archive(300, 1).keys() == load(300, 1).keys()


def test_the_dead_neither_work_nor_learn_nor_take_part(everybody: list[Dossier]) -> None:
    dead = [dossier for dossier in everybody if dossier.person.deceased_on]
    assert len(dead) > 50
    assert not any(item.insurance or item.post or item.tekopora or item.checks for item in dead)


def test_a_post_and_contributions_exclude_each_other(everybody: list[Dossier]) -> None:
    assert not any(item.post and item.insurance and item.insurance.enrolled for item in everybody)
    assert all(age(item.person) >= 18 for item in everybody if item.post or item.taxpayer)
    for item in everybody:
        for employer in item.insurance.employers if item.insurance else ():
            assert employer.since <= employer.last_paid
            assert age(item.person, employer.last_paid) >= 18


def test_what_somebody_receives_is_on_the_roll_of_whom_it_comes_from(drawn: list[Dossier]) -> None:
    for item in drawn:
        assert (item.pension is not None) == ("universal-pension" in item.person.services)
        assert (item.abrazo is not None) == ("abrazo" in item.person.services)
        assert (item.enrolment is not None) == ("school-enrolment" in item.person.services)


def test_only_foreigners_are_residents_and_only_members_indigenous(drawn: list[Dossier]) -> None:
    assert all(item.person.nationality != "PRY" for item in drawn if item.residences)
    members = [(item.person, item.membership) for item in drawn if item.membership]
    assert members
    for person, membership in members:
        assert membership.community == person.indigenous_community
        assert membership.registered == bool(membership.number)


def test_a_certificate_number_is_one_persons(everybody: list[Dossier]) -> None:
    numbers = Counter(item.certificate.number for item in everybody if item.certificate)
    assert len(numbers) > 100
    assert set(numbers.values()) == {1}


def test_every_branch_of_the_pension_has_somebody_in_the_drawn_country(drawn: list[Dossier]) -> None:
    branches = Counter[str]()
    for item in drawn:
        person, years, insurance = item.person, age(item.person), item.insurance
        severe = item.certificate is not None and item.certificate.degree == "SEVERO"
        branches["65"] += years >= 65
        branches["60 severe"] += 60 <= years < 65 and severe
        branches["55 indigenous"] += years >= 55 and item.membership is not None and item.membership.registered
        branches["foreigner"] += years >= 65 and bool(item.residences)
        branches["payroll"] += years >= 65 and item.post is not None
        branches["other pension"] += years >= 65 and insurance is not None and insurance.kind == "JUBILADO"
        branches["contributing"] += years >= 60 and insurance is not None and any(e.active for e in insurance.employers)
        branches["dead on the roll"] += item.pension is not None and person.deceased_on is not None
        branches["taxpayer"] += years >= 65 and item.taxpayer is not None and item.taxpayer.status == "ACTIVO"
    assert len(branches) == 9
    assert min(branches.values()) > 0, branches


def test_named_applicants_have_numbers_nobody_else_gets() -> None:
    assert len(NAMED) == len(CASES) == len({case.name for case in CASES})
    assert all(cedula is not None and parse_cedula(cedula) == cedula for cedula in NAMED)
    assert NAMED.isdisjoint(member.cedula for home in generate(20_000, 1) for member in home.members)
    members = [home.members for home in households()]
    assert [len(one) for one in members] == [1] * len(CASES)
    assert all(district(person.district).department == person.department for (person,) in members)


def test_the_forged_certificate_is_the_number_of_another_applicant() -> None:
    holders = {case.dossier.certificate.number: case.name for case in CASES if case.dossier.certificate}
    forged = next(case for case in CASES if case.name == "60-certificate-of-another")
    assert forged.dossier.certificate is None
    assert holders[forged.shows_certificate or ""] == "60-severe-certificate"
