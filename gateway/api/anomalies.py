"""What stands out in the log, for auditors over HTTP: ``POST /api/v1/audit/anomalies``."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.documentation import body_of
from gateway.api.request import Door, read_message
from gateway.commands import receipt_json
from gateway.dossier.anomalies import Anomalies, Finding, Report
from schemas.codes import code_list, label
from schemas.text import language
from schemas.validation import read_instant

_SCOPE, _MESSAGE = "audit.read", "audit-anomalies"


def build_router(door: Door, anomalies: Anomalies) -> APIRouter:
    """Return the route of the anomaly report."""
    router = APIRouter(tags=["Auditoría"])

    @router.post("/api/v1/audit/anomalies", openapi_extra=body_of(_MESSAGE))
    async def report(request: Request) -> Response:
        """Show what stands out in a period, for a person to look at; asking is an entry before anything is shown."""
        # The token is checked before a body is read, and the operator stands in the body.
        request.state.verified = door.caller(request, _SCOPE)
        message = read_message(_MESSAGE, await door.body(request))
        caller = door.with_operator(request, request.state.verified, message)
        since, until = read_instant(message["since"]), read_instant(message["until"])
        found = await anomalies.read(caller, since, until, message.get("institution"))
        return Response(orjson.dumps(report_json(found)), 200, {"Cache-Control": "no-store"}, "application/json")

    return router


def report_json(report: Report) -> dict[str, Any]:
    """Return a report as JSON, with the receipt of the entry that says it was asked for."""
    return {
        "looked_at": report.looked_at,
        "erased": report.unreadable,
        "findings": [_finding_json(each) for each in report.findings],
        "more": report.more,
        "receipt": receipt_json(report.receipt),
    }


def explanation(rule: str) -> str:
    """Return what a rule looks for and what may be behind it, in the language in force."""
    return str(code_list("anomalies")[rule]["explanation"][language()])


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "title": label("anomalies", finding.rule),
        "explanation": explanation(finding.rule),
        "institution": finding.institution,
        "user": finding.user,
        "client": finding.client,
        "pseudonym": None if finding.pseudonym is None else str(finding.pseudonym),
        "count": finding.count,
        "usual": finding.usual,
        "entries": [str(entry) for entry in finding.entries],
    }
