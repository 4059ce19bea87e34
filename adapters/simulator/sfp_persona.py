"""SFP's facade over Identificaciones (nuSOAP, rpc/literal): a state in the answer, and where the data come from."""

from __future__ import annotations

from adapters.simulator import soap
from adapters.simulator.people import cedula_key, nationality
from adapters.simulator.records import Dossier
from adapters.simulator.register import Register
from adapters.simulator.settings import Settings
from adapters.simulator.web import XML, Reply, Request, not_found

_NAMESPACE = "http://ws.sfp.gov.py/persona"
_OPERATION = "obtenerDatosPersona"
_FINE, _UNKNOWN, _FAILED = ("0", ""), ("1", "La persona no existe"), ("98", "Error general")


class SfpPersona(Register):
    """The secretariat of the public service, which asks the national service and else looks at its own copy."""

    name = "sfp-persona"
    media = XML

    async def handle(self, request: Request) -> Reply:
        """Answer the WSDL and the one operation."""
        if request.path != "/DatosPersonaWS":
            return not_found()
        if not self.authenticated(request):
            return soap.unauthorized()
        if request.method == "GET" and request.query.lower() == b"wsdl":
            return soap.wsdl("DatosPersonaWS", request)
        try:
            return self._find(request.body)
        except soap.Fault as error:
            return soap.fault(_NAMESPACE, error)

    def _find(self, body: bytes) -> Reply:
        operation, parameters = soap.read(body, _NAMESPACE)
        if operation != _OPERATION:
            raise soap.Fault("Client", "Operation not defined in this WSDL")
        number = parameters.get("nroCedula", "")
        if cedula_key(number) is None:
            return _answer(_FAILED)
        found = self.find(number)
        return _answer(_UNKNOWN) if found is None else _answer(_FINE, found)


def _answer(state: tuple[str, str], dossier: Dossier | None = None) -> Reply:
    content: list[tuple[str, soap.Content]] = [("estado", state[0]), ("estadoMsg", state[1])]
    if dossier is not None:
        # Who is on the payroll is in the copy, where numbers are padded to seven digits.
        copied = dossier.post is not None
        content.append(("origenDatos", "BDSFP" if copied else "BDIdentificaciones"))
        content.append(("persona", _person(dossier, padded=copied)))
    wrapped: soap.Content = [("return", content)]
    return soap.answer(_NAMESPACE, f"{_OPERATION}Response", wrapped, qualified=False, charset="ISO-8859-1")


def _person(dossier: Dossier, *, padded: bool) -> list[tuple[str, str]]:
    person = dossier.person
    cedula = person.cedula or ""
    return [
        ("nroDocumento", cedula.zfill(7) if padded else cedula),
        ("nombre", person.given_names),
        ("apellido", person.surnames),
        ("fechaNacimiento", f"{person.birth_date} 00:00:00"),
        ("sexo", person.sex),
        ("nacionalidad", nationality(person)),
        ("lugarNacimiento", ""),
        ("domicilio", person.locality),
        ("estadoCivil", person.marital_status),
    ]


def build(settings: Settings) -> SfpPersona:
    """Return the institution, ready to serve."""
    return SfpPersona(settings)
