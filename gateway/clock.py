"""The clock that is handed in where nobody hands in another, and Paraguay's calendar day."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

PARAGUAY = ZoneInfo("America/Asuncion")


def utc_now() -> datetime:
    """Return the present instant in UTC."""
    return datetime.now(UTC)


def local_day(at: datetime) -> date:
    """Return the calendar day in Paraguay of an instant; days of facts and terms are counted there."""
    return at.astimezone(PARAGUAY).date()
