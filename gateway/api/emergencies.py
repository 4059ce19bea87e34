"""Emergency accesses over HTTP for the officers who review them, and the notices that tell of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from consent import emergency
from consent.models import Actor, Caller
from gateway import errors
from gateway.api import paging
from gateway.api.documentation import body_of
from gateway.api.request import Door, correlation, read_message
from gateway.governance import notices
from gateway.governance.notices import Notice, Reader
from gateway.governance.refusals import refused
from gateway.governance.service import Governance
from schemas.codes import label
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid

_REVIEW = "emergency-review"
_REVIEWING, _READING = "emergency.review", "notice.read"


def build_router(door: Door, governance: Governance) -> APIRouter:
    """Return the routes of emergencies and notices."""
    router = APIRouter(tags=["Emergencias y avisos"])

    @router.get("/api/v1/emergencies")
    async def emergencies(request: Request) -> Response:
        """List the emergency accesses of the caller's institution, and how many each user opened in seven days."""
        caller = await _caller(request, "emergency.review")
        await governance.authorise(caller, _REVIEWING)
        page, mine = paging.page_of(request), caller.institution
        async with governance.database.connection() as connection:
            found = await emergency.list_emergencies(connection, institution=mine, after=page.after, limit=page.limit)
            week = await emergency.opened_in_a_week(connection, institution=mine, at=governance.now())
        shown = {"emergencies": [str(each.id) for each in found]}
        receipt = await governance.note_reading(caller, "breakglass.read", shown)
        counts = [{"user": user, "opened": count} for (_where, user), count in week.items()]
        items = [each._asdict() for each in found]
        return paging.answer("emergencies", items, page, last_seven_days=counts, receipt=receipt)

    @router.post("/api/v1/emergencies/{emergency_id}/review", openapi_extra=body_of(_REVIEW))
    async def review(request: Request, emergency_id: str) -> Response:
        """Say whether an emergency access was justified; never who opened it. If not, the role is lost at once."""
        caller = await _caller(request, "emergency.review")
        message = read_message(_REVIEW, await door.body(request))

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            return await emergency.review(connection, actor, _id(emergency_id), verdict=message["verdict"], at=at)

        with refused():
            done = await governance.change(caller, _REVIEWING, work, correlation=correlation(request))
        return Response(orjson.dumps(done.answer), 200, media_type="application/json")

    @router.get("/api/v1/notices")
    async def read_notices(request: Request) -> Response:
        """List the notices for the caller: an officer's institution's, or the person's own."""
        caller = await _caller(request, "notices.read")
        await governance.authorise(caller, _READING)
        page = paging.page_of(request)
        async with governance.database.connection() as connection:
            found = await notices.list_for(
                connection, _reader(caller), at=governance.now(), after=page.after, limit=page.limit
            )
        shown = {"notices": [str(each.id) for each in found]}
        receipt = await governance.note_reading(caller, "notice.read", shown)
        return paging.answer("notices", [_notice(each) for each in found], page, receipt=receipt)

    @router.post("/api/v1/notices/{notice_id}/seen")
    async def seen(request: Request, notice_id: str) -> Response:
        """Note that a notice was seen; the first time counts."""
        caller = await _caller(request, "notices.read")

        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            return await notices.mark_seen(connection, _reader(caller), _id(notice_id), at=at)

        done = await governance.change(caller, _READING, work, correlation=correlation(request))
        return Response(orjson.dumps(done.answer), 200, media_type="application/json")

    async def _caller(request: Request, scope: str) -> Caller:
        verified = door.caller(request, scope)
        request.state.verified = verified
        return await door.acting(request, verified, None)

    def _reader(caller: Caller) -> Reader:
        return Reader(caller.institution, governance.roles_of(caller), caller.person)

    return router


def _notice(found: Notice) -> dict[str, Any]:
    return {**found._asdict(), "title": label("notices", found.kind)}


def _id(text: str) -> UUID:
    try:
        return parse_uuid(text)
    except InvalidIdentifier:
        raise errors.NotFound("not-found") from None
