"""MTESS: registered employment, in the wrapper its public services have: a boolean error, a list of complaints."""

from __future__ import annotations

from typing import Any

from adapters.simulator.people import cedula_key
from adapters.simulator.records import Employer
from adapters.simulator.register import Register
from adapters.simulator.settings import Settings
from adapters.simulator.web import JSON, Reply, Request, json_reply, not_found

_WORKERS = "/api-al/empleos/"


class Mtess(Register):
    """The labour ministry: its register of workers and employers."""

    name = "mtess"
    media = JSON

    async def handle(self, request: Request) -> Reply:
        """Answer ``GET /api-al/empleos/{ci}``."""
        if request.method != "GET" or not request.path.startswith(_WORKERS):
            return not_found()
        if not self.has_key(request.headers.get(b"x-api-key", b"")):
            return json_reply(401, {"error": True, "mensaje": "No autorizado", "errorValList": []})
        number = request.path[len(_WORKERS) :]
        if cedula_key(number) is None:
            return _complaint("La cédula no es válida", "ci")
        found = self.find(number)
        employers = found.insurance.employers if found and found.insurance else ()
        if found is None or not employers:
            return json_reply(200, {"error": False, "mensaje": "Sin registros", "empleos": []})
        jobs = [_job(employer) for employer in employers]
        person = found.person
        answer = {
            "error": False,
            "mensaje": None,
            "cedula": _number(person.cedula or ""),
            "nombres": person.given_names,
            "apellidos": person.surnames,
            "empleos": jobs,
        }
        return json_reply(200, answer)


def _number(cedula: str) -> int | str:
    """Write a cédula as a number, as this service does; one of the old series is a text."""
    return int(cedula) if cedula.isdecimal() else cedula


def _job(employer: Employer) -> dict[str, Any]:
    return {
        "razonSocial": employer.name,
        "nroPatronal": employer.number,
        "cargo": employer.position,
        "fechaIngreso": employer.since.isoformat(),
        "fechaSalida": None if employer.active else employer.last_paid.replace(day=28).isoformat(),
        "situacion": "ACTIVO" if employer.active else "CESADO",
    }


def _complaint(text: str, field: str) -> Reply:
    return json_reply(200, {"error": True, "mensaje": text, "errorValList": [{"campo": field, "error": text}]})


def build(settings: Settings) -> Mtess:
    """Return the institution, ready to serve."""
    return Mtess(settings)
