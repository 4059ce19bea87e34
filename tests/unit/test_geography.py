"""Codes of departments and districts: shape, translation between three systems, agreement with the sources."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from schemas import geography
from schemas.errors import InvalidIdentifier, UnknownCode

_WRITTEN_OUT = {"GRAL": "GENERAL", "CNEL": "CORONEL", "MCAL": "MARISCAL", "TTE": "TENIENTE", "DR": "DOCTOR",
                "SGTO": "SARGENTO", "PTO": "PUERTO", "1RO": "PRIMERO", "PTE": "PRESIDENTE"}  # fmt: skip
_TITLES = {"GENERAL", "CORONEL", "MARISCAL", "TENIENTE", "DOCTOR", "SARGENTO", "MAYOR", "CAPITAN"}


def words(name: str) -> list[str]:
    """A name's words without accents, punctuation, bracketed suffixes and leading titles, abbreviations written out."""
    bare = unicodedata.normalize("NFD", re.sub(r"\(.*", "", name).upper().replace("'", ""))
    bare = "".join(letter for letter in bare if not unicodedata.combining(letter))
    found = [_WRITTEN_OUT.get(word, word) for word in re.findall(r"[A-Z0-9]+", bare)]
    while len(found) > 1 and found[0] in _TITLES:
        found = found[1:]
    return found


def same_place(one: str, other: str) -> bool:
    """Whether two names agree word for word, an initial standing for any word it begins."""
    pairs = list(zip(words(one), words(other), strict=False))
    return len(words(one)) == len(words(other)) and all(
        a == b or (1 in (len(a), len(b)) and a[0] == b[0]) for a, b in pairs
    )


def all_districts() -> list[geography.District]:
    return [row for department in geography.departments() for row in geography.districts(department.ine)]


def sifen(samples: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((samples / "geo/py-sifen-codes" / name).read_text(encoding="utf-8"))
    return rows


def test_there_are_17_departments_and_the_capital() -> None:
    assert [row.ine for row in geography.departments()] == [f"{number:02}" for number in range(18)]


def test_department_names_carry_their_diacritics() -> None:
    names = {row.name for row in geography.departments()}
    assert {"Ñeembucú", "Canindeyú", "Guairá", "Alto Paraná", "Boquerón", "Asunción"} <= names


@pytest.mark.parametrize(
    ("ine", "sifen_code", "iso"),
    [
        ("00", "1", "PY-ASU"),
        ("10", "11", "PY-10"),
        ("11", "12", "PY-11"),
        ("14", "18", "PY-14"),
        ("15", "15", "PY-15"),
        ("16", "16", "PY-19"),
        ("17", "17", "PY-16"),
    ],
)
def test_a_department_translates_between_all_three_systems(ine: str, sifen_code: str, iso: str) -> None:
    codes: dict[geography.System, str] = {"ine": ine, "sifen": sifen_code, "iso": iso}
    for source, code in codes.items():
        for target, expected in codes.items():
            assert geography.translate_department(code, source, target) == expected


def test_only_three_departments_have_the_same_number_in_ine_and_sifen() -> None:
    same = [row.name for row in geography.departments() if int(row.ine) == int(row.sifen)]
    assert same == ["Presidente Hayes", "Boquerón", "Alto Paraguay"]


@pytest.mark.parametrize("code", [1, 16, None, 1.0, True])
def test_a_code_that_is_not_text_is_refused(code: Any) -> None:
    with pytest.raises(TypeError, match="is text"):
        geography.department(code)
    with pytest.raises(TypeError, match="is text"):
        geography.district(code)
    with pytest.raises(TypeError, match="is text"):
        geography.translate_department(code, "sifen", "ine")


@pytest.mark.parametrize("code", ["1", "001", "", "0x", "01\n", "٠١", " 01", "01 "])
def test_a_code_of_another_shape_is_refused_without_repeating_it(code: str) -> None:
    with pytest.raises(InvalidIdentifier) as caught:
        geography.department(code)
    assert str(caught.value) == "departments/ine"


def test_a_sifen_code_with_a_leading_zero_is_refused() -> None:
    with pytest.raises(InvalidIdentifier):
        geography.translate_department("01", "sifen", "ine")


@pytest.mark.parametrize("call", [lambda: geography.department("18"), lambda: geography.district("1699")])
def test_a_well_formed_code_that_does_not_exist_is_unknown(call: Any) -> None:
    with pytest.raises(UnknownCode):
        call()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("1116", "Villeta"),
        ("0607", "San Juan Nepomuceno"),
        ("0218", "Santa Rosa del Aguaray"),
        ("1602", "Mariscal José Félix Estigarribia"),
        ("1304", "Zanja Pytã"),
        ("0108", "Azote'y"),
    ],
)
def test_a_district_is_found_by_its_four_digits(code: str, name: str) -> None:
    found = geography.district(code)
    assert (found.name, found.department) == (name, code[:2])


def test_districts_translate_both_ways_where_the_match_is_sure() -> None:
    matched = [row for row in all_districts() if row.sifen is not None]
    assert len(matched) == 236
    for row in matched:
        assert row.sifen == geography.translate_district(row.ine, "ine", "sifen")
        assert row.ine == geography.translate_district(str(row.sifen), "sifen", "ine")


def test_a_district_without_a_sure_match_has_no_sifen_code() -> None:
    assert geography.district("1214").name == "Villa Franca"  # twice in SIFEN's list
    with pytest.raises(UnknownCode):
        geography.translate_district("1214", "ine", "sifen")


def test_every_district_lies_in_the_department_its_code_begins_with() -> None:
    rows = all_districts()
    assert len(rows) == len({row.ine for row in rows}) == 250
    assert all(row.ine.startswith(row.department) for row in rows)
    assert all(unicodedata.is_normalized("NFC", row.name) for row in rows)


def test_the_shipped_districts_agree_with_the_census_cartography_of_2012(samples: Path) -> None:
    source = samples / "geo/py-dgeec-2012-derived/py_distritos_dgeec_2012.csv"
    with source.open(encoding="utf-8", newline="") as stream:
        listed = {row["COD"]: row["DIST_DESC"] for row in csv.DictReader(stream)}
    assert {row.ine for row in all_districts() if row.first_listed == 2012} == set(listed)
    for code, name in listed.items():
        ours = geography.district(code)
        assert any(same_place(name, own) for own in (ours.name, *ours.aliases)), code


def test_the_shipped_sifen_codes_agree_with_the_tax_authority(samples: Path) -> None:
    departments = {str(row["codigo"]): row["descripcion"] for row in sifen(samples, "sifen_departamentos.json")}
    ours = {row.sifen: row.name for row in geography.departments()}
    assert ours.keys() == departments.keys()
    differing = {code for code in ours if words(ours[code]) != words(departments[code])}
    assert {departments[code] for code in differing} == {"CAPITAL"}

    rows = sifen(samples, "sifen_distritos.json")
    for district in all_districts():
        own = (district.name, *district.aliases)
        tax_department = geography.department(district.department).sifen
        sure = [
            str(row["codigo"])
            for row in rows
            if str(row["departamento"]) == tax_department and any(same_place(row["descripcion"], name) for name in own)
        ]
        assert district.sifen == (sure[0] if len(sure) == 1 else None), district.ine
