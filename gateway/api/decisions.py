"""Explanations over HTTP: ``POST /api/v1/decisions/explain``, of a past decision or a supposed request."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.documentation import body_of
from gateway.api.request import Door, read_message
from gateway.commands import receipt_json
from gateway.governance.explanations import Explanation, Explanations, Supposed
from schemas.ids import parse_uuid

_MESSAGE = "explanation-request"


def build_router(door: Door, explanations: Explanations) -> APIRouter:
    """Return the route of explanations."""
    router = APIRouter(tags=["Decisiones"])

    @router.post("/api/v1/decisions/explain", openapi_extra=body_of(_MESSAGE))
    async def explain(request: Request) -> Response:
        """Say in plain Spanish, rule by rule, why a request was or would be decided as it is."""
        verified = door.caller(request, "decisions.explain")
        request.state.verified = verified
        message = read_message(_MESSAGE, await door.body(request))
        caller = await door.acting(request, verified, message)
        if "entry" in message:
            found = await explanations.of_entry(caller, parse_uuid(message["entry"]))
        else:
            found = await explanations.of_request(caller, _supposed(message["request"]))
        return Response(orjson.dumps(explanation_json(found)), 200, {"Cache-Control": "no-store"}, "application/json")

    return router


def _supposed(asked: dict[str, Any]) -> Supposed:
    subject = asked.get("subject")
    return Supposed(
        institution=asked["institution"],
        roles=frozenset(asked.get("roles", ("operator",))),
        assurance=asked.get("assurance", 1),
        dataset=asked["dataset"],
        fields=tuple(asked["fields"]),
        purpose=asked["purpose"],
        basis=asked["basis"],
        subject=None if subject is None else (subject["system"], subject["value"]),
        agreement=asked.get("agreement"),
        on_behalf_of=asked.get("on_behalf_of"),
    )


def explanation_json(found: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON: effect, one object per rule, and the receipt of its own entry."""
    return {
        "effect": found.effect,
        "entry": None if found.entry is None else str(found.entry),
        "lines": [line._asdict() for line in found.lines],
        "receipt": receipt_json(found.receipt),
    }
