"""Merging persons over HTTP, and parting them: both are named in the body, so that no address holds an identifier."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.consents import command_of, done_answer
from gateway.api.documentation import body_of
from gateway.api.request import Door
from gateway.governance.merges import Merges
from gateway.governance.people import Named

SCOPE = "persons.merge"
_MERGE, _UNMERGE = "person-merge", "person-unmerge"


def build_router(door: Door, merges: Merges) -> APIRouter:
    """Return the routes of merges."""
    router = APIRouter(tags=["Personas"])

    @router.post("/api/v1/person-merges", status_code=201, openapi_extra=body_of(_MERGE))
    async def merge(request: Request) -> Response:
        """Say that two records are one person; the coordinator's supervisors may."""
        caller, message, command = await command_of(door, request, SCOPE, _MERGE)
        done = await merges.merge(
            caller,
            Named(**message["survivor"]),
            Named(**message["absorbed"]),
            reason=message["reason"],
            confirmed=message.get("confirmed", False),
            command=command,
        )
        return done_answer(done, created=True)

    @router.post("/api/v1/person-unmerges", status_code=201, openapi_extra=body_of(_UNMERGE))
    async def unmerge(request: Request) -> Response:
        """Say that somebody who was merged is another person after all: both are as they were."""
        caller, message, command = await command_of(door, request, SCOPE, _UNMERGE)
        absorbed = Named(**message["absorbed"])
        done = await merges.unmerge(caller, absorbed, reason=message["reason"], command=command)
        return done_answer(done, created=True)

    return router
