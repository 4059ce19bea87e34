"""Answers errors as problem details (RFC 9457): stable type, Spanish title, field and what to do; never a traceback."""

from __future__ import annotations

import math
from typing import Any

import orjson
from starlette.responses import Response

from audit.errors import AuditUnavailable
from audit.models import Receipt
from gateway import errors
from gateway.commands import receipt_json
from schemas.codes import label
from schemas.errors import SchemaError, Violation
from schemas.text import _
from schemas.validation import UNREADABLE

TYPE_PREFIX = "urn:siis:problem:"
# A producer may wish for any pause; callers are told one that makes sense to them.
_SHORTEST_PAUSE_S, _USUAL_PAUSE_S, _LONGEST_PAUSE_S = 1, 5, 3600
# Witnesses are asked each minute.
_STOPPED_PAUSE_S = 60


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
    broken = any(violation.rule in UNREADABLE for violation in error.violations)
    code = "malformed-json" if broken else "invalid-message"
    title = _("El cuerpo no se puede leer") if broken else _("El mensaje no es válido")
    detail = _("Envíe JSON en UTF-8.") if broken else _("Corrija los campos señalados y envíe de nuevo.")
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
        usual = (_("El pedido contradice lo que ya está registrado"), _("Consulte el estado actual antes de repetir."))
        title, what_to_do = _conflicts().get(error.code, usual)
        known = error.code in _conflicts()
        detail = f"{error.detail}: {what_to_do}" if error.detail and known else error.detail or what_to_do
        return problem(409, error.code, title, detail=detail, receipt=error.receipt, **error.told)
    if isinstance(error, errors.ProducerFailed):
        return _producer_failed(error)
    if isinstance(error, errors.EvidenceStopped):
        return problem(
            503,
            "evidence-stopped",
            _("Las consultas están detenidas"),
            detail=_(
                "Faltan las firmas de las instituciones que atestiguan el registro. Ningún dato fue pedido ni "
                "entregado; las emergencias siguen. Intente de nuevo más tarde."
            ),
            receipt=error.receipt,
            headers={"Retry-After": str(_STOPPED_PAUSE_S)},
        )
    title, detail = _bad_requests().get(error.code, (_("El pedido no es válido"), _("Revise el pedido.")))
    if isinstance(error, errors.Invalid):
        told = [_mistake(each) for each in error.mistakes]
        return problem(422, error.code, title, detail=detail, receipt=error.receipt, errors=told)
    members: dict[str, Any] = {}
    if isinstance(error, errors.BadRequest):
        detail = error.detail or detail
        members = {"allowed": list(error.allowed)} if error.allowed else {}
    violations = [Violation(error.pointer, error.code, detail)] if error.pointer else None
    return problem(422, error.code, title, detail=detail, violations=violations, receipt=error.receipt, **members)


def _mistake(each: errors.Mistake) -> dict[str, Any]:
    shown: dict[str, Any] = {"pointer": each.pointer, "rule": each.rule, "detail": each.detail}
    return shown | ({"allowed": list(each.allowed)} if each.allowed else {})


def of_http(status: int, headers: dict[str, str]) -> Response:
    """Build the answer to a request for which there is no route."""
    if status == 404:
        return not_found()
    if status == 405:
        detail = _("Aquí se usa {methods}.").format(methods=headers.get("Allow", ""))
        return problem(405, "method-not-allowed", _("Este método no se usa aquí"), detail=detail, headers=headers)
    return problem(status, "http", _("El pedido no se puede atender"), headers=headers)


def unsupported_media_type(accepted: str, receipt: Receipt | None = None) -> Response:
    """Build the answer to a body of another media type (RFC 9110 clause 15.5.16)."""
    return problem(
        415,
        "unsupported-media-type",
        _("El tipo de contenido no se acepta"),
        detail=_("Envíe la cabecera Content-Type con uno de: {accepted}.").format(accepted=accepted),
        receipt=receipt,
        headers={"Accept": accepted},
    )


def of_too_many(retry_after_s: int, receipt: Receipt | None = None) -> Response:
    """Build the answer to a client that asks more than it may (RFC 6585 section 4)."""
    return problem(
        429,
        "too-many-requests",
        _("Demasiados pedidos"),
        detail=_("Espere lo que dice Retry-After e intente de nuevo."),
        receipt=receipt,
        headers={"Retry-After": str(retry_after_s)},
    )


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
        pause = max(error.retry_after_s or _USUAL_PAUSE_S, _SHORTEST_PAUSE_S)
        headers["Retry-After"] = str(math.ceil(min(pause, _LONGEST_PAUSE_S)))
    titles = {
        "unavailable": (503, _("El sistema de la institución no responde")),
        "malformed": (502, _("El sistema de la institución respondió algo que no se puede usar")),
        "rejected": (502, _("El sistema de la institución rechazó la consulta")),
    }
    status, title = titles[error.kind]
    detail = _("Ningún dato fue entregado. El intento quedó registrado.")
    return problem(status, error.code, title, detail=detail, receipt=error.receipt, headers=headers)


def _conflicts() -> dict[str, tuple[str, str]]:
    return {
        "idempotency-key-reused": (
            _("La clave de idempotencia ya se usó con otro contenido"),
            _("Use una clave nueva para cada pedido distinto."),
        ),
        "out-of-order": (
            _("El evento no corresponde al estado de la referencia"),
            _("consulte los eventos de la referencia antes de informar otro."),
        ),
        "other-definition": (
            _("Las instantáneas cuentan con otras definiciones"),
            _("Compare instantáneas de la misma versión, o tome una nueva."),
        ),
        "nothing-changes": (
            _("El catálogo ya dice eso"),
            _("No hay nada que cambiar."),
        ),
        "exports-under-way": (
            _("Ya se están haciendo otras exportaciones"),
            _("Espere a que terminen e intente de nuevo."),
        ),
        "thread-closed": (_("La conversación está cerrada"), _("Abra otra.")),
        "form-known": (
            _("Esta ficha ya fue tomada"),
            _("Una ficha con otro contenido lleva otro número."),
        ),
        "already-referred": (
            _("Ya hay una referencia suya en curso para lo mismo"),
            _("Siga la que ya existe; si es otra necesidad de la misma persona, envíela con «additional»."),
        ),
        "delivery-paused": (
            _("La entrega ya está así"),
            _("Mire cómo está la entrega a esa institución."),
        ),
        "not-dead": (
            _("El mensaje no espera una decisión"),
            _("Vuelva a leer la lista: quizá otra persona ya decidió."),
        ),
        "already-claimed": (
            _("Otro servicio ya asumió la referencia"),
            _("No hay nada que hacer: la atiende quien la asumió."),
        ),
        "no-capacity": (
            _("El servicio no tiene cupo"),
            _("Refiera a otro servicio o, si el estado es «waitlist», envíela con «waitlist» para que espere."),
        ),
    }


def _bad_requests() -> dict[str, tuple[str, str]]:
    return {
        "invalid-form": (
            _("La ficha no se puede tomar"),
            _("Corrija lo que señala «errors» y envíela de nuevo entera."),
        ),
        "invalid-report": (
            _("El informe no se puede tomar"),
            _("Corrija lo que señala «errors» y envíelo de nuevo."),
        ),
        "not-comparable": (
            _("No se pueden comparar"),
            _("Compare dos instantáneas, o dos alcances."),
        ),
        "bad-day": (
            _("No es un día"),
            _("Escriba el día como 2026-11-23."),
        ),
        "bad-catalogue": (
            _("El cambio del catálogo tiene errores"),
            _("Nada se cambió: corrija lo señalado y envíe todo de nuevo."),
        ),
        "unknown-dataset": (
            _("El conjunto de datos no existe"),
            _("Los conjuntos que hay están en el acuerdo con la institución."),
        ),
        "dataset-not-connected": (
            _("El conjunto de datos no tiene un sistema conectado"),
            _("Avise a quien opera la pasarela."),
        ),
        "unknown-code": (
            _("El código no existe"),
            _("Use uno de los códigos que la respuesta enumera en «allowed»."),
        ),
        "unknown-purpose": (
            _("La finalidad no existe"),
            _("Use uno de los códigos que la respuesta enumera en «allowed»."),
        ),
        "unknown-basis": (
            _("La base legal no existe"),
            _("Use uno de los códigos que la respuesta enumera en «allowed»."),
        ),
        "unknown-field": (
            _("El campo no existe en el conjunto de datos"),
            _("Quite el campo señalado o corrija su nombre."),
        ),
        "unknown-service": (
            _("El servicio no existe en el catálogo"),
            _("Use el código de un servicio del catálogo."),
        ),
        "unusable-guidance": (
            _("El pedido de orientación no se puede usar"),
            _("Corrija lo que el detalle señala y envíe de nuevo."),
        ),
        "unknown-reason": (
            _("El motivo no existe o no corresponde"),
            _("Use un código de motivo que corresponda al evento."),
        ),
        "bad-identifier": (
            _("El identificador no es válido"),
            _("La cédula va sin puntos ni espacios; el RUC, con guion y dígito verificador."),
        ),
        "missing-idempotency-key": (
            _("Falta la cabecera Idempotency-Key o no es válida"),
            _("Envíe una sola, de 1 a 128 caracteres ASCII visibles, distinta para cada pedido."),
        ),
    }
