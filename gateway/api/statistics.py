"""Statistics of referrals over HTTP: the funnel and its parts, what is kept of it, comparisons, one person's way."""

from __future__ import annotations

from datetime import date
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from consent.models import Caller
from gateway import errors
from gateway.api import paging
from gateway.api.documentation import body_of
from gateway.api.request import Door, correlation, idempotency_key, read_message
from gateway.api.rights import record_id, shown, told
from gateway.api.sheets import sheet
from gateway.commands import Command, receipt_headers, receipt_json
from gateway.registry.query import PersonQuery
from gateway.statistics.models import Scope
from gateway.statistics.service import Statistics
from gateway.statistics.trajectory import Trajectories
from gateway.statistics.view import COLUMNS, rows
from schemas.ids import parse_uuid
from schemas.text import _

_SCOPE, _NOMINAL_SCOPE = "statistics.read", "status.read"
_PATH = "/api/v1/statistics"
_FUNNEL, _SNAPSHOT = "statistics-funnel", "statistics-snapshot"
_COMPARISON, _TRAJECTORY = "statistics-comparison", "statistics-trajectory"


def build_router(door: Door, statistics: Statistics, trajectories: Trajectories) -> APIRouter:
    """Return the routes of statistics."""
    router = APIRouter(tags=["Estadísticas"])

    @router.post(_PATH + "/funnel", openapi_extra=body_of(_FUNNEL))
    async def funnel(request: Request) -> Response:
        """Count where people fall out: steps, times, reasons, doors of entry, repeats; JSON, CSV or XLSX."""
        caller, message, _body = await _message(request, _FUNNEL)
        form = message.get("format", "json")
        found, receipt = await statistics.funnel(caller, scope_of(message.get("scope", {})), form=form)
        proof = receipt_json(receipt)
        if form == "json":
            return shown({**found, "receipt": proof})
        table = [dict(zip(COLUMNS, row, strict=True)) for row in rows(found)]
        return await sheet(form, "embudo", COLUMNS, table, headers=receipt_headers(proof))

    @router.post(_PATH + "/comparison", openapi_extra=body_of(_COMPARISON))
    async def comparison(request: Request) -> Response:
        """Compare two snapshots, or two territories or periods as they are now, with the denominators."""
        caller, message, _body = await _message(request, _COMPARISON)
        first, second = message["first"], message["second"]
        if first.keys() != second.keys():
            detail = _("Compare dos instantáneas, o dos alcances: no uno de cada uno.")
            raise errors.BadRequest("not-comparable", pointer="/second", detail=detail)
        if "snapshot" in first:
            found, receipt = await statistics.compare_snapshots(
                caller, parse_uuid(first["snapshot"]), parse_uuid(second["snapshot"])
            )
        else:
            found, receipt = await statistics.compare_scopes(
                caller, scope_of(first["scope"]), scope_of(second["scope"])
            )
        return shown({**found, "receipt": receipt_json(receipt)})

    @router.post(_PATH + "/snapshots", status_code=201, openapi_extra=body_of(_SNAPSHOT))
    async def take(request: Request) -> Response:
        """Keep a funnel and the achievements of its territory, as baseline or follow-up."""
        caller, message, body = await _message(request, _SNAPSHOT)
        command = Command(caller.client_id, f"{_SNAPSHOT}:{idempotency_key(request)}", body)
        scope = scope_of(message.get("scope", {}))
        return told(await statistics.take(caller, message["kind"], scope, command=command), 201)

    @router.get(_PATH + "/snapshots")
    async def page(request: Request) -> Response:
        """List what the caller's institution keeps; the coordinator sees all."""
        caller, asked = await _caller(request), paging.page_of(request)
        found = await statistics.snapshots(caller, after=asked.after, limit=asked.limit)
        return paging.answer("snapshots", found, asked)

    @router.get(_PATH + "/snapshots/{snapshot_id}")
    async def read(request: Request, snapshot_id: str) -> Response:
        """Show a kept funnel."""
        found, receipt = await statistics.snapshot(await _caller(request), record_id(snapshot_id))
        return shown({**found, "receipt": receipt_json(receipt)})

    @router.post(_PATH + "/trajectory", openapi_extra=body_of(_TRAJECTORY))
    async def trajectory(request: Request) -> Response:
        """Show the way of one person through the network; an institution sees the steps of its own referrals."""
        request.state.verified = door.caller(request, _NOMINAL_SCOPE)
        message = read_message(_TRAJECTORY, await door.body(request))
        asked = PersonQuery(
            system=message["subject"]["system"],
            identifier=message["subject"]["value"],
            purpose=message["purpose"],
            basis=message["basis"],
            agreement=message.get("agreement"),
            case=message.get("case_number"),
            correlation=correlation(request),
        )
        caller = door.with_operator(request, request.state.verified, message)
        answer, receipt = await trajectories.query(caller, asked)
        return shown({**answer, "receipt": receipt_json(receipt)})

    async def _caller(request: Request) -> Caller:
        request.state.verified = door.caller(request, _SCOPE)
        return await door.acting(request, request.state.verified, None)

    async def _message(request: Request, name: str) -> tuple[Caller, dict[str, Any], bytes]:
        # The token is checked before a body is read, and the operator stands in the body.
        request.state.verified = door.caller(request, _SCOPE)
        body = await door.body(request)
        message = read_message(name, body)
        return door.with_operator(request, request.state.verified, message), message, body

    return router


def scope_of(message: dict[str, Any]) -> Scope:
    """Return the scope that a message, checked against its schema, describes."""
    days: dict[str, Any] = {name: date.fromisoformat(message[name]) for name in ("since", "until") if name in message}
    return Scope(**(message | days))
