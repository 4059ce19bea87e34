"""Roles and compartments of the caller's own institution over HTTP: read, granted, revoked."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from consent import roles
from consent.models import Actor, Caller
from gateway import errors
from gateway.api import paging
from gateway.api.documentation import body_of
from gateway.api.paging import Page
from gateway.api.request import Door, correlation, idempotency_key, read_message
from gateway.commands import Command, Done
from gateway.governance.refusals import refused
from gateway.governance.service import Governance, Work
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid
from schemas.validation import read_instant

_SCOPE = "roles.manage"
# Administrators grant some roles, officers others: which of them may do what, the consent room knows.
_GRANTING = ("role.manage", "consent.manage")
_COMPARTMENTS = "consent.manage"
_GRANT, _COMPARTMENT = "role-grant", "role-compartment"


def build_router(door: Door, governance: Governance) -> APIRouter:
    """Return the routes of roles and compartments."""
    router = APIRouter(tags=["Roles"])

    @router.get("/api/v1/role-assignments")
    async def assignments(request: Request) -> Response:
        """List the granted roles in force at the caller's institution."""
        caller, page = await _reading(request)
        async with governance.database.connection() as connection:
            held = await roles.list_assignments(
                connection, institution=caller.institution, at=governance.now(), after=page.after, limit=page.limit
            )
        return paging.answer("role_assignments", [each._asdict() for each in held], page)

    @router.post("/api/v1/role-assignments", status_code=201, openapi_extra=body_of(_GRANT))
    async def grant(request: Request) -> Response:
        """Grant a role to somebody else of the caller's institution, or to one of its systems."""
        caller, message, command = await _command(request, _GRANT)
        valid_to = message.get("valid_to")

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            return await roles.grant_role(
                connection,
                actor,
                institution=caller.institution,
                user=message["user"],
                role=message["role"],
                valid_to=None if valid_to is None else read_instant(valid_to),
                at=at,
            )

        return await _done(request, caller, _GRANTING, work, command)

    @router.post("/api/v1/role-assignments/{assignment_id}/revoke")
    async def revoke(request: Request, assignment_id: str) -> Response:
        """Revoke a role of the caller's institution at once; its holder may, too, and resigns."""
        caller = await _caller(request)

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            return await roles.revoke_role(connection, actor, _id(assignment_id), at=at)

        return await _done(request, caller, _GRANTING, work)

    @router.get("/api/v1/compartments")
    async def compartments(request: Request) -> Response:
        """List which compartments the roles of the caller's institution hold."""
        caller, page = await _reading(request)
        async with governance.database.connection() as connection:
            held = await roles.list_compartments(
                connection, institution=caller.institution, after=page.after, limit=page.limit
            )
        return paging.answer("compartments", [each._asdict() for each in held], page)

    @router.post("/api/v1/compartments", status_code=201, openapi_extra=body_of(_COMPARTMENT))
    async def open_compartment(request: Request) -> Response:
        """Let a role of the caller's institution see a class of sensitive data; its officer decides."""
        caller, message, command = await _command(request, _COMPARTMENT)

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            return await roles.grant_compartment(
                connection,
                actor,
                institution=caller.institution,
                role=message["role"],
                compartment=message["compartment"],
                at=at,
            )

        return await _done(request, caller, _COMPARTMENTS, work, command)

    @router.post("/api/v1/compartments/{grant_id}/revoke")
    async def close_compartment(request: Request, grant_id: str) -> Response:
        """Take a compartment from a role of the caller's institution at once."""
        caller = await _caller(request)

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            return await roles.revoke_compartment(connection, actor, _id(grant_id), at=at)

        return await _done(request, caller, _COMPARTMENTS, work)

    async def _caller(request: Request) -> Caller:
        verified = door.caller(request, _SCOPE)
        request.state.verified = verified
        return await door.acting(request, verified, None)

    async def _reading(request: Request) -> tuple[Caller, Page]:
        caller = await _caller(request)
        await governance.authorise(caller, *_GRANTING)
        return caller, paging.page_of(request)

    async def _command(request: Request, name: str) -> tuple[Caller, dict[str, Any], Command]:
        caller = await _caller(request)
        body = await door.body(request)
        key = idempotency_key(request)
        return caller, read_message(name, body), Command(caller.client_id, f"{name}:{key}", body)

    async def _done(
        request: Request, caller: Caller, actions: str | tuple[str, ...], work: Work, command: Command | None = None
    ) -> Response:
        with refused():
            done = await governance.change(caller, actions, work, command=command, correlation=correlation(request))
        return answer(done, created=command is not None)

    return router


def answer(done: Done, *, created: bool) -> Response:
    """Build the answer to a change: 201 where something was created, else 200."""
    headers = {"Idempotency-Replayed": "true"} if done.replayed else None
    return Response(orjson.dumps(done.answer), done.status if created else 200, headers, "application/json")


def _id(text: str) -> UUID:
    try:
        return parse_uuid(text)
    except InvalidIdentifier:
        raise errors.NotFound("not-found") from None
