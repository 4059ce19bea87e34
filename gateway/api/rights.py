"""Requests of persons over HTTP: taken by an institution or sent by the person, answered by those who hold data."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from consent.models import Caller
from gateway import errors
from gateway.api import paging
from gateway.api.documentation import body_of
from gateway.api.request import Door, idempotency_key, read_message
from gateway.commands import Command, Done, receipt_json
from gateway.rights import models, refusals
from gateway.rights.models import Answer, Identifier, NewRequest, Part, RightsRequest
from gateway.rights.service import Rights
from schemas.codes import label
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid
from schemas.text import _

_SCOPE = "rights.manage"
_REQUEST, _ROUTE, _ANSWER = "rights-request", "rights-route", "rights-answer"
_PATH = "/api/v1/rights-requests"


def build_router(door: Door, rights: Rights) -> APIRouter:
    """Return the routes of requests of persons."""
    router = APIRouter(tags=["Derechos de la persona"])

    @router.post(_PATH, status_code=201, openapi_extra=body_of(_REQUEST))
    async def receive(request: Request) -> Response:
        """Take a request: access, rectification, deletion, portability or opposition. The answer says until when."""
        caller, message, body = await _message(request, _REQUEST)
        # All persons of a portal come through one client, and each has keys of their own.
        key = f"{_REQUEST}:{caller.person or ''}:{idempotency_key(request)}"
        command = Command(caller.client_id, key, body)
        return told(await rights.receive(caller, _new(message, caller), command), 201)

    @router.get(_PATH)
    async def page(request: Request) -> Response:
        """List the requests that the caller's institution has a part of, or the person's own; `?overdue=true`."""
        caller, asked = await _caller(request), paging.page_of(request)
        overdue = request.query_params.get("overdue") == "true"
        found = await rights.page(caller, overdue=overdue, after=asked.after, limit=asked.limit)
        return paging.answer("rights_requests", [request_json(item) for item in found], asked)

    @router.get(_PATH + "/{request_id}")
    async def read(request: Request, request_id: str) -> Response:
        """Show a request: to an officer who asks it and their own part, to the person every answer."""
        found, receipt = await rights.read(await _caller(request), record_id(request_id))
        return shown({**request_json(found, whole=True), "receipt": receipt_json(receipt)})

    @router.post(_PATH + "/{request_id}/route", openapi_extra=body_of(_ROUTE))
    async def route(request: Request, request_id: str) -> Response:
        """Send a request on to the institutions that hold the data; the coordinator does."""
        caller, message, _body = await _message(request, _ROUTE)
        subject = _identifier(message.get("subject"))
        work = rights.steps.routing(record_id(request_id), message["institutions"], subject)
        return told(await rights.step(caller, work), 200)

    @router.post(_PATH + "/{request_id}/start")
    async def start(request: Request, request_id: str) -> Response:
        """Begin with the institution's own part."""
        caller = await _caller(request)
        work = rights.steps.starting(record_id(request_id), caller.institution)
        return told(await rights.step(caller, work), 200)

    @router.post(_PATH + "/{request_id}/answer", openapi_extra=body_of(_ANSWER))
    async def answer(request: Request, request_id: str) -> Response:
        """Answer the institution's own part; a granted opposition is in force at once."""
        caller, message, _body = await _message(request, _ANSWER)
        work = rights.steps.answering(record_id(request_id), _answer(message), caller.institution)
        return told(await rights.step(caller, work), 200)

    @router.post(_PATH + "/{request_id}/withdraw")
    async def withdraw(request: Request, request_id: str) -> Response:
        """Withdraw what is still open: the person, or the institution that took the request for them."""
        return told(await rights.withdraw(await _caller(request), record_id(request_id)), 200)

    async def _caller(request: Request) -> Caller:
        request.state.verified = door.caller(request, _SCOPE)
        return await door.acting(request, request.state.verified, None)

    async def _message(request: Request, name: str) -> tuple[Caller, dict[str, Any], bytes]:
        # The token is checked before a body is read, and the operator stands in the body.
        request.state.verified = door.caller(request, _SCOPE)
        body = await door.body(request)
        message = read_message(name, body)
        return await door.acting(request, request.state.verified, message), message, body

    return router


def request_json(found: RightsRequest, *, whole: bool = False) -> dict[str, Any]:
    """Return a request as its reader sees it; ``whole`` with what was written and who it is about."""
    answer: dict[str, Any] = {
        "id": str(found.id),
        "right": found.right,
        "title": label("rights", found.right),
        "dataset": found.dataset,
        "purpose": found.purpose,
        "received_at": found.received_at.isoformat(),
        "due_on": found.due_on.isoformat(),
        "overdue": found.overdue,
        "parts": [_part(part, whole=whole) for part in found.parts],
    }
    if whole:
        answer |= {
            "text": found.text,
            "subject": [{"system": system, "value": value} for system, value in found.subject],
            "names": found.names,
            "representative": None
            if found.representative is None
            else dict(zip(("system", "value"), found.representative, strict=True)),
        }
    return answer


def _part(part: Part, *, whole: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "institution": part.institution,
        "state": part.state,
        "state_text": state_text(part),
        "outcome": part.outcome,
        "norm": part.norm,
        "until": None if part.until is None else part.until.isoformat(),
        "effective_on": None if part.effective_on is None else part.effective_on.isoformat(),
        "sha256": part.sha256,
    }
    return answer | {"text": part.text, "reference": part.reference} if whole else answer


def state_text(part: Part) -> str:
    """Say in plain words where an institution's part stands."""
    texts = {
        models.RECEIVED: _("Recibimos el pedido y buscamos qué institución debe responder."),
        models.ROUTED: _("La institución tiene el pedido."),
        models.IN_PROGRESS: _("La institución está trabajando en la respuesta."),
        models.WITHDRAWN: _("El pedido fue retirado."),
    }
    if part.outcome is None:
        return texts[part.state]
    return _("Respondido: {outcome}.").format(outcome=label("rights-outcomes", part.outcome))


def _new(message: dict[str, Any], caller: Caller) -> NewRequest:
    subject = _identifier(message.get("subject"))
    if subject is None:
        if caller.person is None:
            raise refusals.no_subject()
        subject = ("siis", str(caller.person))
    return NewRequest(
        right=message["right"],
        subject=subject,
        representative=_identifier(message.get("representative")),
        dataset=message.get("dataset"),
        purpose=message.get("purpose"),
        text=message.get("text"),
    )


def _answer(message: dict[str, Any]) -> Answer:
    delivered = message.get("delivered")
    return Answer(
        outcome=message["outcome"],
        norm=message.get("norm"),
        text=message.get("text"),
        delivered=None if delivered is None else (delivered["reference"], delivered["sha256"]),
        until=None if "until" not in message else date.fromisoformat(message["until"]),
    )


def _identifier(given: dict[str, str] | None) -> Identifier | None:
    return None if given is None else (given["system"], given["value"])


def record_id(text: str) -> UUID:
    """Return the id in an address; raises NotFound for what is none."""
    try:
        return parse_uuid(text)
    except InvalidIdentifier:
        raise errors.NotFound("not-found") from None


def told(done: Done, status: int) -> Response:
    """Build the answer to a change."""
    headers = {"Idempotency-Replayed": "true"} if done.replayed else None
    return Response(orjson.dumps(done.answer), status, headers, "application/json")


def shown(body: dict[str, Any]) -> Response:
    """Build an answer that nobody on the way may keep."""
    return Response(orjson.dumps(body), 200, {"Cache-Control": "no-store"}, "application/json")
