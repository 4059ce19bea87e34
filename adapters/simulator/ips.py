"""IPS: an insured person by SOAP 1.2, with the columns of its public page and what clerks write in them."""

from __future__ import annotations

from datetime import date

from adapters.simulator import soap
from adapters.simulator.people import cedula_key
from adapters.simulator.records import Dossier, Employer, Insurance
from adapters.simulator.register import Register
from adapters.simulator.settings import Settings
from adapters.simulator.web import XML, Reply, Request, not_found

_NAMESPACE = "http://asegurados.ws.ips.gov.py/"
_OPERATION = "consultarAsegurado"
_MONTHS = (
    "ENERO", "FEBRERO", "MARZO", "ABRIL", "MAYO", "JUNIO",
    "JULIO", "AGOSTO", "SEPTIEMBRE", "OCTUBRE", "NOVIEMBRE", "DICIEMBRE",
)  # fmt: skip


class Ips(Register):
    """The social insurance."""

    name = "ips"
    media = XML

    async def handle(self, request: Request) -> Reply:
        """Answer the WSDL and the one operation."""
        if request.path != "/AseguradosWS":
            return not_found()
        if not self.authenticated(request):
            return soap.unauthorized()
        if request.method == "GET" and request.query.lower() == b"wsdl":
            return soap.wsdl("AseguradosWS", request)
        try:
            return self._find(request.body)
        except soap.Fault as error:
            return soap.fault_12(error)

    def _find(self, body: bytes) -> Reply:
        operation, parameters = soap.read(body, _NAMESPACE, soap.SOAP_12)
        if operation != _OPERATION:
            raise soap.Fault("Client", "No existe la operación")
        number = parameters.get("nroCic", "")
        if cedula_key(number) is None:
            return _answer([("codigo", "2"), ("mensaje", "Número de documento no válido")])
        found = self.find(number)
        if found is None or found.insurance is None:
            return _answer([("codigo", "1"), ("mensaje", "No figura como asegurado")])
        insured = ("asegurado", _insured(found, found.insurance))
        return _answer([("codigo", "0"), ("mensaje", ""), insured])


def _answer(content: list[tuple[str, soap.Content]]) -> Reply:
    return soap.answer(_NAMESPACE, f"{_OPERATION}Response", content, qualified=True, version=soap.SOAP_12)


def _insured(dossier: Dossier, insurance: Insurance) -> list[tuple[str, soap.Content]]:
    person = dossier.person
    until = insurance.life_certificate
    fields: list[tuple[str, soap.Content]] = [
        ("nroDocumento", person.cedula or ""),
        ("nombres", person.given_names.upper()),
        ("apellidos", person.surnames.upper()),
        ("fechaNacim", person.birth_date.strftime("%d/%m/%Y")),
        ("sexo", "FEMENINO" if person.sex == "F" else "MASCULINO"),
        ("tipoAseg", insurance.kind),
        ("beneficiariosActivos", str(insurance.dependants)),
        ("enrolado", "SI" if insurance.enrolled else "NO"),
        ("vencimientoFeDeVida", until.strftime("%d/%m/%Y") if until else "No tiene"),
    ]
    return [*fields, *(("empleador", _employer(employer)) for employer in insurance.employers)]


def _employer(employer: Employer) -> list[tuple[str, soap.Content]]:
    first, last = employer.since, employer.last_paid
    months = (last.year - first.year) * 12 + last.month - first.month + 1
    return [
        ("nroPatronal", employer.number),
        ("empleador", employer.name.upper()),
        ("estado", "ACTIVO" if employer.active else "INACTIVO"),
        ("mesesDeAporte", str(months)),
        ("vencimiento", _three_months_after(last).strftime("%d/%m/%Y")),
        ("ultimoPeriodoAbonado", f"{_MONTHS[last.month - 1]}/{last.year}"),
    ]


def _three_months_after(month: date) -> date:
    """Return the first day without cover after the last month paid."""
    months = month.year * 12 + month.month - 1 + 3
    return date(months // 12, months % 12 + 1, 1)


def build(settings: Settings) -> Ips:
    """Return the institution, ready to serve."""
    return Ips(settings)
