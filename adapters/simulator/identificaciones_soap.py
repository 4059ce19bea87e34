"""Identificaciones by SOAP, the service of 2015: fifteen optional fields in alphabetical order and two faults."""

from __future__ import annotations

from adapters.simulator import soap
from adapters.simulator.people import NOT_FOUND, birth_entry, cedula_key, load, record
from adapters.simulator.settings import Office, Settings
from adapters.simulator.web import XML, Reply, Request, not_found

_NAMESPACE = "http://identificaciones.ws.sii.senatics.gov.py/"
_OPERATION = "findPersonaByCedula"


class IdentificacionesSoap(Office):
    """The identity register as SENATICs published it."""

    name = "identificaciones-soap"
    media = XML

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._people = load(settings.persons, settings.seed)

    async def handle(self, request: Request) -> Reply:
        """Answer the WSDL and the one operation."""
        if request.path != "/PersonaWS":
            return not_found()
        if not self.authenticated(request):
            return soap.unauthorized()
        if request.method == "GET" and request.query.lower() == b"wsdl":
            return soap.wsdl("PersonaWS", request)
        try:
            return self._find(request.body)
        except soap.Fault as error:
            return soap.fault(_NAMESPACE, error)

    def _find(self, body: bytes) -> Reply:
        operation, parameters = soap.read(body, _NAMESPACE)
        if operation != _OPERATION:
            raise soap.Fault("Client", "Cannot find dispatch method")
        if not parameters.get("nroCedula"):
            raise soap.Fault("Server", "ServiceException", "ServiceException")
        key = cedula_key(parameters["nroCedula"])
        if key is None:
            detail = [("codigoError", "CEDULA_NO_NUMERICA")]
            raise soap.Fault("Server", "RegistroIdentificacionesException", "RegistroIdentificacionesException", detail)
        person = self._people.get(key)
        fields = {"error": NOT_FOUND} if person is None else {**record(person), **birth_entry(person)}
        # JAXB writes the fields in alphabetical order, and the WSDL's sequence holds them to it.
        content = [("return", sorted(fields.items(), key=lambda item: item[0].lower()))]
        return soap.answer(_NAMESPACE, f"{_OPERATION}Response", content, qualified=False)


def build(settings: Settings) -> IdentificacionesSoap:
    """Return the institution, ready to serve."""
    return IdentificacionesSoap(settings)
