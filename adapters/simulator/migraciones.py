"""Migraciones: foreigners' entries in the books of residents, in the visible part of the form MITIC publishes."""

from __future__ import annotations

from typing import Any

from adapters.simulator.records import Dossier, Residence
from adapters.simulator.register import Register
from adapters.simulator.settings import Settings
from adapters.simulator.tokens import Tokens
from adapters.simulator.web import JSON, Reply, Request, json_reply, not_found

_RESIDENTS = "/migraciones/api/movimientos/obtenerRadicadosPorNroDocumento/"
_BOOKS = {"PERMANENTE": ("P", "1"), "TEMPORARIA": ("T", "2")}


class Migraciones(Register):
    """The migration authority."""

    name = "migraciones"
    media = JSON

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._tokens = Tokens(settings.password, self.switches)

    async def handle(self, request: Request) -> Reply:
        """Answer ``POST /security`` and the residents by document number."""
        if (request.method, request.path) == ("POST", "/security"):
            return self._tokens.session(request)
        if request.method != "GET" or not request.path.startswith(_RESIDENTS):
            return not_found()
        if not self._tokens.believed(request):
            return json_reply(401, {"mensaje": "Token inválido o expirado"})
        found = self.find(request.path[len(_RESIDENTS) :])
        entries = [_entry(found, residence) for residence in found.residences] if found else []
        code, text = (0, "OK") if entries else (1, "No se encontraron radicados")
        answer = {"codigo": code, "mensaje": text, "radicados": entries}
        return json_reply(200, {"ObtenerRadicadosPorNroDocumentoResponse": {"respuestaRadicados": answer}})


def _entry(dossier: Dossier, residence: Residence) -> dict[str, Any]:
    """Write an entry: some names with underscores and some without, numbers and texts as published."""
    book, book_id = _BOOKS[residence.book]
    resolved, registered = (day.strftime("%d/%m/%Y") for day in (residence.resolved_on, residence.registered_on))
    return {
        "idc": residence.number * 10,
        "referencia": residence.file_number + 1,
        "libro": book,
        "nro_registro": residence.number,
        "secuencia": 1,
        "nro_resol1": residence.resolution,
        "fecha_resol1": resolved,
        "fecha_inscripcion": registered,
        "nro_expediente": residence.file_number,
        "idLibro": book_id,
        "fecha": registered,
        "fecha_resol": resolved,
        "nombres": dossier.person.given_names.upper(),
        "apellidos": dossier.person.surnames.upper(),
        "alsoname": "",
        "fecha_nac": dossier.person.birth_date.strftime("%d/%m/%Y"),
        "lugar_nac": residence.birth_place.upper(),
    }


def build(settings: Settings) -> Migraciones:
    """Return the institution, ready to serve."""
    return Migraciones(settings)
