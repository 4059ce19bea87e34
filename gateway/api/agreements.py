"""Agreements over HTTP: a party drafts, signs and stops them, and sees those it is party to and no other."""

from __future__ import annotations

from datetime import datetime
from typing import Any, get_args

import orjson
from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from consent.agreement_view import summary_json
from consent.agreements import list_histories
from consent.models import Actor, AgreementStatus, Caller
from gateway import errors
from gateway.api.documentation import body_of
from gateway.api.paging import MOST, USUAL
from gateway.api.request import Door, correlation, idempotency_key, read_message
from gateway.commands import Command
from gateway.governance import agreements
from gateway.governance.service import Governance, Work
from schemas.text import _

_SCOPE = "agreements.manage"
_MANAGE, _SIGN = "agreement.manage", "agreement.sign"
_DRAFT, _STEP = "agreement-draft", "agreement-step"
_STATUSES = get_args(AgreementStatus)


def build_router(door: Door, governance: Governance) -> APIRouter:
    """Return the routes of agreements."""
    router = APIRouter(tags=["Acuerdos"])

    @router.post("/api/v1/agreements", status_code=201, openapi_extra=body_of(_DRAFT))
    async def create(request: Request) -> Response:
        """Draft an agreement, or the text that shall replace one."""
        caller, message, command = await _command(request, _DRAFT)

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            return await agreements.draft(connection, message, actor=actor, at=at)

        return await _done(request, caller, _MANAGE, work, command)

    @router.get("/api/v1/agreements")
    async def show_all(request: Request) -> Response:
        """List the agreements that the caller's institution is party to, by code."""
        institution = await _institution(request)
        status, after, limit = _status(request), _after(request), _limit(request)
        async with governance.database.connection() as connection:
            # One more than asked tells whether there are more.
            found = await list_histories(connection, party=institution, status=status, after=after, limit=limit + 1)
        shown = found[:limit]
        following = shown[-1].code if len(found) > limit else None
        return _json({"agreements": [summary_json(each) for each in shown], "next": following})

    @router.get("/api/v1/agreements/{code}")
    async def show(request: Request, code: str) -> Response:
        """Show an agreement to its parties: the texts, every version, the signatures, what contradicts it."""
        institution = await _institution(request)
        async with governance.database.connection() as connection:
            return _json(await agreements.show(connection, code, party=institution))

    @router.post("/api/v1/agreements/{code}/steps", status_code=201, openapi_extra=body_of(_STEP))
    async def step(request: Request, code: str) -> Response:
        """Take the next step for the caller's institution: propose, sign, activate, suspend, resume, expire."""
        caller, message, command = await _command(request, _STEP, f"{code}:")
        if not agreements.CODE.match(code):
            raise errors.NotFound("not-found")

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            return await agreements.step(
                connection,
                code,
                message["step"],
                actor=actor,
                at=at,
                proof_reference=message.get("proof_reference"),
                reason=message.get("reason"),
            )

        return await _done(request, caller, _SIGN if message["step"] == "sign" else _MANAGE, work, command)

    async def _command(request: Request, name: str, prefix: str = "") -> tuple[Caller, dict[str, Any], Command]:
        verified = door.caller(request, _SCOPE)
        request.state.verified = verified
        body = await door.body(request)
        key = idempotency_key(request)
        message = read_message(name, body)
        caller = door.with_operator(request, verified, message)
        return caller, message, Command(verified.client_id, f"{name}:{prefix}{key}", body)

    async def _institution(request: Request) -> str:
        verified = door.caller(request, _SCOPE)
        request.state.verified = verified
        await governance.authorise(door.with_operator(request, verified, None), _MANAGE, _SIGN)
        return verified.institution

    async def _done(request: Request, caller: Caller, action: str, work: Work, command: Command) -> Response:
        done = await governance.change(caller, action, work, command=command, correlation=correlation(request))
        headers = {"Idempotency-Replayed": "true"} if done.replayed else None
        return Response(orjson.dumps(done.answer), done.status, headers, "application/json")

    return router


def _status(request: Request) -> str | None:
    given = request.query_params.get("status")
    if given is not None and given not in _STATUSES:
        raise errors.BadRequest("unknown-code", pointer="/status", allowed=_STATUSES)
    return given


def _after(request: Request) -> str:
    given = request.query_params.get("after", "")
    if given and not agreements.CODE.match(given):
        raise errors.BadRequest("bad-page", pointer="/after", detail=_("Siga con el código que dio «next»."))
    return given


def _limit(request: Request) -> int:
    given = request.query_params.get("limit", str(USUAL))
    if not (given.isascii() and given.isdecimal() and len(given) <= 3 and 1 <= int(given) <= MOST):
        raise errors.BadRequest("bad-page", pointer="/limit", detail=_("Pida de 1 a {most}.").format(most=MOST))
    return int(given)


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), 200, {"Cache-Control": "no-store"}, "application/json")
