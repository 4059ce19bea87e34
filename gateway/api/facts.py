"""Facts over HTTP: ``POST /api/v1/facts``, by which an institution says who receives its own services."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.consents import command_of, done_answer
from gateway.api.documentation import body_of
from gateway.api.request import Door
from gateway.intake.forms_facts import FactReports

SCOPE = "facts.report"
_MESSAGE = "fact-report"


def build_router(door: Door, reports: FactReports) -> APIRouter:
    """Return the route of facts."""
    router = APIRouter(tags=["Demanda"])

    @router.post("/api/v1/facts", status_code=201, openapi_extra=body_of(_MESSAGE))
    async def report(request: Request) -> Response:
        """Report, without a referral, whether a person receives services of the caller's institution."""
        caller, message, command = await command_of(door, request, SCOPE, _MESSAGE)
        done = await reports.report(caller, message, institution=caller.institution, command=command)
        return done_answer(done, created=True)

    return router
