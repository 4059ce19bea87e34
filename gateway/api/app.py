"""The HTTP application: routes of every resource, and one place that turns errors into problems."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from audit.errors import AuditUnavailable
from audit.models import Receipt
from consent.errors import PolicyUnavailable
from gateway import errors
from gateway.api import disclosures, health, oauth, problems, protection, referrals
from gateway.api.request import Door, TooLarge, too_large
from gateway.identity.errors import DirectoryUnavailable, ScopeError, TokenError
from gateway.identity.models import VerifiedCaller
from gateway.runtime import Runtime
from gateway.standards.fhir.service import FhirIntake, FhirRefused
from schemas.errors import SchemaError
from schemas.text import _

_DESCRIPTION = (
    "Pasarela de interoperabilidad del SIIS: consultas con decisión previa, referencias que se cierran y un registro "
    "que se prueba a sí mismo."
)


def create_app(runtime: Runtime) -> FastAPI:
    """Build the application over an open runtime; the caller closes the runtime."""
    door = Door(runtime.checker, runtime.settings.max_body_bytes)
    app = FastAPI(title="SIIS", version="1", description=_DESCRIPTION, lifespan=_no_lifespan)
    app.include_router(oauth.build_router(runtime.tokens, on_refusal=runtime.refusals.token))
    app.include_router(disclosures.build_router(door, runtime.exchange))
    app.include_router(referrals.build_router(door, runtime.referrals, FhirIntake(runtime.referrals)))
    app.include_router(protection.build_router(door, runtime.statuses))
    app.include_router(health.build_router(runtime.database))
    _handle_errors(app, runtime)
    return app


@asynccontextmanager
async def _no_lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


def _handle_errors(app: FastAPI, runtime: Runtime) -> None:
    def on(kind: type[Exception]) -> Callable[[Callable[..., object]], object]:
        return app.exception_handler(kind)

    @on(TokenError)
    async def token(_request: Request, error: TokenError) -> Response:
        await runtime.refusals.token(error)
        status = 403 if isinstance(error, ScopeError) else 401
        title = _("El token no alcanza para esta operación") if status == 403 else _("Falta un token válido")
        detail = _("Pida un token en /oauth2/token con private_key_jwt y envíelo como Bearer.")
        headers = {"WWW-Authenticate": oauth.bearer_challenge(error)}
        return problems.problem(status, "unauthorised", title, detail=detail, headers=headers)

    @on(SchemaError)
    async def unreadable(request: Request, error: SchemaError) -> Response:
        reasons = [f"{violation.pointer} {violation.rule}" for violation in error.violations]
        return problems.of_schema(error, receipt=await _recorded(request, reasons))

    @on(errors.Refusal)
    async def refused(request: Request, error: errors.Refusal) -> Response:
        if error.receipt is None and isinstance(error, errors.BadRequest | errors.Conflict | errors.NotFound):
            error.receipt = await _recorded(request, [error.code])
        return problems.of_refusal(error)

    @on(FhirRefused)
    async def fhir(request: Request, error: FhirRefused) -> Response:
        await _recorded(request, [f"fhir {error.code}"])
        return error.response()

    @on(TooLarge)
    async def over(request: Request, _error: TooLarge) -> Response:
        await _recorded(request, ["too-large"])
        return too_large(runtime.settings.max_body_bytes)

    @on(HTTPException)
    async def plain(_request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return problems.not_found()
        return problems.problem(
            error.status_code, "http", _("El pedido no se puede atender"), headers=dict(error.headers or {})
        )

    async def unavailable(_request: Request, _error: Exception) -> Response:
        return problems.of_unavailable()

    for kind in (
        AuditUnavailable,
        PolicyUnavailable,
        DirectoryUnavailable,
        SQLAlchemyError,
        psycopg.Error,
        OSError,
    ):
        app.add_exception_handler(kind, unavailable)

    async def _recorded(request: Request, reasons: list[str]) -> Receipt | None:
        verified: VerifiedCaller | None = getattr(request.state, "verified", None)
        if verified is None:
            return None
        route = request.scope.get("route")
        return await runtime.refusals.message(verified, reasons, getattr(route, "path", ""))
