"""How a field leaves that may not leave as it is: age band of a birth date, district of an address, or masked."""

from __future__ import annotations

from datetime import date
from typing import Any

from schemas.ages import category_of

# As many of the last characters as help a person to tell two documents on the desk apart.
_SHOWN = 2
_TERRITORY = ("department", "district")


def reduced(treatment: str, value: Any, today: date) -> Any:
    """Return what a treatment (``treatments.yaml``) leaves of a value.

    ``age-band`` takes a date (ISO 8601 text) and gives a life-cycle category on ``today``; ``district`` takes an object
    and keeps department and district; ``mask`` keeps the last two characters of a text. A value that the treatment
    cannot read leaves as ``None``, never as it is. Raises :class:`ValueError` for a treatment there is not.
    """
    if value is None or treatment == "keep":
        return value
    if treatment == "age-band":
        return _age_band(value, today)
    if treatment == "district":
        return {name: value[name] for name in _TERRITORY if name in value} if isinstance(value, dict) else None
    if treatment == "mask":
        return "*" * 6 + value[-_SHOWN:] if isinstance(value, str) and len(value) > 2 * _SHOWN else None
    raise ValueError("no such treatment")


def _age_band(value: Any, today: date) -> str | None:
    try:
        return category_of(date.fromisoformat(value), today)
    except (TypeError, ValueError):
        return None
