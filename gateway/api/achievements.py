"""The ten achievements over HTTP, ``GET /api/v1/achievements``: counts by territory and population, no small ones."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from gateway.api.request import Door
from gateway.api.sheets import form_of, sheet
from gateway.registry.achievements import LEVELS, Achievements, Counted, Level, Published
from gateway.registry.suppression import THRESHOLD
from schemas.codes import code_list, label
from schemas.geography import departments, districts
from schemas.text import _

_SCOPE = "statistics.read"
COLUMNS = (
    "number",
    "category",
    "name",
    "department",
    "district",
    "community",
    "population",
    "identified",
    "applicable",
    "concurrent",
)


def build_router(door: Door, published: Published) -> APIRouter:
    """Return the route of the achievements."""
    router = APIRouter(tags=["Estatus de protección"])

    @router.get("/api/v1/achievements")
    async def achievements(request: Request) -> Response:
        """Count who is in concurrent protection by category, territory and population: JSON, CSV or XLSX, nobody named.

        Query: ``on`` (default: lately), ``level`` (country, department, district, community), ``department``,
        ``district`` (INE codes), ``population``, ``format``.
        """
        request.state.verified = door.caller(request, _SCOPE)
        form, day, level = form_of(request), _day(request), _level(request)
        within = {name: _code(request, name) for name in ("department", "district", "population")}
        _require_narrow(level, within)
        found = await published.on(day)
        if form == "json":
            body = orjson.dumps(achievements_json(found, level, **within))
            return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")
        rows = [row_json(row) for row in found.part(level, **within)]
        return await sheet(form, "logros", COLUMNS, rows, headers={})

    return router


def achievements_json(found: Achievements, level: Level, **within: str | None) -> dict[str, Any]:
    """Return one level of territory as JSON; a count that may not be shown is null."""
    return {
        "on": None if found.day is None else found.day.isoformat(),
        "computed_at": None if found.at is None else found.at.isoformat(),
        "hidden_below": THRESHOLD,
        "level": level,
        "achievements": [row_json(row) for row in found.part(level, **within)],
    }


def row_json(row: Counted) -> dict[str, Any]:
    """Return one count as JSON."""
    return {
        "number": row.number,
        "category": row.category,
        "name": label("life-cycle", row.category),
        "department": row.area.department,
        "district": row.area.district,
        "community": row.area.community,
        "population": row.population,
        "identified": row.identified,
        "applicable": row.applicable,
        "concurrent": row.concurrent,
    }


def _day(request: Request) -> date | None:
    text = request.query_params.get("on")
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise errors.BadRequest("bad-day", pointer="/on") from None


def _level(request: Request) -> Level:
    asked = request.query_params.get("level", "country")
    for level in LEVELS:
        if asked == level:
            return level
    raise errors.BadRequest("unknown-code", pointer="/level", allowed=LEVELS)


def _code(request: Request, name: str) -> str | None:
    """Return a code of a department, district or population; raises BadRequest for one that no list has."""
    asked = request.query_params.get(name)
    if asked is None:
        return None
    lists: dict[str, tuple[str, ...]] = {
        "department": tuple(each.ine for each in departments()),
        "district": tuple(each.ine for around in departments() for each in districts(around.ine)),
        "population": tuple(code_list("populations")),
    }
    if asked not in lists[name]:
        # Those of the districts would be hundreds.
        raise errors.BadRequest("unknown-code", pointer=f"/{name}", allowed=() if name == "district" else lists[name])
    return asked


def _require_narrow(level: Level, within: dict[str, str | None]) -> None:
    """Ask for the territory around: a table of all barrios of the country is no answer to a question."""
    around = {"district": "department", "community": "district"}.get(level)
    if around is not None and within[around] is None and within["district"] is None:
        raise errors.BadRequest("unknown-code", pointer=f"/{around}", detail=_("Indique de qué territorio."))
