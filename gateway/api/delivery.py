"""Delivery over HTTP: how it stands to each institution, pauses, and decisions on what could not be delivered."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from consent.models import Caller
from gateway.api import paging
from gateway.api.documentation import body_of
from gateway.api.request import Door, read_message
from gateway.api.rights import record_id, told
from gateway.api.rights import shown as show
from gateway.clock import utc_now
from gateway.delivery.desk import DeliveryDesk, shown

_SCOPE = "delivery.manage"
_REPLAY, _GIVE_UP = "delivery-replay", "delivery-giving-up"
_PATH = "/api/v1/delivery"


def build_router(door: Door, desk: DeliveryDesk) -> APIRouter:
    """Return the routes of delivery."""
    router = APIRouter(tags=["Entrega"])

    @router.get(_PATH)
    async def status(request: Request) -> Response:
        """Show how delivery stands: to the caller's institution, or to each for the coordinator."""
        return show({"lanes": shown(await desk.status(_caller(request)), utc_now())})

    @router.get(_PATH + "/dead")
    async def dead(request: Request) -> Response:
        """List the messages that wait for a person's decision, to or from the caller's institution."""
        caller, asked = _caller(request), paging.page_of(request)
        recipient = request.query_params.get("institution")
        found = await desk.dead(caller, recipient=recipient, after=asked.after, limit=asked.limit)
        return paging.answer("letters", [letter.as_json() for letter in found], asked)

    @router.post(_PATH + "/lanes/{institution}/pause")
    async def pause(request: Request, institution: str) -> Response:
        """Pause delivery to an institution; what is under way is finished."""
        return told(await desk.change(_caller(request), desk.pausing(institution, paused=True)), 200)

    @router.post(_PATH + "/lanes/{institution}/resume")
    async def resume(request: Request, institution: str) -> Response:
        """Let delivery to an institution go on, at a growing rate."""
        return told(await desk.change(_caller(request), desk.pausing(institution, paused=False)), 200)

    @router.post(_PATH + "/replay", openapi_extra=body_of(_REPLAY))
    async def replay_many(request: Request) -> Response:
        """Send an institution's dead letters again, up to 500 at once."""
        caller, asked = await _message(request, _REPLAY)
        return told(await desk.change(caller, desk.replaying_many(asked["institution"], asked.get("reason"))), 200)

    @router.post(_PATH + "/letters/{letter_id}/replay")
    async def replay(request: Request, letter_id: str) -> Response:
        """Send one dead letter again."""
        return told(await desk.change(_caller(request), desk.replaying(record_id(letter_id))), 200)

    @router.post(_PATH + "/letters/{letter_id}/give-up", openapi_extra=body_of(_GIVE_UP))
    async def give_up(request: Request, letter_id: str) -> Response:
        """Give a dead letter up; its requester reads why."""
        caller, said = await _message(request, _GIVE_UP)
        return told(await desk.change(caller, desk.giving_up(record_id(letter_id), said["reason"])), 200)

    @router.post(_PATH + "/letters/{letter_id}/transmitted")
    async def transmitted(request: Request, letter_id: str) -> Response:
        """Mark a dead letter as transmitted, because its recipient says that it has it."""
        return told(await desk.change(_caller(request), desk.confirming(record_id(letter_id))), 200)

    def _caller(request: Request) -> Caller:
        verified = door.caller(request, _SCOPE)
        request.state.verified = verified
        return door.with_operator(request, verified, None)

    async def _message(request: Request, name: str) -> tuple[Caller, dict[str, Any]]:
        # The token is checked before a body is read, and the operator stands in the body.
        request.state.verified = door.caller(request, _SCOPE)
        message = read_message(name, await door.body(request))
        return door.with_operator(request, request.state.verified, message), message

    return router
