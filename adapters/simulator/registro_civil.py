"""Registro Civil: birth and death records in XML, for clients with a token of OAuth 2.0."""

from __future__ import annotations

import zlib
from datetime import timedelta

from lxml import etree

from adapters.simulator.people import birth_entry, cedula_key
from adapters.simulator.records import Dossier
from adapters.simulator.register import Register
from adapters.simulator.settings import Settings
from adapters.simulator.tokens import Tokens
from adapters.simulator.web import XML, Reply, Request, json_reply, not_found

_NAMESPACE = "http://registrocivil.gov.py/actas/1"
_BIRTHS, _DEATHS = "/api/actas/nacimiento/", "/api/actas/defuncion/"
_FINE, _NO_RECORD, _WRONG_NUMBER = ("0", "Correcto"), ("4", "Sin acta registrada"), ("9", "Número de cédula no válido")
_Fields = dict[str, str]


class RegistroCivil(Register):
    """The civil registry."""

    name = "registro-civil"
    media = XML

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._tokens = Tokens(settings.password, self.switches)

    async def handle(self, request: Request) -> Reply:
        """Answer ``POST /oauth2/token`` and the two kinds of record."""
        if (request.method, request.path) == ("POST", "/oauth2/token"):
            return self._tokens.grant(request)
        kind = next((prefix for prefix in (_BIRTHS, _DEATHS) if request.path.startswith(prefix)), None)
        if kind is None or request.method != "GET":
            return not_found()
        if not self._tokens.believed(request):
            return json_reply(401, {"error": "invalid_token"})
        number = request.path.removeprefix(kind)
        if cedula_key(number) is None:
            return _reply(_WRONG_NUMBER)
        found = self.find(number)
        record = None if found is None else (_birth(found) if kind == _BIRTHS else _death(found))
        return _reply(_NO_RECORD) if record is None else _reply(_FINE, *record)


def _birth(dossier: Dossier) -> tuple[_Fields, _Fields] | None:
    """Return the record behind the identity card; who was born abroad has none here."""
    person = dossier.person
    if person.nationality != "PRY" or person.foreign_documents:
        return None
    entry = birth_entry(person)
    act = {
        "tipo": "NACIMIENTO",
        "numero": entry["icActa"],
        "folio": entry["icFolio"],
        "tomo": entry["icTomo"],
        "oficina": entry["icOfnac"],
        "fechaInscripcion": entry["icFeccar"],
    }
    born = dossier.registered_birth or person.birth_date
    return act, {"sexo": person.sex, "fechaNacimiento": born.isoformat(), "lugar": person.locality, **_who(dossier)}


def _death(dossier: Dossier) -> tuple[_Fields, _Fields] | None:
    died = dossier.person.deceased_on
    if died is None:
        return None
    draw = zlib.crc32(f"death {dossier.person.cedula}".encode())
    act = {
        "tipo": "DEFUNCION",
        "numero": str(draw % 700 + 1),
        "folio": str(draw // 7 % 300 + 1),
        "tomo": str(draw // 13 % 40 + 1),
        "oficina": f"{draw // 11 % 260:03d}",
        "fechaInscripcion": (died + timedelta(days=draw % 5)).strftime("%d/%m/%Y"),
    }
    return act, {"fechaDefuncion": died.isoformat(), **_who(dossier)}


def _who(dossier: Dossier) -> _Fields:
    person = dossier.person
    return {"cedula": person.cedula or "", "nombres": person.given_names, "apellidos": person.surnames}


def _reply(result: tuple[str, str], act: _Fields | None = None, person: _Fields | None = None) -> Reply:
    """Write an answer: the kind of act and the cédula are attributes, the rest are elements."""
    root = etree.Element(f"{{{_NAMESPACE}}}respuesta", nsmap={"a": _NAMESPACE})
    for name, text in zip(("codigo", "mensaje"), result, strict=True):
        etree.SubElement(root, f"{{{_NAMESPACE}}}{name}").text = text
    if act is not None and person is not None:
        element = _element(root, "acta", act, "tipo")
        _element(element, "inscripto", person, "cedula")
    return Reply(200, etree.tostring(root, xml_declaration=True, encoding="UTF-8"), "application/xml; charset=utf-8")


def _element(parent: etree._Element, name: str, fields: _Fields, attribute: str) -> etree._Element:
    element = etree.SubElement(parent, f"{{{_NAMESPACE}}}{name}", {attribute: fields[attribute]})
    for field, text in fields.items():
        if field != attribute:
            etree.SubElement(element, f"{{{_NAMESPACE}}}{field}").text = text
    return element


def build(settings: Settings) -> RegistroCivil:
    """Return the institution, ready to serve."""
    return RegistroCivil(settings)
