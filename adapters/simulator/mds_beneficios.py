"""MDS, who receives what: a person's place on the pension roll and in Tekoporã, by SOAP."""

from __future__ import annotations

from adapters.simulator import soap
from adapters.simulator.people import cedula_key
from adapters.simulator.records import Benefit, Dossier
from adapters.simulator.register import Register
from adapters.simulator.settings import Settings
from adapters.simulator.web import XML, Reply, Request, not_found

_NAMESPACE = "http://beneficios.ws.mds.gov.py/"
_OPERATIONS = {"consultarPension": "pension", "consultarTekopora": "tekopora"}


class MdsBeneficios(Register):
    """The rolls of the ministry of social development, one person at a time."""

    name = "mds-beneficios"
    media = XML

    async def handle(self, request: Request) -> Reply:
        """Answer the WSDL and the two operations."""
        if request.path != "/BeneficiosWS":
            return not_found()
        if not self.authenticated(request):
            return soap.unauthorized()
        if request.method == "GET" and request.query.lower() == b"wsdl":
            return soap.wsdl("BeneficiosWS", request)
        try:
            operation, parameters = soap.read(request.body, _NAMESPACE)
            if operation not in _OPERATIONS:
                raise soap.Fault("Client", "Cannot find dispatch method")
            return self._find(operation, parameters.get("cedula", ""))
        except soap.Fault as error:
            return soap.fault(_NAMESPACE, error)

    def _find(self, operation: str, number: str) -> Reply:
        if cedula_key(number) is None:
            raise soap.Fault("Client", "Cédula no válida", "CedulaNoValida", [("codigo", "CED-01")])
        found = self.find(number)
        benefit: Benefit | None = None if found is None else getattr(found, _OPERATIONS[operation])
        content: soap.Content = [("figura", "false")]
        if found is not None and benefit is not None:
            content = [("figura", "true"), ("beneficiario", _benefit(found, benefit))]
        return soap.answer(_NAMESPACE, f"{operation}Response", content, qualified=True)


def _benefit(dossier: Dossier, benefit: Benefit) -> list[tuple[str, str]]:
    person = dossier.person
    return soap.present(
        {
            "cedula": person.cedula or "",
            "nombres": person.given_names,
            "apellidos": person.surnames,
            "departamento": person.department,
            "distrito": person.district,
            "hogar": benefit.household,
            "calidad": benefit.role,
            "estado": benefit.status,
            "ingreso": benefit.since.isoformat(),
            "ultimoPago": benefit.paid_until.strftime("%m/%Y"),
        }
    )


def build(settings: Settings) -> MdsBeneficios:
    """Return the institution, ready to serve."""
    return MdsBeneficios(settings)
