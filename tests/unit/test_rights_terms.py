"""The legal terms: which day is the last, over weekends, year ends, Holy Week and holidays that were moved."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rights.terms import after_working_days, breach_deadline, due_on, is_over, is_working_day
from schemas.codes import code_list

ASUNCION = ZoneInfo("America/Asuncion")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ASUNCION)


@pytest.mark.parametrize("right", ["access", "rectification", "deletion", "portability"])
@pytest.mark.parametrize(
    ("received", "last"),
    [
        ("2027-03-01T10:00", "2027-03-31"),
        ("2027-12-15T10:00", "2028-01-14"),
        ("2028-02-01T10:00", "2028-03-02"),
        # The last day is a Saturday, a Sunday, Christmas: it stays.
        ("2027-04-01T10:00", "2027-05-01"),
        ("2027-11-25T10:00", "2027-12-25"),
        # The day of receipt is the one in Paraguay, where it is three hours earlier.
        ("2027-03-01T00:00", "2027-03-31"),
        ("2027-03-01T23:59", "2027-03-31"),
    ],
)
def test_thirty_days_in_a_row_are_counted_from_the_day_after(right: str, received: str, last: str) -> None:
    moment = at(received)
    assert due_on(right, moment) == date.fromisoformat(last)
    assert due_on(right, moment.astimezone(UTC)) == date.fromisoformat(last)


@pytest.mark.parametrize(
    ("received", "last"),
    [
        # Monday to Friday twice, no holiday.
        ("2027-07-05T10:00", "2027-07-19"),
        # Received on a Saturday: counted from Monday.
        ("2027-07-10T10:00", "2027-07-23"),
        # Holy Week of 2027: Thursday 25 and Friday 26 March are holidays.
        ("2027-03-19T10:00", "2027-04-06"),
        # Over Christmas (a Saturday) and New Year's Day (a Saturday).
        ("2027-12-20T10:00", "2028-01-03"),
        # 8 December 2026 (a Tuesday), 25 December (a Friday) and 1 January (a Friday) are holidays.
        ("2026-12-07T10:00", "2026-12-22"),
        ("2026-12-21T10:00", "2027-01-06"),
        # Chaco Armistice Day was moved to Monday 16 June in 2025, Boquerón from Sunday to Monday 30 September in 2024.
        ("2025-06-09T10:00", "2025-06-24"),
        ("2024-09-27T10:00", "2024-10-14"),
        # Heroes' Day of 2025 was moved from Saturday 1 to Monday 3 March.
        ("2025-02-28T10:00", "2025-03-17"),
    ],
)
def test_an_opposition_has_ten_working_days(received: str, last: str) -> None:
    assert due_on("opposition", at(received)) == date.fromisoformat(last)


def test_a_day_off_of_civil_servants_alone_is_a_working_day() -> None:
    # Wednesday of Holy Week 2025 and 24 December 2024 were declared asueto.
    assert is_working_day(date(2025, 4, 16))
    assert is_working_day(date(2024, 12, 24))
    assert not is_working_day(date(2025, 4, 17))


def test_the_last_day_counts_until_midnight_in_paraguay() -> None:
    last = date(2027, 3, 31)
    assert not is_over(last, at("2027-03-31T23:59:59"))
    assert is_over(last, at("2027-04-01T00:00:00"))
    # 00:30 in UTC is still the evening before in Asunción.
    assert not is_over(last, datetime(2027, 4, 1, 0, 30, tzinfo=UTC))


@given(st.dates(date(2024, 1, 1), date(2035, 12, 31)), st.integers(1, 40))
def test_a_working_term_ends_on_a_working_day_with_as_many_before_it_as_it_has_days(day: date, count: int) -> None:
    last = after_working_days(day, count)
    between = [day + timedelta(days=number) for number in range(1, (last - day).days + 1)]
    assert is_working_day(last)
    assert sum(is_working_day(each) for each in between) == count


@given(st.datetimes(datetime(2024, 1, 1), datetime(2035, 12, 31), timezones=st.just(UTC)))
def test_a_breach_is_told_within_72_running_hours(known_at: datetime) -> None:
    assert (breach_deadline(known_at) - known_at).total_seconds() == 72 * 3600


@given(st.datetimes(datetime(2024, 1, 1), datetime(2035, 12, 31), timezones=st.just(UTC)))
def test_an_opposition_never_has_more_time_than_any_other_request(received: datetime) -> None:
    assert due_on("opposition", received) < due_on("access", received)


def test_every_right_has_one_term_and_outcomes_that_exist() -> None:
    for right, spec in code_list("rights").items():
        assert ("days" in spec) != ("working_days" in spec), right
        assert set(spec["outcomes"]) <= code_list("rights-outcomes").keys(), right
