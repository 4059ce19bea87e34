"""Disclosures over HTTP: ``POST /api/v1/disclosures``; identifiers travel in the body, never in the address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from consent.models import WATERMARK, EmergencyClaim
from gateway.api.documentation import body_of
from gateway.api.request import Door, correlation, read_message
from gateway.commands import receipt_json
from gateway.exchange import Disclosure, DisclosureRequest, Exchange
from schemas.canonical import sha256

PATH = "/api/v1/disclosures"
_MESSAGE = "disclosure-request"

Endpoint = Callable[[Request], Awaitable[Response]]


def build_endpoint(door: Door, exchange: Exchange) -> Endpoint:
    """Return the function that answers a request for facts about one person."""

    async def disclose(request: Request) -> Response:
        """Ask for facts about one person from the institution that holds them (consulta)."""
        verified = door.caller(request, "disclosures.create")
        request.state.verified = verified
        body = await door.body(request)
        message = read_message(_MESSAGE, body)
        if "emergency" in message:
            verified.require("emergency.use")
        caller = door.with_operator(request, verified, message)
        subject = message["subject"]
        asked = DisclosureRequest(
            system=subject["system"],
            identifier=subject["value"],
            dataset=message["dataset"],
            fields=tuple(message["fields"]),
            purpose=message["purpose"],
            basis=message["basis"],
            agreement=message.get("agreement"),
            case=message.get("case_number"),
            correlation=correlation(request),
            presented=message.get("presented", {}),
            on_behalf_of=message.get("on_behalf_of"),
            emergency=_claim(message.get("emergency")),
            digest=sha256(body),
        )
        return _answer(await exchange.disclose(caller, asked))

    return disclose


def build_router(disclose: Endpoint) -> APIRouter:
    """Return the route, for the description of the interface and for whoever mounts the router alone."""
    router = APIRouter(tags=["Consultas"])
    router.add_api_route(PATH, disclose, methods=["POST"], openapi_extra=body_of(_MESSAGE))
    return router


def _claim(emergency: dict[str, str] | None) -> EmergencyClaim | None:
    if emergency is None:
        return None
    return EmergencyClaim(reason=emergency["reason"], incident=emergency["incident"], text=emergency["text"])


def _answer(released: Disclosure) -> Response:
    provenance = released.outcome.provenance
    body = {
        "dataset": released.dataset,
        "facts": released.facts,
        "withheld": [{"field": field, "reason": "not-released"} for field in released.withheld],
        "source": {
            "institution": provenance.institution,
            "system": provenance.adapter,
            "at": provenance.at,
            "register": provenance.register or None,
            # Of a register it is the file's. That of one person's answer would let its withheld fields be guessed.
            "answer_sha256": provenance.raw_sha256.hex() if provenance.register and provenance.raw_sha256 else None,
        },
        "reduced": dict(released.reduced),
        "obligations": released.obligations,
        "receipt": receipt_json(released.receipt),
    }
    if released.retain_until is not None:
        body["retain_until"] = released.retain_until.isoformat()
    if WATERMARK in released.obligations:
        body["mark"] = str(released.receipt.entry_id)
    return Response(orjson.dumps(body), 200, {"Cache-Control": "no-store"}, "application/json")
