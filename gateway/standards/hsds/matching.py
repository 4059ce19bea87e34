"""What a text or number of another catalogue is in ours: a code, a district, a value that a field takes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jsonschema_rs

from gateway.catalogue.changes import MESSAGE
from schemas import geography
from schemas.validation import schema

LONGEST_CODE, LONGEST_INSTITUTION = 60, 40


def slug(text: str, longest: int) -> str:
    """Return a code made of a text: lower-case ASCII letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:longest].strip("-")


def district_named(city: str, department: str) -> str | None:
    """Return the code of the one district of this name, in the department of the other where it is one."""
    name, other = slug(city, LONGEST_CODE), slug(department, LONGEST_CODE)
    departments = geography.departments()
    inside = [each for each in departments if slug(each.name, LONGEST_CODE) == other] or departments
    found = [
        place.ine
        for each in inside
        for place in geography.districts(each.ine)
        if name and name in {slug(one, LONGEST_CODE) for one in (place.name, *place.aliases)}
    ]
    return found[0] if len(found) == 1 else None


def district_name(code: str) -> str | None:
    """Return the name of a district; None for a code that none has."""
    try:
        return geography.district(code).name
    except ValueError:
        return None


def whole_number(value: object) -> object:
    """Return a whole number where a value is one, however it is written; else the value."""
    text = str(value)
    return int(float(text)) if re.fullmatch(r"[0-9]{1,3}(\.0+)?", text, re.ASCII) else value


@lru_cache(maxsize=128)
def _member(kind: str, field: str) -> Callable[[Any], bool]:
    return jsonschema_rs.Draft202012Validator(schema(MESSAGE)["$defs"][kind]["properties"][field]).is_valid


def fits(kind: str, field: str, value: object) -> bool:
    """Say whether a field of a kind (singular, as the schema has it) takes a value."""
    return _member(kind, field)(value)
