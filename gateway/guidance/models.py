"""Types of guidance."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Somebody as they describe themselves, or nobody in particular: what is not said is not needed.

    ``age`` in completed years; ``marks``: what a service may require of a person or household (pregnant, poverty…);
    ``needs``: codes of service routes; ``district`` by the statistics office's code.
    """

    age: int | None = None
    marks: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    district: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service is given, in the words of the catalogue."""

    name: str
    address: str | None
    district: str
    hours: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One service to turn to: why, where, with what papers, and how soon it answers (calendar days).

    ``category``: the life-cycle category by which it applies; ``route`` and ``step`` (from 1) where it is part of a
    service route that was asked for.
    """

    service: str
    name: str
    institution: str
    institution_name: str
    why: str
    papers: tuple[str, ...]
    places: tuple[Place, ...]
    response_days: int
    category: str | None = None
    route: str | None = None
    step: int | None = None
