"""Lists in pages: from behind an id, a limited number, and no totals, which would tell of what is not shown."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid
from schemas.text import _

USUAL, MOST = 50, 200


class Page(NamedTuple):
    """Which part of a list is asked for."""

    after: UUID | None
    limit: int


def page_of(request: Request) -> Page:
    """Return the page that ``?after=ID&limit=N`` asks for; raises BadRequest for anything else there."""
    given, limit = request.query_params, limit_of(request)
    try:
        return Page(parse_uuid(given["after"]) if "after" in given else None, limit)
    except InvalidIdentifier:
        detail = _("Siga con el número que dio «next».")
        raise errors.BadRequest("bad-page", pointer="/after", detail=detail) from None


def limit_of(request: Request) -> int:
    """Return how many items ``?limit=N`` asks for, the usual number without it; raises BadRequest for anything else."""
    limit = request.query_params.get("limit", str(USUAL))
    if not (limit.isascii() and limit.isdecimal() and len(limit) <= 3 and 1 <= int(limit) <= MOST):
        detail = _("Pida de 1 a {most} por página.").format(most=MOST)
        raise errors.BadRequest("bad-page", pointer="/limit", detail=detail)
    return int(limit)


def answer(name: str, items: list[dict[str, Any]], asked: Page, **more: Any) -> Response:
    """Build the answer with one page; ``next`` is what to ask ``after``, null when there is no more for now."""
    following = items[-1]["id"] if len(items) == asked.limit else None
    body = orjson.dumps({name: items, **more, "next": following})
    return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")
