"""MDS (Tekoporã, universal pension): a SOAP service that takes referrals and answers them when asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime

from adapters.simulator import soap
from adapters.simulator.behaviour import NOTICES
from adapters.simulator.casebook import Answer
from adapters.simulator.recipient import Recipient
from adapters.simulator.settings import Settings
from adapters.simulator.web import XML, Reply, Request, not_found

_NAMESPACE = "http://derivaciones.ws.mds.gov.py/"
_TAKEN, _ALREADY, _REJECTED = "0", "1", "2"
_REQUIRED = ("servicio", "institucionOrigen", "nombres", "apellidos", "motivo", "prioridad", "fechaEmision")
_DATES: dict[str, Callable[[str], date]] = {
    "fechaNacimiento": date.fromisoformat,
    "fechaLimite": date.fromisoformat,
    "fechaEmision": datetime.fromisoformat,
}
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_USUAL, _MOST = 100, 500


class Mds(Recipient):
    """The referral service of the Ministry of Social Development."""

    name = "mds"
    media = XML

    async def handle(self, request: Request) -> Reply:
        """Answer the WSDL and the two operations."""
        if request.path != "/DerivacionesWS":
            return not_found()
        if not self.authenticated(request):
            return soap.unauthorized()
        if request.method == "GET" and request.query.lower() == b"wsdl":
            return soap.wsdl("DerivacionesWS", request)
        try:
            operation, parameters = soap.read(request.body, _NAMESPACE)
            if operation == "registrarDerivacion":
                return self._register(parameters)
            if operation == "registrarAviso":
                return self._note(parameters)
            if operation == "consultarContrarreferencias":
                return self._answers(parameters)
            raise soap.Fault("Client", "Cannot find dispatch method")
        except soap.Fault as error:
            return soap.fault(_NAMESPACE, error)

    def _register(self, fields: dict[str, str]) -> Reply:
        wrong = _first_wrong(fields)
        if wrong:
            return _receipt(_REJECTED, f"Derivación rechazada: {wrong}", "", effect=False)
        number, new = self.take(fields["idReferencia"])
        code, text = (_TAKEN, "Derivación registrada") if new else (_ALREADY, "La derivación ya estaba registrada")
        return _receipt(code, text, f"MDS-{number:06d}", effect=new)

    def _note(self, fields: dict[str, str]) -> Reply:
        if fields.get("tipo") not in NOTICES or not fields.get("idAviso"):
            return _noted(_REJECTED, "Aviso no válido", effect=False)
        new = self.note(fields["idAviso"], fields.get("idReferencia", ""), fields["tipo"])
        if new is None:
            return _noted(_REJECTED, "No existe la derivación", effect=False)
        code, text = (_TAKEN, "Aviso registrado") if new else (_ALREADY, "El aviso ya estaba registrado")
        return _noted(code, text, effect=new)

    def _answers(self, fields: dict[str, str]) -> Reply:
        since, most = fields.get("desde") or "0", fields.get("maximo") or str(_USUAL)
        if not _NUMBER.match(since) or not _NUMBER.match(most) or not 0 < int(most) <= _MOST:
            raise soap.Fault("Client", "Cursor o máximo no válido")
        self.book.publish_due()
        found = self.book.published_after(int(since), int(most) + 1)
        page, more = found[: int(most)], len(found) > int(most)
        times = 2 if page and self.switches.take("duplicate") else 1
        cursor = page[-1].turn if page else int(since)
        content: list[tuple[str, soap.Content]] = [("contrarreferencia", _item(answer)) for answer in page * times]
        content += [("cursor", f"{cursor:08d}"), ("hayMas", str(more).lower())]
        element = "consultarContrarreferenciasResponse"
        return soap.answer(_NAMESPACE, element, content, qualified=True, effect=False)


def _receipt(code: str, text: str, number: str, *, effect: bool) -> Reply:
    content = soap.present({"codigo": code, "mensaje": text, "numeroExpediente": number})
    return soap.answer(_NAMESPACE, "registrarDerivacionResponse", content, qualified=True, effect=effect)


def _noted(code: str, text: str, *, effect: bool) -> Reply:
    content = soap.present({"codigo": code, "mensaje": text})
    return soap.answer(_NAMESPACE, "registrarAvisoResponse", content, qualified=True, effect=effect)


def _first_wrong(fields: dict[str, str]) -> str:
    """Name the first thing that keeps a referral from being registered; empty if nothing does."""
    for name in ("idReferencia", *_REQUIRED):
        if not fields.get(name):
            return f"falta {name}"
    for name, parse in _DATES.items():
        try:
            parse(fields.get(name) or "2000-01-01")
        except ValueError:
            return f"{name} no es una fecha válida"
    return ""


def _item(answer: Answer) -> list[tuple[str, str]]:
    step, appointment = answer.step, answer.appointment
    return soap.present(
        {
            "idMensaje": step.message_id,
            "idReferencia": answer.referral_id,
            "evento": step.event,
            "fecha": answer.day.isoformat(),
            "resultado": step.outcome,
            "motivo": step.reason,
            "detalle": step.detail,
            "lugar": step.place,
            "comprobante": step.proof,
            "fechaCita": appointment.isoformat() if appointment else "",
        }
    )


def build(settings: Settings) -> Mds:
    """Return the institution, ready to serve."""
    return Mds(settings)
