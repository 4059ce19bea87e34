"""Referrals and counter-referrals over HTTP; a referral also comes as a FHIR R4 message Bundle."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from adapters.models import Reply
from gateway import errors
from gateway.api.documentation import body_of
from gateway.api.request import Door, correlation, idempotency_key, media_type, read_message
from gateway.commands import Command, Done, receipt_headers, receipt_json
from gateway.identity.models import VerifiedCaller
from gateway.referrals.models import NewReferral, Referral, ReferralEvent
from gateway.referrals.service import ReferralService
from gateway.referrals.states import BUSINESS_STATUS
from gateway.standards.fhir.service import FHIR_JSON, FhirIntake
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid

_REFERRAL, _REPLY = "referral-request", "counter-referral"


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

    @router.get("/api/v1/referrals/{referral_id}")
    async def read(request: Request, referral_id: str) -> Response:
        """Show a referral to its requester or its recipient."""
        current, happened, receipt = await _read(request, referral_id)
        return _json({**_referral(current), "events": len(happened), "receipt": receipt_json(receipt)})

    @router.get("/api/v1/referrals/{referral_id}/events")
    async def events(request: Request, referral_id: str) -> Response:
        """Show everything that happened to a referral, in order."""
        current, happened, receipt = await _read(request, referral_id)
        items = [_event(item) for item in happened]
        return _json({"id": str(current.id), "events": items, "receipt": receipt_json(receipt)})

    @router.post("/api/v1/referrals/{referral_id}/counter-referrals", status_code=201, openapi_extra=body_of(_REPLY))
    async def reply(request: Request, referral_id: str) -> Response:
        """Report what became of a referral (contrarreferencia); only its recipient may."""
        verified = door.caller(request, "referrals.reply")
        request.state.verified = verified
        body = await door.body(request)
        key = idempotency_key(request)
        message = read_message(_REPLY, body)
        command = Command(verified.client_id, f"{referral_id}:{key}", body)
        caller = door.with_operator(request, verified, None)
        return _done(await referrals.reply(caller, command, _reply(_id(referral_id), message)))

    async def _read(request: Request, referral_id: str) -> tuple[Referral, list[ReferralEvent], Any]:
        verified: VerifiedCaller = door.caller(request, "referrals.read")
        request.state.verified = verified
        return await referrals.read(door.with_operator(request, verified, None), _id(referral_id))

    return router


def _id(text: str) -> UUID:
    try:
        return parse_uuid(text)
    except InvalidIdentifier:
        raise errors.NotFound("not-found") from None


def _new(message: dict[str, Any], trace: str | None) -> NewReferral:
    return NewReferral(
        identifiers=((message["subject"]["system"], message["subject"]["value"]),),
        service=message["service"],
        reason_code=message["reason"]["code"],
        reason_text=message["reason"].get("text", ""),
        priority=message.get("priority", "routine"),
        purpose=message["purpose"],
        basis=message["basis"],
        agreement=message.get("agreement"),
        case=message.get("case_number"),
        correlation=trace,
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


def _referral(current: Referral) -> dict[str, Any]:
    return {
        "id": str(current.id),
        "service": current.service,
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
        "due_on": None if current.due_on is None else current.due_on.isoformat(),
    }


def _event(item: ReferralEvent) -> dict[str, Any]:
    return {
        "number": item.number,
        "type": item.type,
        "actor": item.actor,
        "at": item.at.isoformat(),
        "occurred_on": None if item.occurred_on is None else item.occurred_on.isoformat(),
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
