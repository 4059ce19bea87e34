"""Turns every error a route may raise into its answer, and records the refusals of known callers on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from audit.errors import AuditUnavailable, SubjectErased
from audit.models import Receipt
from consent.errors import PolicyUnavailable
from gateway import errors
from gateway.api import oauth, problems
from gateway.api.request import TooLarge, UnsupportedMediaType, address_of, too_large
from gateway.identity.errors import DirectoryUnavailable, OperatorError, ScopeError, TokenError, TooMany
from gateway.identity.models import VerifiedCaller
from gateway.refusals import RefusalLog
from gateway.standards.fhir.service import FhirRefused
from schemas.errors import SchemaError
from schemas.text import _

_log = structlog.get_logger(__name__)
_AWAY = (AuditUnavailable, PolicyUnavailable, DirectoryUnavailable, SQLAlchemyError, psycopg.Error, OSError)
Answering = Callable[[Request, Exception], Awaitable[Response]]


class Answers:
    """The answers to errors of one application."""

    def __init__(self, refusals: RefusalLog, max_body_bytes: int) -> None:
        self._refusals, self._max_body_bytes = refusals, max_body_bytes
        by_kind: dict[type[Exception], Answering] = {
            TokenError: self._token,
            SchemaError: self._unreadable,
            errors.Refusal: self._refused,
            FhirRefused: self._fhir,
            TooLarge: self._too_large,
            UnsupportedMediaType: self._unsupported,
            HTTPException: self._plain,
            SubjectErased: self._refused_as_not_found,
            ClientDisconnect: self._gone,
        }
        self.by_kind = by_kind | dict.fromkeys(_AWAY, self._unavailable) | {Exception: self._defect}

    async def respond(self, request: Request, error: Exception) -> Response:
        """Return the answer to an error; one that nobody foresaw is told as such, without its text."""
        answering = next(self.by_kind[kind] for kind in type(error).__mro__ if kind in self.by_kind)
        return await answering(request, error)

    async def _token(self, _request: Request, error: Exception) -> Response:
        if not isinstance(error, TokenError):
            raise error
        receipt = await self._refusals.token(error)
        if isinstance(error, TooMany):
            return problems.of_too_many(error.retry_after_s, receipt)
        status = 403 if isinstance(error, ScopeError) else 401
        title = _("El token no alcanza para esta operación") if status == 403 else _("Falta un token válido")
        detail = _("Pida un token en /oauth2/token con private_key_jwt y envíelo como Bearer.")
        if isinstance(error, ScopeError):
            detail = _("Pida un token con el alcance {scope}; el sistema debe tenerlo registrado.").format(
                scope=error.scope
            )
        if isinstance(error, OperatorError):
            title = _("La firma sobre el operador no es válida")
            detail = _("Firme de nuevo la cabecera X-SIIS-Operator con la clave registrada del sistema.")
        headers = {"WWW-Authenticate": oauth.bearer_challenge(error)}
        return problems.problem(status, "unauthorised", title, detail=detail, receipt=receipt, headers=headers)

    async def _unreadable(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, SchemaError):
            raise error
        reasons = [f"{violation.pointer} {violation.rule}" for violation in error.violations]
        return problems.of_schema(error, receipt=await self._recorded(request, reasons))

    async def _refused(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, errors.Refusal):
            raise error
        if error.receipt is None and isinstance(error, errors.BadRequest | errors.Conflict | errors.NotFound):
            error.receipt = await self._recorded(request, [error.code])
        return problems.of_refusal(error)

    async def _refused_as_not_found(self, request: Request, _error: Exception) -> Response:
        await self._recorded(request, ["subject-erased"])
        return problems.not_found()

    async def _fhir(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, FhirRefused):
            raise error
        recorded = await self._recorded(request, [f"fhir {error.code}"])
        return error.response(error.receipt or recorded)

    async def _too_large(self, request: Request, _error: Exception) -> Response:
        return too_large(self._max_body_bytes, await self._recorded(request, ["too-large"]))

    async def _unsupported(self, request: Request, error: Exception) -> Response:
        receipt = await self._recorded(request, ["unsupported-media-type"])
        return problems.unsupported_media_type(str(error), receipt)

    async def _plain(self, _request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        return problems.of_http(error.status_code, dict(error.headers or {}))

    async def _unavailable(self, _request: Request, _error: Exception) -> Response:
        return problems.of_unavailable()

    async def _gone(self, _request: Request, _error: Exception) -> Response:
        # Nobody reads this any more; hanging up in the middle of a body is no defect of ours.
        return Response(status_code=400)

    async def _defect(self, _request: Request, error: Exception) -> Response:
        if isinstance(error.__cause__, _AWAY):
            # An answer under way was cut off, so that nobody takes it for whole.
            _log.warning("request.cut_off", kind=type(error.__cause__).__name__)
            return Response(status_code=500)
        # The text of an unforeseen error may hold anything, so only its kind and place are told.
        _log.error("request.defect", kind=type(error).__name__, where=errors.place_of(error))
        return problems.problem(500, "defect", _("Error interno"), detail=_("El error quedó anotado; avise a la UTGS."))

    async def _recorded(self, request: Request, reasons: list[str]) -> Receipt | None:
        verified: VerifiedCaller | None = getattr(request.state, "verified", None)
        if verified is None:
            return None
        # The route's pattern, not the path: a path may hold whatever a caller wrote into it.
        route = getattr(request.scope.get("route"), "path", "")
        return await self._refusals.message(verified, reasons, route, address_of(request))
