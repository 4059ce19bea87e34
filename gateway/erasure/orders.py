"""What every order has: a norm that may stay in clear for ever, and terms counted in whole years."""

from __future__ import annotations

import re
from datetime import date

from gateway import errors
from schemas.text import _

# Stays in clear for ever, so it is a citation and not a sentence.
_NORM = re.compile(r"[A-Za-zÁÉÍÓÚÑáéíóúñ0-9 .,/°º()-]{3,80}\Z")


def require_norm(norm: str) -> None:
    """Raise BadRequest for a norm that is no citation."""
    if not _NORM.match(norm):
        detail = _("La norma es una cita, como «Ley 7593/2025, art. 31»: queda a la vista de todos para siempre.")
        raise errors.BadRequest("invalid-record", pointer="/norm", detail=detail)


def years_after(day: date, years: int) -> date:
    """Return the same day some years later; of 29 February, 1 March where there is none."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return date(day.year + years, 3, 1)


def years_before(day: date, years: int) -> date:
    """Return the same day some years earlier; of 29 February, 28 February where there is none."""
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return date(day.year - years, 2, 28)
