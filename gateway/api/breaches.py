"""Breaches of personal data over HTTP: opened by the officer, persons drawn from the log, notified, closed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from consent.models import Caller
from gateway.api import paging
from gateway.api.documentation import body_of
from gateway.api.request import Door, idempotency_key, read_message
from gateway.api.rights import record_id, shown, told
from gateway.commands import Command, receipt_headers, receipt_json
from gateway.rights.breaches import Breaches
from gateway.rights.models import Breach, NewBreach
from schemas.codes import label
from schemas.validation import read_instant

_SCOPE = "breaches.manage"
_REPORT, _NOTICE, _CLOSING = "breach-report", "breach-notice", "breach-closing"
_PATH = "/api/v1/breaches"


def build_router(door: Door, breaches: Breaches) -> APIRouter:
    """Return the routes of breaches."""
    router = APIRouter(tags=["Vulneraciones"])

    @router.post(_PATH, status_code=201, openapi_extra=body_of(_REPORT))
    async def open_(request: Request) -> Response:
        """Open the record of a breach in the exchanges of the caller's institution; 72 hours run since it is known."""
        caller, message, body = await _message(request, _REPORT)
        command = Command(caller.client_id, f"{_REPORT}:{idempotency_key(request)}", body)
        return told(await breaches.change(caller, breaches.opening(_new(message)), command), 201)

    @router.get(_PATH)
    async def page(request: Request) -> Response:
        """List the breaches of the caller's institution."""
        caller, asked = _caller(request), paging.page_of(request)
        found = await breaches.page(caller, after=asked.after, limit=asked.limit)
        return paging.answer("breaches", [breach_json(item) for item in found], asked)

    @router.get(_PATH + "/{breach_id}")
    async def read(request: Request, breach_id: str) -> Response:
        """Show a breach of the caller's institution, with its deadline."""
        found = await breaches.read(_caller(request), record_id(breach_id))
        return shown({**breach_json(found), "what": found.what, "measures": found.measures})

    @router.post(_PATH + "/{breach_id}/affected")
    async def draw(request: Request, breach_id: str) -> Response:
        """Draw the list of persons from the log; again adds those since."""
        return told(await breaches.change(_caller(request), breaches.drawing(record_id(breach_id))), 200)

    @router.get(_PATH + "/{breach_id}/affected")
    async def export(request: Request, breach_id: str) -> Response:
        """Return the persons to notify as CSV; protected cases are left out. The export is an entry."""
        lines, receipt = await breaches.export(_caller(request), record_id(breach_id))
        headers = {"Cache-Control": "no-store", **receipt_headers(receipt_json(receipt))}
        return StreamingResponse(lines, 200, headers, "text/csv; charset=utf-8")

    @router.post(_PATH + "/{breach_id}/notified", openapi_extra=body_of(_NOTICE))
    async def notified(request: Request, breach_id: str) -> Response:
        """Record that the Agency, or the people on the list, were told."""
        caller, message, _body = await _message(request, _NOTICE)
        work = breaches.telling(record_id(breach_id), message["whom"], _instant(message.get("at")))
        return told(await breaches.change(caller, work), 200)

    @router.post(_PATH + "/{breach_id}/close", openapi_extra=body_of(_CLOSING))
    async def close(request: Request, breach_id: str) -> Response:
        """Close the record, with the measures taken."""
        caller, message, _body = await _message(request, _CLOSING)
        work = breaches.closing(record_id(breach_id), message["measures"])
        return told(await breaches.change(caller, work), 200)

    def _caller(request: Request) -> Caller:
        verified = door.caller(request, _SCOPE)
        request.state.verified = verified
        return door.with_operator(request, verified, None)

    async def _message(request: Request, name: str) -> tuple[Caller, dict[str, Any], bytes]:
        # The token is checked before a body is read, and the operator stands in the body.
        request.state.verified = door.caller(request, _SCOPE)
        body = await door.body(request)
        message = read_message(name, body)
        return door.with_operator(request, request.state.verified, message), message, body

    return router


def breach_json(found: Breach) -> dict[str, Any]:
    """Return a breach without what was written of it."""
    return {
        "id": str(found.id),
        "kind": found.kind,
        "title": label("breach-kinds", found.kind),
        "institution": found.institution,
        "client": found.client,
        "datasets": list(found.datasets),
        "affected": found.affected,
        "erased": found.erased,
        **{
            name: None if moment is None else moment.isoformat()
            for name, moment in (
                ("since", found.since),
                ("until", found.until),
                ("known_at", found.known_at),
                ("due_at", found.due_at),
                ("drawn_at", found.drawn_at),
                ("notified_agency_at", found.notified_agency_at),
                ("notified_people_at", found.notified_people_at),
                ("closed_at", found.closed_at),
            )
        },
    }


def _new(message: dict[str, Any]) -> NewBreach:
    return NewBreach(
        kind=message["kind"],
        what=message["what"],
        since=read_instant(message["since"]),
        until=_instant(message.get("until")),
        known_at=read_instant(message["known_at"]),
        client=message.get("client"),
        datasets=frozenset(message.get("datasets", ())),
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else read_instant(text)
