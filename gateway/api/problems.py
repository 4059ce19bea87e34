"""Answers errors as problem details (RFC 9457): stable type, Spanish title, field and what to do; never a traceback."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from audit.errors import AuditUnavailable
from audit.models import Receipt
from gateway import errors
from gateway.referrals.service import receipt_json
from schemas.codes import label
from schemas.errors import SchemaError, Violation
from schemas.text import _

TYPE_PREFIX = "urn:siis:problem:"


def problem(
    status: int,
    code: str,
    title: str,
    *,
    detail: str | None = None,
    violations: list[Violation] | None = None,
    receipt: Receipt | None = None,
    headers: dict[str, str] | None = None,
    **members: Any,
) -> Response:
    """Build a problem response; ``violations`` become ``errors`` with a JSON Pointer each."""
    body: dict[str, Any] = {"type": TYPE_PREFIX + code, "title": title, "status": status}
    if detail:
        body["detail"] = detail
    if violations:
        body["errors"] = [{"pointer": v.pointer, "rule": v.rule, "detail": v.message} for v in violations]
    if receipt is not None:
        body["receipt"] = receipt_json(receipt)
    body.update(members)
    return Response(orjson.dumps(body), status, headers, "application/problem+json")


def not_found() -> Response:
    """Build the one answer for "nothing there" and "nothing you may learn of": it must not differ in a single byte."""
    return problem(
        404,
        "not-found",
        _("No se encontró"),
        detail=_("No hay nada que mostrar para este pedido. Revise el identificador y el número."),
    )


def of_schema(error: SchemaError, *, receipt: Receipt | None = None) -> Response:
    """Build the answer to a message that is not what its schema says."""
    broken = len(error.violations) == 1 and error.violations[0].pointer == "" and error.violations[0].rule != "schema"
    code = "malformed-json" if broken else "invalid-message"
    title = _("El cuerpo no se puede leer") if broken else _("El mensaje no es válido")
    detail = _("Corrija los campos señalados y envíe de nuevo.")
    return problem(400, code, title, detail=detail, violations=error.violations, receipt=receipt)


def of_refusal(error: errors.Refusal) -> Response:
    """Build the answer to a refusal of the domain."""
    if isinstance(error, errors.NotFound):
        return not_found()
    if isinstance(error, errors.Denied):
        reasons = [{"code": code, "title": label("denial-reasons", code)} for code in error.reasons]
        return problem(
            403,
            "denied",
            _("No se permite"),
            detail=_("La decisión fue negativa por las razones indicadas. Consulte el acuerdo con la institución."),
            receipt=error.receipt,
            reasons=reasons,
        )
    if isinstance(error, errors.Conflict):
        return problem(409, error.code, _conflicts()[error.code], detail=error.detail)
    if isinstance(error, errors.ProducerFailed):
        return _producer_failed(error)
    violations = [Violation(error.pointer or "", error.code, _("Revise este campo."))]
    title = _bad_requests().get(error.code, _("El pedido no es válido"))
    return problem(422, error.code, title, violations=violations, receipt=error.receipt)


def of_unavailable(_error: AuditUnavailable | None = None) -> Response:
    """Build the answer when the log or the database cannot be written: nothing is released."""
    return problem(
        503,
        "unavailable",
        _("Servicio no disponible"),
        detail=_("No se pudo registrar el pedido y por eso no se atendió. Intente de nuevo."),
        headers={"Retry-After": "5"},
    )


def _producer_failed(error: errors.ProducerFailed) -> Response:
    headers = {}
    if error.kind == "unavailable":
        headers["Retry-After"] = str(int(error.retry_after_s or 5))
    titles = {
        "unavailable": (503, _("El sistema de la institución no responde")),
        "malformed": (502, _("El sistema de la institución respondió algo que no se puede usar")),
        "rejected": (502, _("El sistema de la institución rechazó la consulta")),
    }
    status, title = titles[error.kind]
    detail = _("Ningún dato fue entregado. El intento quedó registrado.")
    return problem(status, error.code, title, detail=detail, receipt=error.receipt, headers=headers)


def _conflicts() -> dict[str, str]:
    return {
        "idempotency-key-reused": _("La clave de idempotencia ya se usó con otro contenido"),
        "out-of-order": _("El evento no corresponde al estado de la referencia"),
        "already-referred": _("Esta interconsulta ya tiene una referencia"),
    }


def _bad_requests() -> dict[str, str]:
    return {
        "unknown-dataset": _("El conjunto de datos no existe"),
        "dataset-not-connected": _("El conjunto de datos no tiene un sistema conectado"),
        "unknown-field": _("El campo no existe en el conjunto de datos"),
        "unknown-service": _("El servicio no existe en el catálogo"),
        "unknown-reason": _("El motivo no existe o no corresponde"),
        "bad-identifier": _("El identificador no es válido"),
        "missing-idempotency-key": _("Falta la cabecera Idempotency-Key"),
    }
