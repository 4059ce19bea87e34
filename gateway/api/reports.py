"""Nominal reports of referrals over HTTP: as a page of JSON, or as a table to keep."""

from __future__ import annotations

from typing import get_args

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from gateway.api.listing import filter_of
from gateway.api.request import Door
from gateway.api.sheets import flat, form_of, sheet
from gateway.commands import receipt_headers, receipt_json
from gateway.reports.service import Report, Reports, Side
from schemas.text import _

_SCOPE = "reports.read"
_REFERRAL = (
    "id",
    "service",
    "requester",
    "recipient",
    "priority",
    "reason",
    "state",
    "delivery",
    "created_at",
    "due_on",
    "overdue",
    "department",
    "district",
    "category",
    "received_at",
    "accepted_at",
    "closed_at",
    "reminded_at",
    "overdue_at",
    "escalated_at",
    "outcome",
    "end_reason",
    "no_shows",
)
_PERSON = tuple(
    f"person_{name}"
    for name in ("identifiers", "given_names", "surnames", "birth_date", "sex", "department", "district")
)
#: Columns of a table, by whose report it is; a board's is like a recipient's, without what the requester wrote.
RECEIVED, SENT = (*_REFERRAL, *_PERSON, "reason_text"), (*_REFERRAL, "own_number")
BOARD = (*_REFERRAL, "case_id", *_PERSON)
#: Where a table says from where to go on.
NEXT = "X-SIIS-Next"


def build_router(door: Door, reports: Reports) -> APIRouter:
    """Return the routes of reports."""
    router = APIRouter(tags=["Informes"])

    @router.get("/api/v1/reports/referrals")
    async def referrals(request: Request) -> Response:
        """Show the referrals to the caller's institution (``side=received``), or those it sent (``side=sent``)."""
        verified = door.caller(request, _SCOPE)
        request.state.verified = verified
        form, side = form_of(request), side_of(request)
        asked = filter_of(request, form)
        caller = door.with_operator(request, verified, None)
        report = await reports.referrals(caller, side, asked, form=form)
        if form == "json":
            return Response(orjson.dumps(report_json(report)), 200, {"Cache-Control": "no-store"}, "application/json")
        columns = RECEIVED if side == "received" else SENT
        return await sheet(
            form, _("referencias"), columns, [flat(row) for row in report.rows], headers=_headers(report)
        )

    return router


def side_of(request: Request) -> Side:
    """Return whose referrals ``?side=`` asks for; raises BadRequest for anything else."""
    asked = request.query_params.get("side", "received")
    sides: tuple[Side, ...] = get_args(Side)
    for side in sides:
        if asked == side:
            return side
    raise errors.BadRequest("unknown-code", pointer="/side", allowed=sides)


def report_json(report: Report) -> dict[str, object]:
    """Return a report as JSON has it."""
    following = None if report.next is None else str(report.next)
    return {"referrals": report.rows, "next": following, "receipt": receipt_json(report.receipt)}


def _headers(report: Report) -> dict[str, str]:
    following = {} if report.next is None else {NEXT: str(report.next)}
    return {**receipt_headers(receipt_json(report.receipt)), **following}
