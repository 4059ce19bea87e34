"""Who used a person's data, over HTTP: for the person, for who acts for them, and for who attends them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from consent.models import Caller
from gateway import errors
from gateway.api import paging
from gateway.api.consents import named
from gateway.api.documentation import body_of
from gateway.api.request import Door, read_message
from gateway.governance.usage import Asked, Page, Usage
from gateway.governance.usage_words import row_json
from schemas.ids import parse_uuid
from schemas.text import _
from schemas.validation import read_instant

SCOPE, ALONE = "usage.read", "usage.portal"
_QUERY = "usage-query"
_PATH = "/api/v1/usage"


def build_router(door: Door, usage: Usage) -> APIRouter:
    """Return the routes of who used a person's data."""
    router = APIRouter(tags=["Quién usó mis datos"])

    @router.get(_PATH)
    async def own(request: Request) -> Response:
        """Show a person with a token of their own who used their data; `?since=&until=` as instants."""
        caller, page = await usage_caller(door, request, None), paging.page_of(request)
        asked = Asked(
            limit=page.limit, after=page.after, since=instant_of(request, "since"), until=instant_of(request, "until")
        )
        return _answer(await usage.read(caller, None, asked))

    @router.post(_PATH, openapi_extra=body_of(_QUERY))
    async def of_person(request: Request) -> Response:
        """Show it to who acts for a person by a mandate, or to who attends the person; nothing of somebody closed."""
        request.state.verified = door.caller(request, SCOPE)
        message = read_message(_QUERY, await door.body(request))
        caller = await usage_caller(door, request, message)
        found = await usage.read(
            caller, named(message, "subject"), _asked(message), representative=named(message, "representative")
        )
        return _answer(found)

    return router


async def usage_caller(door: Door, request: Request, message: Any) -> Caller:
    """Return who calls; a system that nobody stands behind needs a scope that only portals have."""
    verified = getattr(request.state, "verified", None) or door.caller(request, SCOPE)
    request.state.verified = verified
    caller = await door.acting(request, verified, message)
    if caller.person is None and caller.user is None:
        verified.require(ALONE)
    return caller


def instant_of(request: Request, name: str) -> datetime | None:
    """Return the instant of a query parameter, ``None`` without it; raises BadRequest for one without its offset."""
    given = request.query_params.get(name)
    if given is None:
        return None
    try:
        # A plus sign in a query is a space to who reads it (WHATWG URL, urlencoded parsing).
        return read_instant(given.replace(" ", "+"))
    except (ValueError, TypeError):
        # TypeError: without an offset it cannot be compared with any instant.
        detail = _("Escriba la fecha y la hora con su zona, por ejemplo 2026-11-22T00:00:00-03:00.")
        raise errors.BadRequest("bad-period", pointer=f"/{name}", detail=detail) from None


def page_json(page: Page) -> dict[str, Any]:
    """Return a page as JSON; it tells neither how much there is nor whether anything is left out."""
    return {
        "person": str(page.person),
        "usage": [row_json(row) for row in page.rows],
        "registers": [row_json(row) for row in page.registers],
        "receipt": page.receipt,
        "next": None if page.next is None else str(page.next),
    }


def _answer(page: Page) -> Response:
    return Response(orjson.dumps(page_json(page)), 200, {"Cache-Control": "no-store"}, "application/json")


def _asked(message: dict[str, Any]) -> Asked:
    since, until, after = (message.get(name) for name in ("since", "until", "after"))
    return Asked(
        limit=message.get("limit", paging.USUAL),
        since=None if since is None else read_instant(since),
        until=None if until is None else read_instant(until),
        after=None if after is None else parse_uuid(after),
        whole=message.get("whole", False),
    )
