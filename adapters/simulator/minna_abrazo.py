"""MINNA, participants of Abrazo: a form is posted, and codes of two digits say how it went."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from adapters.simulator.records import Abrazo, Dossier
from adapters.simulator.register import Register
from adapters.simulator.settings import Settings
from adapters.simulator.web import JSON, Reply, Request, json_reply, not_found


class MinnaAbrazo(Register):
    """The register of participants of the ministry of childhood."""

    name = "minna-abrazo"
    media = JSON

    async def handle(self, request: Request) -> Reply:
        """Answer ``POST /abrazo/participantes``."""
        if (request.method, request.path) != ("POST", "/abrazo/participantes"):
            return not_found()
        if not self.authenticated(request):
            return Reply(401, b"", headers=((b"www-authenticate", b'Basic realm="Abrazo"'),))
        number = parse_qs(request.body.decode("utf-8", "replace")).get("nro_documento", [""])[0]
        if not number:
            return json_reply(200, {"codigo": "10", "mensaje": "Falta nro_documento"})
        found = self.find(number)
        if found is None or found.abrazo is None:
            return json_reply(200, {"codigo": "01", "mensaje": "No figura como participante"})
        return json_reply(200, {"codigo": "00", "mensaje": "", "participante": _participant(found, found.abrazo)})


def _participant(dossier: Dossier, abrazo: Abrazo) -> dict[str, Any]:
    return {
        "documento": dossier.person.cedula,
        "nombres": dossier.person.given_names,
        "apellidos": dossier.person.surnames,
        "centro": abrazo.centre,
        "ingreso": abrazo.since.strftime("%d/%m/%Y"),
        "cuotas": abrazo.instalments,
        "estado": "EGRESADO" if abrazo.instalments >= 72 else "ACTIVO",
    }


def build(settings: Settings) -> MinnaAbrazo:
    """Return the institution, ready to serve."""
    return MinnaAbrazo(settings)
