"""Referrals over HTTP: sent (also as a FHIR R4 message Bundle), reported on, changed, claimed, split, shown."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from adapters.models import Reply
from consent.models import Caller
from gateway import errors
from gateway.api import paging
from gateway.api.documentation import body_of
from gateway.api.request import Door, correlation, idempotency_key, media_type, read_message
from gateway.clock import utc_now
from gateway.commands import Command, Done, receipt_headers, receipt_json
from gateway.referrals.models import Claimable, Line, NewPart, NewParts, NewReferral, ReferralEvent, Shown, Step
from gateway.referrals.nominal import is_overdue
from gateway.referrals.service import ReferralService
from gateway.referrals.states import BUSINESS_STATUS
from gateway.standards.fhir.service import FHIR_JSON, FhirIntake
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid
from schemas.text import _

_DIRECTIONS = ("sent", "received")
_REFERRAL, _REPLY, _STEP, _CLAIM, _PARTS, _CAPACITY = (
    "referral-request",
    "counter-referral",
    "referral-step",
    "referral-claim",
    "referral-parts",
    "capacity-query",
)


def build_router(door: Door, referrals: ReferralService, fhir: FhirIntake) -> APIRouter:
    """Return the routes of referrals."""
    router = APIRouter(tags=["Referencias"])

    @router.post("/api/v1/referrals", status_code=201, openapi_extra=body_of(_REFERRAL, also=(FHIR_JSON,)))
    async def create(request: Request) -> Response:
        """Send a referral (referencia). The acknowledged id is an obligation."""
        verified = door.caller(request, "referrals.create")
        request.state.verified = verified
        body = await door.body(request, also=FHIR_JSON)
        if media_type(request) == FHIR_JSON:
            caller = door.with_operator(request, verified, None)
            taken = await fhir.take(caller, body, correlation(request))
            headers = receipt_headers(taken.receipt)
            return Response(orjson.dumps(taken.outcome), taken.status, headers, FHIR_JSON)
        key = idempotency_key(request)
        message = read_message(_REFERRAL, body)
        caller = door.with_operator(request, verified, message)
        command = Command(verified.client_id, key, body)
        return _done(await referrals.create(caller, command, _new(message, correlation(request))))

    @router.get("/api/v1/referrals")
    async def listed(request: Request) -> Response:
        """List the referrals that the caller's institution sent or received: codes only."""
        caller = _reader(request)
        page, sent = paging.page_of(request), _sent(request)
        found, receipt = await referrals.listed(
            caller, sent=sent, states=_states(request), after=page.after, limit=page.limit
        )
        return paging.answer("referrals", [_line(each) for each in found], page, receipt=receipt_json(receipt))

    @router.get("/api/v1/referrals/open")
    async def claimable(request: Request) -> Response:
        """List the open referrals that a service of the caller's institution could claim; nothing of the persons."""
        caller = _reader(request)
        page = paging.page_of(request)
        found, receipt = await referrals.claimable(caller, after=page.after, limit=page.limit)
        return paging.answer("referrals", [_claimable(each) for each in found], page, receipt=receipt_json(receipt))

    @router.post("/api/v1/referrals/capacity", openapi_extra=body_of(_CAPACITY))
    async def capacity(request: Request) -> Response:
        """Ask whether a service can take one more referral, before referring and without naming anybody."""
        request.state.verified = door.caller(request, "referrals.create")
        message = read_message(_CAPACITY, await door.body(request))
        service, district = message["service"], message.get("district")
        return _json({"service": service, "capacity": await referrals.room(service, district)})

    @router.get("/api/v1/referrals/{referral_id}")
    async def read(request: Request, referral_id: str) -> Response:
        """Show a referral with its parts to its requester or its recipient."""
        caller = _reader(request)
        shown = await referrals.read(caller, _id(referral_id))
        own = caller.institution == shown.referral.requester
        return _json({**_referral(shown, own=own), "receipt": receipt_json(shown.receipt)})

    @router.get("/api/v1/referrals/{referral_id}/events")
    async def events(request: Request, referral_id: str) -> Response:
        """Show everything that happened to a referral, in order."""
        shown = await referrals.read(_reader(request), _id(referral_id))
        items = [_event(item) for item in shown.events]
        return _json({"id": str(shown.referral.id), "events": items, "receipt": receipt_json(shown.receipt)})

    @router.post("/api/v1/referrals/{referral_id}/counter-referrals", status_code=201, openapi_extra=body_of(_REPLY))
    async def reply(request: Request, referral_id: str) -> Response:
        """Report what became of a referral (contrarreferencia); only its recipient may."""
        caller, command, message = await _command(request, "referrals.reply", _REPLY, referral_id)
        return _done(await referrals.reply(caller, command, _reply(_id(referral_id), message)))

    @router.post("/api/v1/referrals/{referral_id}/steps", status_code=201, openapi_extra=body_of(_STEP))
    async def step(request: Request, referral_id: str) -> Response:
        """Ask to cancel a referral, withdraw an open one, reopen one, or send a note; only its requester may."""
        caller, command, message = await _command(request, "referrals.create", _STEP, referral_id)
        return _done(await referrals.step(caller, command, _id(referral_id), _step(message)))

    @router.post("/api/v1/referrals/{referral_id}/claim", status_code=201, openapi_extra=body_of(_CLAIM))
    async def claim(request: Request, referral_id: str) -> Response:
        """Claim an open referral for a service of the caller's institution; the answer has the person's data."""
        caller, command, message = await _command(request, "referrals.reply", _CLAIM, referral_id)
        return _done(await referrals.claim(caller, command, _id(referral_id), message["service"]))

    @router.post("/api/v1/referrals/{referral_id}/parts", status_code=201, openapi_extra=body_of(_PARTS))
    async def split(request: Request, referral_id: str) -> Response:
        """Split a referral over several services; its recipient may. The last part that is closed completes it."""
        caller, command, message = await _command(request, "referrals.create", _PARTS, referral_id)
        return _done(await referrals.split(caller, command, _id(referral_id), _parts(message, correlation(request))))

    def _reader(request: Request) -> Caller:
        verified = door.caller(request, "referrals.read")
        request.state.verified = verified
        return door.with_operator(request, verified, None)

    async def _command(
        request: Request, scope: str, schema: str, referral_id: str
    ) -> tuple[Caller, Command, dict[str, Any]]:
        verified = door.caller(request, scope)
        request.state.verified = verified
        body = await door.body(request)
        key = idempotency_key(request)
        message = read_message(schema, body)
        caller = door.with_operator(request, verified, message)
        return caller, Command(verified.client_id, f"{referral_id}:{key}", body), message

    return router


def _id(text: str) -> UUID:
    try:
        return parse_uuid(text)
    except InvalidIdentifier:
        raise errors.NotFound("not-found") from None


def _sent(request: Request) -> bool:
    direction = request.query_params.get("direction", "")
    if direction not in _DIRECTIONS:
        detail = _("Diga si quiere las enviadas o las recibidas.")
        raise errors.BadRequest("unknown-code", pointer="/direction", allowed=_DIRECTIONS, detail=detail)
    return direction == "sent"


def _states(request: Request) -> list[str]:
    asked = request.query_params.getlist("state")
    if not BUSINESS_STATUS.keys() >= set(asked):
        raise errors.BadRequest("unknown-code", pointer="/state", allowed=BUSINESS_STATUS)
    return asked


def _new(message: dict[str, Any], trace: str | None) -> NewReferral:
    candidates = tuple(message.get("services", ()))
    return NewReferral(
        identifiers=((message["subject"]["system"], message["subject"]["value"]),),
        service=candidates[0] if candidates else message["service"],
        reason_code=message["reason"]["code"],
        reason_text=message["reason"].get("text", ""),
        priority=message.get("priority", "routine"),
        purpose=message["purpose"],
        basis=message["basis"],
        agreement=message.get("agreement"),
        case=message.get("case_number"),
        correlation=trace,
        candidates=candidates,
        additional=message.get("additional", False),
        waitlist=message.get("waitlist", False),
    )


def _parts(message: dict[str, Any], trace: str | None) -> NewParts:
    return NewParts(
        parts=tuple(
            NewPart(
                service=part["service"],
                reason_code=part["reason"]["code"],
                reason_text=part["reason"].get("text", ""),
                priority=part.get("priority", "routine"),
                waitlist=part.get("waitlist", False),
            )
            for part in message["parts"]
        ),
        purpose=message["purpose"],
        basis=message["basis"],
        agreement=message.get("agreement"),
        case=message.get("case_number"),
        correlation=trace,
    )


def _step(message: dict[str, Any]) -> Step:
    reason = message.get("reason", {})
    return Step(
        event=message["step"],
        reason_code=reason.get("code"),
        reason_text=reason.get("text"),
        note=message.get("note"),
    )


def _reply(referral_id: UUID, message: dict[str, Any]) -> Reply:
    reason, appointment = message.get("reason", {}), message.get("appointment", {})
    return Reply(
        referral_id=referral_id,
        message_id=message["message_id"],
        event=message["event"],
        occurred_on=date.fromisoformat(message["occurred_on"]),
        outcome=message.get("outcome"),
        reason_code=reason.get("code"),
        reason_text=reason.get("text"),
        appointment_at=appointment.get("at"),
        place=message.get("place") or appointment.get("place"),
        proof_reference=message.get("proof_reference"),
    )


def _referral(shown: Shown, *, own: bool) -> dict[str, Any]:
    current = shown.referral
    return {
        "id": str(current.id),
        "service": current.service,
        **({} if current.candidates is None else {"services": current.candidates}),
        "requester": current.requester,
        "recipient": current.recipient,
        "priority": current.priority,
        "reason": current.reason_code,
        "state": current.state,
        "business_status": BUSINESS_STATUS[current.state],
        "delivery": current.delivery,
        "delivery_reason": current.delivery_reason,
        "attempts": current.attempts,
        "recipient_reference": current.recipient_reference,
        "created_at": current.created_at.isoformat(),
        "due_on": _day(current.due_on),
        "overdue": is_overdue(current, utc_now()),
        # Of the whole only its own recipient knows, who made this part of it.
        **({"part_of": _text(current.parent_id)} if own and current.parent_id is not None else {}),
        "parts": [
            {
                "id": str(part.id),
                "service": part.service,
                "recipient": part.recipient,
                "state": part.state,
                "outcome": part.outcome,
                "reason": part.end_reason,
            }
            for part in shown.parts
        ],
        **({} if own else {"duplicate_of": _text(shown.duplicate_of)}),
        "events": len(shown.events),
    }


def _line(each: Line) -> dict[str, Any]:
    return {
        "id": str(each.id),
        "service": each.service,
        "requester": each.requester,
        "recipient": each.recipient,
        "priority": each.priority,
        "state": each.state,
        "delivery": each.delivery,
        "outcome": each.outcome,
        "created_at": each.created_at.isoformat(),
        "due_on": _day(each.due_on),
        "duplicate_of": _text(each.duplicate_of),
    }


def _claimable(each: Claimable) -> dict[str, Any]:
    return {
        "id": str(each.id),
        "services": list(each.services),
        "department": each.department,
        "district": each.district,
        "priority": each.priority,
        "category": each.category,
        "created_at": each.created_at.isoformat(),
        "due_on": _day(each.due_on),
    }


def _day(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _text(referral_id: UUID | None) -> str | None:
    return None if referral_id is None else str(referral_id)


def _event(item: ReferralEvent) -> dict[str, Any]:
    return {
        "number": item.number,
        "type": item.type,
        "actor": item.actor,
        "at": item.at.isoformat(),
        "occurred_on": _day(item.occurred_on),
        "state_before": item.state_before,
        "state_after": item.state_after,
        "synthesised": item.synthesised,
        **{name: value for name, value in item.facts.items() if name not in ("type", "number")},
        "texts": item.texts,
        "entry_id": None if item.entry_id is None else str(item.entry_id),
    }


def _done(done: Done) -> Response:
    headers = {"Idempotency-Replayed": "true"} if done.replayed else None
    return Response(orjson.dumps(done.answer), done.status, headers, "application/json")


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), 200, {"Cache-Control": "no-store"}, "application/json")
