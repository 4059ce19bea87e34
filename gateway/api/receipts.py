"""Receipts over HTTP: ``GET /api/v1/audit/receipts``, for institutions that cannot take them with each call."""

from __future__ import annotations

import re
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from audit.models import Receipt
from audit.receipts import BEGINNING, Numbered
from gateway import errors
from gateway.api.paging import limit_of
from gateway.api.request import Door
from gateway.commands import receipt_json
from gateway.governance import receipts
from gateway.governance.service import Governance
from schemas.text import _

PATH = "/api/v1/audit/receipts"
SCOPE = "receipts.read"
_PLACE = re.compile(r"([0-9]{4})-([0-9]{1,15})\Z", re.ASCII)


def build_router(door: Door, governance: Governance) -> APIRouter:
    """Return the route of receipts."""
    router = APIRouter(tags=["Registro"])

    @router.get(PATH)
    async def page(request: Request) -> Response:
        """List the receipts of exchanges that the caller's institution took part in, by their place in the log."""
        verified = door.caller(request, SCOPE)
        request.state.verified = verified
        after, limit = _after(request), limit_of(request)
        found = await receipts.page(governance, door.with_operator(request, verified, None), after=after, limit=limit)
        items = [_item(each) for each in found.items]
        following = items[-1]["id"] if len(items) == limit else None
        body = orjson.dumps({"receipts": items, "next": following, "receipt": found.receipt})
        return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")

    return router


def _after(request: Request) -> tuple[int, int]:
    given = request.query_params.get("after")
    if given is None:
        return BEGINNING
    match = _PLACE.match(given)
    if match is None:
        raise errors.BadRequest("bad-page", pointer="/after", detail=_("Siga con lo que dio «next»: año y número."))
    return int(match[1]), int(match[2])


def _item(each: Numbered) -> dict[str, Any]:
    return {
        "id": f"{each.log}-{each.number}",
        "log": each.log,
        "index": each.number,
        "at": each.at.isoformat(),
        "type": each.type,
        **receipt_json(Receipt(each.entry_id, each.leaf_hash, None)),
    }
