"""Boards of social protection and their cases over HTTP."""

from __future__ import annotations

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
from gateway.api.listing import filter_of
from gateway.api.reports import BOARD, NEXT
from gateway.api.request import Door, correlation, idempotency_key, read_message
from gateway.api.sheets import flat, form_of, sheet
from gateway.boards.cases import Cases, case_json
from gateway.boards.service import MANAGE, Boards, seating, unseating
from gateway.boards.store import Board
from gateway.commands import Command, Done, receipt_headers, receipt_json
from gateway.governance.service import Governance
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid
from schemas.text import _, language

_SCOPE = "boards.manage"
_OPENING, _STEP, _SEAT = "case-opening", "case-step", "board-seat"


def build_router(door: Door, governance: Governance, boards: Boards, cases: Cases) -> APIRouter:
    """Return the routes of boards and cases."""
    router = APIRouter(tags=["Mesas"])

    @router.get("/api/v1/boards")
    async def mine(request: Request) -> Response:
        """List the boards on which the caller sits, or for which its institution acts."""
        return _json({"boards": [board_json(each) for each in await boards.mine(_caller(request))]})

    @router.get("/api/v1/boards/{board}/referrals")
    async def referrals(request: Request, board: str) -> Response:
        """Show a member the referrals of the priority track in the board's territory; JSON, CSV or XLSX."""
        caller, form = _caller(request), form_of(request)
        seen = await boards.referrals(caller, board, filter_of(request, form), form=form)
        following, receipt = None if seen.next is None else str(seen.next), receipt_json(seen.receipt)
        if form == "json":
            return _json({"board": board, "referrals": seen.rows, "next": following, "receipt": receipt})
        headers = {**receipt_headers(receipt), **({} if following is None else {NEXT: following})}
        return await sheet(form, _("referencias"), BOARD, [flat(row) for row in seen.rows], headers=headers)

    @router.get("/api/v1/boards/{board}/gaps")
    async def gaps(request: Request, board: str) -> Response:
        """Show a member the classified gaps of the territory, counted, small counts suppressed."""
        found, rows, receipt = await boards.gaps(_caller(request), board)
        return _json({**board_json(found), "gaps": rows, "receipt": receipt})

    @router.get("/api/v1/boards/{board}/members")
    async def members(request: Request, board: str) -> Response:
        """List who sits on a board, to the administrator of the institution that acts for it."""
        seats = await boards.members(_caller(request), board)
        return _json({"board": board, "members": [{**each._asdict(), "id": str(each.id)} for each in seats]})

    @router.post("/api/v1/boards/{board}/members", status_code=201, openapi_extra=body_of(_SEAT))
    async def seat(request: Request, board: str) -> Response:
        """Give somebody of any institution a seat; their own institution grants the role board-member."""
        caller, message, command = await _command(request, _SEAT)
        work = seating(board, message["institution"], message["user"])
        return _done(await governance.change(caller, MANAGE, work, command=command, correlation=correlation(request)))

    @router.post("/api/v1/boards/{board}/members/{member_id}/end")
    async def unseat(request: Request, board: str, member_id: str) -> Response:
        """End a seat at once."""
        caller, work = _caller(request), unseating(board, _id(member_id))
        done = await governance.change(caller, MANAGE, work, correlation=correlation(request))
        return _done(Done(200, done.answer, replayed=False))

    @router.post("/api/v1/cases", status_code=201, openapi_extra=body_of(_OPENING))
    async def opening(request: Request) -> Response:
        """Open a case from a referral of the priority track."""
        caller, message, command = await _command(request, _OPENING)
        return _done(await cases.open(caller, _id(message["referral"]), message.get("text"), command))

    @router.get("/api/v1/cases")
    async def listing(request: Request) -> Response:
        """List the cases of the caller's institution and of the boards it sits on."""
        page = paging.page_of(request)
        found = await cases.page(_caller(request), after=page.after, limit=page.limit)
        return paging.answer("cases", [case_json(each) for each in found], page)

    @router.get("/api/v1/cases/{case_id}")
    async def read(request: Request, case_id: str) -> Response:
        """Show a case with its referrals, tasks, barriers and notes."""
        shown, receipt = await cases.read(_caller(request), _id(case_id))
        return _json({**shown, "receipt": receipt})

    @router.post("/api/v1/cases/{case_id}/steps", status_code=201, openapi_extra=body_of(_STEP))
    async def step(request: Request, case_id: str) -> Response:
        """Do a step in a case."""
        caller, message, command = await _command(request, _STEP, of=case_id)
        return _done(await cases.step(caller, _id(case_id), message, command))

    def _caller(request: Request) -> Caller:
        verified = door.caller(request, _SCOPE)
        request.state.verified = verified
        return door.with_operator(request, verified, None)

    async def _command(request: Request, name: str, *, of: str = "") -> tuple[Caller, dict[str, Any], Command]:
        caller = _caller(request)
        body = await door.body(request)
        key = idempotency_key(request)
        return caller, read_message(name, body), Command(caller.client_id, f"{name}:{of}:{key}", body)

    return router


def board_json(board: Board) -> dict[str, Any]:
    """Return a board as lists show it."""
    name = board.names.get(language()) or board.names["es"]
    place = {"department": board.department, "district": board.district}
    return {"code": board.code, "name": name, **place, "institution": board.institution}


def _id(text: str) -> UUID:
    try:
        return parse_uuid(text)
    except InvalidIdentifier:
        raise errors.NotFound("not-found") from None


def _done(done: Done) -> Response:
    headers = {"Idempotency-Replayed": "true"} if done.replayed else None
    return Response(orjson.dumps(done.answer), done.status, headers, "application/json")


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), 200, {"Cache-Control": "no-store"}, "application/json")
