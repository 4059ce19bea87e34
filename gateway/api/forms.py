"""Forms over HTTP: ``POST /api/v1/forms`` takes a form of a household, full or simplified, or of a community."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from gateway.api.consents import done_answer
from gateway.api.documentation import body_of
from gateway.api.request import JSON, Door, idempotency_key
from gateway.commands import Command
from gateway.intake.forms import Forms
from gateway.intake.forms_reading import INSTRUMENTS
from gateway.intake.forms_wording import mistake
from schemas.validation import parse_json, validate

SCOPE = "forms.create"


def build_router(door: Door, forms: Forms) -> APIRouter:
    """Return the route of forms."""
    router = APIRouter(tags=["Demanda"])

    @router.post("/api/v1/forms", status_code=201, openapi_extra=_body())
    async def record(request: Request) -> Response:
        """Take a form, whole or not at all; the answer has the ids of everybody on it."""
        verified = door.caller(request, SCOPE)
        request.state.verified = verified
        body = await door.body(request)
        message = _read(body)
        caller = await door.acting(request, verified, message)
        command = Command(caller.client_id, f"form:{idempotency_key(request)}", body)
        done = await forms.record(caller, message, institution=caller.institution, command=command)
        return done_answer(done, created=True)

    return router


def _read(body: bytes) -> dict[str, Any]:
    """Return a form that follows the schema of its kind; raises SchemaError, or Invalid for a kind there is not."""
    message = parse_json(body)
    kind = message.get("kind") if isinstance(message, dict) else None
    if not isinstance(kind, str) or kind not in INSTRUMENTS:
        raise errors.Invalid("invalid-form", [mistake("unknown-code", "/kind", INSTRUMENTS)])
    validate(f"form-{kind}", message)
    return dict(message)


def _body() -> dict[str, Any]:
    schemas = [body_of(f"form-{kind}")["requestBody"]["content"][JSON]["schema"] for kind in INSTRUMENTS]
    return {"requestBody": {"required": True, "content": {JSON: {"schema": {"oneOf": schemas}}}}}
