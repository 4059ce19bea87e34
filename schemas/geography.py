"""Decides what a geographic code means: departments and districts, in the systems of three authorities.

Sources of ``codes/departments.yaml`` and ``codes/districts.csv``: the statistics office (INE, formerly DGEEC), census
cartography of 2012 and its list of July 2024; the tax authority's code lists (SIFEN); ISO 3166-2:PY. A district carries
a SIFEN code only where exactly one SIFEN name of the same department agrees with one of its own names word for word,
after accents, punctuation, bracketed suffixes, titles and initials are resolved; SIFEN names some districts twice
(Villa Franca, Villalbín), and those stay empty. ``first_listed`` is the year of the first of the two INE lists that has
the district; districts founded later than the second are missing because no source at hand gives their code.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

from schemas.codes import code_list
from schemas.errors import InvalidIdentifier, UnknownCode

System = Literal["ine", "sifen", "iso"]

_Place = TypeVar("_Place")

_DISTRICTS = Path(__file__).parent / "codes" / "districts.csv"
_INE_DEPARTMENT = re.compile(r"[0-9]{2}\Z", re.ASCII)
_INE_DISTRICT = re.compile(r"[0-9]{4}\Z", re.ASCII)
_SIFEN = re.compile(r"[1-9][0-9]{0,2}\Z", re.ASCII)
_ISO = re.compile(r"PY-(ASU|[1-9][0-9]?)\Z", re.ASCII)
_SHAPES = {
    "departments": {"ine": _INE_DEPARTMENT, "sifen": _SIFEN, "iso": _ISO},
    "districts": {"ine": _INE_DISTRICT, "sifen": _SIFEN},
}


@dataclass(frozen=True, slots=True)
class Department:
    """A department, or the capital: its name and its code in each system, always text."""

    ine: str
    name: str
    sifen: str
    iso: str


@dataclass(frozen=True, slots=True)
class District:
    """A district: four-digit INE code (department and number), SIFEN code where sure, other spellings in use."""

    ine: str
    department: str
    name: str
    sifen: str | None
    first_listed: int
    aliases: tuple[str, ...]


def department(ine: str) -> Department:
    """Return the department with this INE code of two digits.

    Raises TypeError for anything but text, :class:`InvalidIdentifier` for text of another shape (``"1"`` is not
    ``"01"``) and :class:`UnknownCode` for a code that no department has.
    """
    return _found("departments", _departments_by("ine"), ine, "ine")


def district(code: str) -> District:
    """Return the district with this INE code of four digits. Raises as :func:`department` does."""
    return _found("districts", _districts_by("ine"), code, "ine")


def departments() -> tuple[Department, ...]:
    """Return the 17 departments and the capital, by INE code."""
    return tuple(_departments_by("ine").values())


def districts(department_ine: str) -> tuple[District, ...]:
    """Return a department's districts by INE code. Raises as :func:`department` does."""
    return _districts_of(department(department_ine).ine)


def translate_department(code: str, source: System, target: System) -> str:
    """Return the code that the department with ``code`` in system ``source`` has in system ``target``.

    Raises as :func:`department` does, the shape being that of the source system: SIFEN 1 to 18 without leading zero,
    ISO 3166-2 with its country prefix (``PY-19``).
    """
    found = _found("departments", _departments_by(source), code, source)
    return str(getattr(found, target))


def translate_district(code: str, source: Literal["ine", "sifen"], target: Literal["ine", "sifen"]) -> str:
    """Return a district's code in the other system. Raises as :func:`department` does.

    :class:`UnknownCode` also means that the district is known but the two systems could not be matched with certainty.
    """
    found = _found("districts", _districts_by(source), code, source)
    translated = getattr(found, target)
    if translated is None:
        raise UnknownCode(f"districts/{target}")
    return str(translated)


def _found(codes: str, table: dict[str, _Place], code: str, system: str) -> _Place:
    if not isinstance(code, str):
        raise TypeError(f"a code of {codes} is text, not {type(code).__name__}")
    if not _SHAPES[codes][system].match(code):
        raise InvalidIdentifier(f"{codes}/{system}")
    try:
        return table[code]
    except KeyError:
        raise UnknownCode(f"{codes}/{system}") from None


@lru_cache(maxsize=3)
def _departments_by(system: System) -> dict[str, Department]:
    rows = [Department(ine, row["es"], row["sifen"], row["iso"]) for ine, row in code_list("departments").items()]
    return {str(getattr(row, system)): row for row in rows}


@lru_cache(maxsize=2)
def _districts_by(system: Literal["ine", "sifen"]) -> dict[str, District]:
    with _DISTRICTS.open(encoding="utf-8", newline="") as stream:
        rows = [
            District(
                ine=row["ine"],
                department=row["department"],
                name=row["name"],
                sifen=row["sifen"] or None,
                first_listed=int(row["first_listed"]),
                aliases=tuple(row["aliases"].split("|")) if row["aliases"] else (),
            )
            for row in csv.DictReader(stream)
        ]
    return {code: row for row in rows if (code := getattr(row, system)) is not None}


@lru_cache(maxsize=32)
def _districts_of(department_ine: str) -> tuple[District, ...]:
    return tuple(row for row in _districts_by("ine").values() if row.department == department_ine)
