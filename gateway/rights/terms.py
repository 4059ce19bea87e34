"""Counts the terms of Ley 7593/2025 in Paraguay's time: which day is the last, and whether it is over.

The day of receipt is not counted and the last day counts whole, until midnight in Asunción. Where the law can be read
in two ways the earlier end is taken: an answer that is early by one reading is late by none.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from gateway.clock import local_day
from schemas.codes import code_list

if TYPE_CHECKING:
    from holidays.countries.paraguay import Paraguay

#: Running hours from knowing of a breach to telling the Agency and the people (Ley 7593/2025 art. 17).
BREACH_TERM = timedelta(hours=72)
_DAY = timedelta(days=1)
_SATURDAY = 5


def due_on(right: str, received_at: datetime) -> date:
    """Return the last day to answer a request for a right (code of ``rights``), received at an instant."""
    term, day = code_list("rights")[right], local_day(received_at)
    if "working_days" in term:
        return after_working_days(day, term["working_days"])
    # Never moved on to a working day: 30 days in a row are the least that the law can mean.
    return day + timedelta(days=term["days"])


def after_working_days(day: date, count: int) -> date:
    """Return the ``count``-th working day after a day; it cannot end on another, so nothing is moved."""
    while count:
        day += _DAY
        count -= is_working_day(day)
    return day


def is_working_day(day: date) -> bool:
    """Say whether public offices are open: Monday to Friday, and no national holiday, at the day it was moved to.

    Days off of civil servants alone (asuetos) count as working days: the term ends earlier so.
    """
    # The library's own weekend is Sunday only, which is when shops are closed, not offices.
    return day.weekday() < _SATURDAY and day not in _holidays()


def is_over(due: date, at: datetime) -> bool:
    """Say whether a term has run out at an instant: it has when its last day has passed in Paraguay."""
    return local_day(at) > due


def breach_deadline(known_at: datetime) -> datetime:
    """Return by when a breach known since an instant must be told: hours run through nights and holidays."""
    return known_at + BREACH_TERM


@lru_cache(maxsize=1)
def _holidays() -> Paraguay:
    # Imported when a term is counted: the library takes most of a second.
    from holidays.countries.paraguay import Paraguay

    return Paraguay()  # type: ignore[no-untyped-call]
