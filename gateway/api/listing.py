"""Reads which referrals a list, a report or a board is asked for: one set of parameters, each checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from starlette.requests import Request

from gateway import errors
from gateway.api.paging import page_of
from gateway.api.sheets import Form
from gateway.referrals import states
from gateway.referrals.nominal import Filter
from schemas import geography
from schemas.errors import InvalidIdentifier, UnknownCode
from schemas.text import _

#: Rows of a file; a page of JSON has as many as any list.
MOST_ROWS = 5000
#: The parameters there are.
NAMES = frozenset(
    {"after", "limit", "format", "side", "state", "service", "department", "district", "since", "until", "overdue"}
)


def filter_of(request: Request, form: Form) -> Filter:
    """Return the filter that the parameters of a request describe; raises BadRequest with the valid choices."""
    given = request.query_params
    for name in given:
        if name not in NAMES:
            detail = _("Este parámetro no existe; vea «allowed».")
            raise errors.BadRequest("unknown-parameter", pointer="/", detail=detail, allowed=sorted(NAMES))
    page = page_of(request)
    whole = form != "json" and "limit" not in given
    chosen = filter_from(given, given.getlist("state"), limit=MOST_ROWS if whole else page.limit)
    return replace(chosen, after=page.after)


def filter_from(given: Mapping[str, str], chosen: Sequence[str], *, limit: int) -> Filter:
    """Return the filter that parameters describe, ``chosen`` being the states; raises as :func:`filter_of`."""
    known = frozenset(states.BUSINESS_STATUS)
    if not known.issuperset(chosen):
        raise errors.BadRequest("unknown-code", pointer="/state", allowed=sorted(known))
    department, district = given.get("department"), given.get("district")
    _require_place(department, district)
    return Filter(
        limit=limit,
        states=frozenset(chosen),
        service=given.get("service"),
        department=department,
        district=district,
        since=_day(given.get("since"), "since"),
        until=_day(given.get("until"), "until"),
        overdue=_flag(given.get("overdue", "false")),
    )


def _require_place(department: str | None, district: str | None) -> None:
    try:
        if department is not None:
            geography.department(department)
    except (InvalidIdentifier, UnknownCode):
        allowed = [each.ine for each in geography.departments()]
        raise errors.BadRequest("unknown-code", pointer="/department", allowed=allowed) from None
    try:
        found = None if district is None else geography.district(district)
    except (InvalidIdentifier, UnknownCode):
        found = None
    if district is not None and (found is None or department not in (None, found.department)):
        allowed = [] if department is None else [each.ine for each in geography.districts(department)]
        detail = _("Use el código del INE de un distrito, de cuatro cifras.")
        raise errors.BadRequest("unknown-code", pointer="/district", allowed=allowed, detail=detail)


def _day(text: str | None, name: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text) if len(text) == len("2026-11-23") else _no_day(name)
    except ValueError:
        return _no_day(name)


def _no_day(name: str) -> date:
    detail = _("Escriba el día como 2026-11-23.")
    raise errors.BadRequest("bad-day", pointer=f"/{name}", detail=detail) from None


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise errors.BadRequest("unknown-code", pointer="/overdue", allowed=("true", "false"))
    return text == "true"
