"""Protection status over HTTP: ``POST /api/v1/protection-status/query``."""

from __future__ import annotations

from datetime import date

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.documentation import body_of
from gateway.api.request import Door, correlation, read_message
from gateway.commands import receipt_json
from gateway.registry.query import StatusQuery, StatusService

_MESSAGE = "protection-status-query"


def build_router(door: Door, statuses: StatusService) -> APIRouter:
    """Return the route of protection status."""
    router = APIRouter(tags=["Estatus de protección"])

    @router.post("/api/v1/protection-status/query", openapi_extra=body_of(_MESSAGE))
    async def query(request: Request) -> Response:
        """Ask for the protection status of a person, per service and concurrent, with the fact behind each answer."""
        verified = door.caller(request, "status.read")
        request.state.verified = verified
        message = read_message(_MESSAGE, await door.body(request))
        caller = door.with_operator(request, verified, message)
        asked = StatusQuery(
            system=message["subject"]["system"],
            identifier=message["subject"]["value"],
            on=date.fromisoformat(message["on"]) if "on" in message else None,
            purpose=message["purpose"],
            basis=message["basis"],
            agreement=message.get("agreement"),
            case=message.get("case_number"),
            correlation=correlation(request),
        )
        answer, receipt = await statuses.query(caller, asked)
        body = orjson.dumps({**answer, "receipt": receipt_json(receipt)})
        return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")

    return router
