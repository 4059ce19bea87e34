"""Ages and what follows from them: completed years and the life-cycle category of the SPS management model."""

from __future__ import annotations

from datetime import date

from schemas.codes import code_list


def age_on(birth_date: date, day: date) -> int:
    """Return completed years on a day; born 29 February, a year completes on 1 March of common years."""
    return day.year - birth_date.year - ((day.month, day.day) < (birth_date.month, birth_date.day))


def category_of(birth_date: date | None, day: date) -> str | None:
    """Return the life-cycle category by age, or None when the birth date is unknown or later than the day."""
    if birth_date is None or birth_date > day:
        return None
    age = age_on(birth_date, day)
    for code, category in code_list("life-cycle").items():
        if "from_age" in category and category["from_age"] <= age <= category["to_age"]:
            return code
    return None
