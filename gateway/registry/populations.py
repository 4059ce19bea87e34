"""Says to which groups of special attention of the SPS a person belongs (code list ``populations``)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from schemas.ages import age_on

ADULT_AGE, OLDER_AGE = 18, 60


def populations(
    sex: str | None, birth_date: date | None, attributes: Mapping[str, object], *, poor: bool, day: date
) -> tuple[str, ...]:
    """Return the codes in the order of the list; ``poor``: the household is marked as poor."""
    age = None if birth_date is None or birth_date > day else age_on(birth_date, day)
    belongs = {
        "women": sex == "F",
        "children": age is not None and age < ADULT_AGE,
        "older": age is not None and age >= OLDER_AGE,
        "disability": attributes.get("disability") is True or attributes.get("severe-disability") is True,
        "indigenous": attributes.get("indigenous") is True,
        "poverty": poor,
    }
    return tuple(code for code, applies in belongs.items() if applies)
