"""INDI: who belongs to which indigenous community, asked with a key in the address; nobody found is an empty list."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from adapters.simulator.records import Dossier, Membership
from adapters.simulator.register import Register
from adapters.simulator.settings import Settings
from adapters.simulator.web import JSON, Reply, Request, json_reply, not_found


class Indi(Register):
    """The institute of indigenous affairs."""

    name = "indi"
    media = JSON

    async def handle(self, request: Request) -> Reply:
        """Answer ``GET /api/miembros``."""
        if (request.method, request.path) != ("GET", "/api/miembros"):
            return not_found()
        query = parse_qs(request.query.decode("ascii", "replace"))
        if not self.has_key(query.get("clave", [""])[0].encode()):
            return json_reply(403, {"detalle": "Clave no válida"})
        found = self.find(query.get("documento", [""])[0])
        members = [_member(found, found.membership)] if found and found.membership else []
        return json_reply(200, {"cantidad": len(members), "miembros": members})


def _member(dossier: Dossier, membership: Membership) -> dict[str, Any]:
    person = dossier.person
    return {
        "documento": person.cedula,
        "nombres": person.given_names,
        "apellidos": person.surnames,
        "desde": membership.since.isoformat(),
        "comunidad": {
            "nombre": membership.community,
            "registro": membership.number or None,
            "inscripta": "SI" if membership.registered else "NO",
            "pueblo": membership.people,
            "departamento": person.department,
            "distrito": person.district,
        },
    }


def build(settings: Settings) -> Indi:
    """Return the institution, ready to serve."""
    return Indi(settings)
