"""Types of the statistics of referrals: what is asked for, and the counts before anybody decides who may see them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which referrals are counted; all that is given must hold. Days are Paraguay's.

    ``since`` is included, ``until`` excluded; both look at the day a referral was made. ``gaps``: count those without
    a referral, too, which reads the stored protection status of everybody in the territory.
    """

    department: str | None = None
    district: str | None = None
    requester: str | None = None
    recipient: str | None = None
    service: str | None = None
    population: str | None = None
    category: str | None = None
    since: date | None = None
    until: date | None = None
    gaps: bool = False

    def said(self) -> dict[str, Any]:
        """Return what is given, as JSON, the log and a snapshot have it."""
        given = ((item.name, getattr(self, item.name)) for item in fields(self))
        return {name: value.isoformat() if isinstance(value, date) else value for name, value in given if value}


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the funnel: how many reached it, and what became of those who went no further, by ending."""

    code: str
    reached: int
    endings: dict[str, int]


@dataclass(frozen=True, slots=True)
class Span:
    """How long it took between two steps: of how many referrals, median and ninth decile in seconds."""

    code: str
    referrals: int
    median: float | None
    p90: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """Everything that is counted of a scope at one moment.

    ``unreferred``: gaps without a referral by service, ``None`` where nobody asked. ``reasons`` by (ending, reason),
    ``doors`` by (channel, requester); ``no_shows`` and ``reopened`` are (referrals, times); ``repeated`` is how many
    referrals are not the first of their person and service in the scope, and of how many pairs.
    """

    at: datetime
    steps: tuple[Step, ...]
    spans: tuple[Span, ...]
    unreferred: dict[str, int] | None
    reasons: dict[tuple[str, str], int]
    doors: dict[tuple[str, str], int]
    no_shows: tuple[int, int]
    reopened: tuple[int, int]
    repeated: tuple[int, int]
