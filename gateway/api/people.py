"""Representatives, objections and protective flags over HTTP."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import paging
from gateway.api.consents import SCOPE, command_of, done_answer, message_of, named, record_id
from gateway.api.documentation import body_of
from gateway.api.request import Door
from gateway.governance.people import Looked, Named
from gateway.governance.protection import FlagChange, NewMandate, Protection
from schemas.validation import read_instant

_PROTECTION = "protection.manage"
_MANDATE, _STEP, _OBJECTION, _FLAG, _WHO = (
    "representative",
    "representative-step",
    "objection",
    "protection-flag",
    "person-search",
)


def build_router(door: Door, protection: Protection) -> APIRouter:
    """Return the routes of who acts for persons and of what protects them."""
    router = APIRouter(tags=["Representantes y protección"])

    @router.post("/api/v1/representatives", status_code=201, openapi_extra=body_of(_MANDATE))
    async def add(request: Request) -> Response:
        """Record who may act for a person; a parent's or guardian's mandate ends at the person's majority."""
        caller, message, command = await command_of(door, request, SCOPE, _MANDATE)
        return done_answer(
            await protection.add_representative(caller, _mandate(message), command=command), created=True
        )

    @router.post("/api/v1/representatives/search", openapi_extra=body_of(_WHO))
    async def representatives(request: Request) -> Response:
        """Show who acts or acted for a person."""
        caller, message = await message_of(door, request, SCOPE, _WHO)
        page = paging.page_of(request)
        looked = await protection.representatives(caller, named(message, "subject"), after=page.after, limit=page.limit)
        return paging.answer("representatives", looked.shown, page, receipt=looked.receipt)

    @router.post("/api/v1/representatives/{mandate_id}/steps", openapi_extra=body_of(_STEP))
    async def step(request: Request, mandate_id: str) -> Response:
        """End a mandate, or block it: what was given by it counts no more."""
        caller, message = await message_of(door, request, SCOPE, _STEP)
        which = record_id(mandate_id)
        done = await protection.end_representative(caller, which, step=message["step"], reason=message["reason"])
        return done_answer(done)

    @router.post("/api/v1/objections", openapi_extra=body_of(_OBJECTION))
    async def object_to(request: Request) -> Response:
        """Record that a person objects to a purpose; doing it twice changes nothing."""
        return await _objection(request, withdraw=False)

    @router.post("/api/v1/objections/withdraw", openapi_extra=body_of(_OBJECTION))
    async def withdraw(request: Request) -> Response:
        """Take back a person's objection."""
        return await _objection(request, withdraw=True)

    @router.post("/api/v1/objections/search", openapi_extra=body_of(_WHO))
    async def objections(request: Request) -> Response:
        """Show what a person objects to."""
        caller, message = await message_of(door, request, SCOPE, _WHO)
        return _list("objections", await protection.objections(caller, named(message, "subject")))

    @router.post("/api/v1/protection-flags", openapi_extra=body_of(_FLAG))
    async def protect(request: Request) -> Response:
        """Protect a person: seal their case, bar somebody from it, keep it by a court's order or from leaving."""
        return await _flag(request, lift=False)

    @router.post("/api/v1/protection-flags/lift", openapi_extra=body_of(_FLAG))
    async def lift(request: Request) -> Response:
        """Lift a protection; a court's order only on another act."""
        return await _flag(request, lift=True)

    @router.post("/api/v1/protection-flags/search", openapi_extra=body_of(_WHO))
    async def flags(request: Request) -> Response:
        """Show what protects a person."""
        caller, message = await message_of(door, request, _PROTECTION, _WHO)
        return _list("protection_flags", await protection.flags(caller, named(message, "subject")))

    async def _objection(request: Request, *, withdraw: bool) -> Response:
        caller, message = await message_of(door, request, SCOPE, _OBJECTION)
        who = named(message, "subject")
        return done_answer(await protection.object(caller, who, message["purpose"], withdraw=withdraw))

    async def _flag(request: Request, *, lift: bool) -> Response:
        caller, message = await message_of(door, request, _PROTECTION, _FLAG)
        target = message.get("target", {})
        change = FlagChange(
            subject=_required(message, "subject"),
            kind=message["kind"],
            institution=target.get("institution"),
            person=named(target, "person"),
            reference=message.get("reference"),
        )
        return done_answer(await protection.flag(caller, change, lift=lift))

    return router


def _mandate(message: dict[str, Any]) -> NewMandate:
    starts, ends = message.get("valid_from"), message.get("valid_to")
    return NewMandate(
        subject=_required(message, "subject"),
        representative=_required(message, "representative"),
        kind=message["kind"],
        proof_reference=message["proof_reference"],
        valid_from=None if starts is None else read_instant(starts),
        valid_to=None if ends is None else read_instant(ends),
    )


def _required(message: dict[str, Any], name: str) -> Named:
    return Named(message[name]["system"], message[name]["value"])


def _list(name: str, looked: Looked) -> Response:
    body = orjson.dumps({name: looked.shown, "receipt": looked.receipt})
    return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")
