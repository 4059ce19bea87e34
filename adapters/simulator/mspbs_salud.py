"""MSPBS, health history: checks in pages by number, doses in pages by cursor; a stranger has an empty list."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from adapters.simulator.dossier import complete
from adapters.simulator.records import Dossier, Event
from adapters.simulator.register import Register
from adapters.simulator.settings import Settings
from adapters.simulator.web import JSON, Reply, Request, json_reply, not_found

_PATIENTS = "/api/pacientes/"
_PAGE = 5


class MspbsSalud(Register):
    """The health ministry's history of checks and its vaccination register."""

    name = "mspbs-salud"
    media = JSON

    async def handle(self, request: Request) -> Reply:
        """Answer ``GET /api/pacientes/{cedula}/controles`` and ``…/vacunas``, newest first."""
        number, _, what = request.path.removeprefix(_PATIENTS).partition("/")
        if request.method != "GET" or not request.path.startswith(_PATIENTS) or what not in ("controles", "vacunas"):
            return not_found()
        if not self.has_key(request.headers.get(b"x-api-key", b"")):
            return json_reply(401, {"codigo": "NO_AUTORIZADO"})
        query = parse_qs(request.query.decode("ascii", "replace"))
        found = self.find(number)
        if what == "controles":
            return _checks(number, found, query.get("pagina", ["1"])[0])
        return _doses(number, found, query.get("desde", ["0"])[0])


def _checks(number: str, found: Dossier | None, page: str) -> Reply:
    if not page.isdecimal() or int(page) < 1:
        return json_reply(400, {"codigo": "PAGINA", "mensaje": "Página no válida"})
    checks = found.checks if found else ()
    start = (int(page) - 1) * _PAGE
    shown = [_event(event, "tipo") for event in checks[start : start + _PAGE]]
    return json_reply(200, {"documento": number, "total": len(checks), "pagina": int(page), "controles": shown})


def _doses(number: str, found: Dossier | None, since: str) -> Reply:
    if not since.isdecimal():
        return json_reply(400, {"codigo": "CURSOR", "mensaje": "Cursor no válido"})
    doses, start = found.doses if found else (), int(since)
    end = start + _PAGE
    answer = {
        "documento": number,
        "esquemaCompleto": found is not None and complete(found),
        "dosis": [_event(event, "vacuna") for event in doses[start:end]],
        "siguiente": str(end) if end < len(doses) else None,
    }
    return json_reply(200, answer)


def _event(event: Event, kind: str) -> dict[str, Any]:
    return {kind: event.kind, "fecha": event.on.isoformat(), "establecimiento": event.place}


def build(settings: Settings) -> MspbsSalud:
    """Return the institution, ready to serve."""
    return MspbsSalud(settings)
