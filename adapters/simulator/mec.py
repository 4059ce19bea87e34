"""MEC: pupils' enrolment by JSON; a pupil without one is a 404 that says so."""

from __future__ import annotations

from adapters.simulator.records import Dossier, Enrolment
from adapters.simulator.register import Register
from adapters.simulator.settings import Settings
from adapters.simulator.web import JSON, Reply, Request, json_reply, not_found

_PUPILS, _PLACES = "/api/rue/alumnos/", "/matriculas"


class Mec(Register):
    """The ministry of education: its unified register of students."""

    name = "mec"
    media = JSON

    async def handle(self, request: Request) -> Reply:
        """Answer ``GET /api/rue/alumnos/{cedula}/matriculas``."""
        path = request.path
        if request.method != "GET" or not path.startswith(_PUPILS) or not path.endswith(_PLACES):
            return not_found()
        if not self.authenticated(request):
            return Reply(401, b"", headers=((b"www-authenticate", b'Basic realm="RUE"'),))
        found = self.find(path.removeprefix(_PUPILS).removesuffix(_PLACES))
        if found is None or found.enrolment is None:
            return json_reply(404, {"codigo": "SIN_MATRICULA", "mensaje": "Sin matrícula en el año lectivo"})
        return json_reply(200, {"alumno": _pupil(found), "matriculas": [_place(found.enrolment)]})


def _pupil(dossier: Dossier) -> dict[str, str | None]:
    person = dossier.person
    return {
        "nro_documento": person.cedula,
        "nombres": person.given_names,
        "apellidos": person.surnames,
        "fecha_nacimiento": person.birth_date.isoformat(),
    }


def _place(enrolment: Enrolment) -> dict[str, str | int]:
    return {
        "anio": enrolment.year,
        "nivel": enrolment.level,
        "grado": enrolment.grade,
        "codigo_establecimiento": enrolment.school,
        "nombre_institucion": enrolment.school_name,
        "estado": "MATRICULADO",
    }


def build(settings: Settings) -> Mec:
    """Return the institution, ready to serve."""
    return Mec(settings)
