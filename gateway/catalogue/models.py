"""Types of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

#: The institution that coordinates: it routes what has no other place, and its auditors oversee everybody.
COORDINATOR = "UTGS"


@dataclass(frozen=True, slots=True)
class Service:
    """One service of a core package; ages in completed years, ``response_days`` in calendar days."""

    code: str
    institution: str
    names: dict[str, str]
    categories: frozenset[str]
    requires: str | None
    from_age: int | None
    response_days: int
