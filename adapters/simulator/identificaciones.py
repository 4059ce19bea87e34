"""Identificaciones by REST: a token for user and password, a person by cédula, and an error inside a 200."""

from __future__ import annotations

from adapters.simulator.people import NOT_FOUND, cedula_key, load, record
from adapters.simulator.settings import Office, Settings
from adapters.simulator.tokens import Tokens
from adapters.simulator.web import JSON, Reply, Request, json_reply, not_found

_PERSON = "/frontend-identificaciones/api/persona/obtenerPersonaPorCedula/"


class Identificaciones(Office):
    """The identity register as MITIC's platform publishes it today."""

    name = "identificaciones"
    media = JSON

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._people = load(settings.persons, settings.seed)
        self._tokens = Tokens(settings.password, self.switches)

    async def handle(self, request: Request) -> Reply:
        """Answer ``POST /security`` and the person query."""
        if request.method == "GET" and request.path.startswith(_PERSON):
            return self._person(request)
        if request.method == "POST" and request.path == "/security":
            return self._tokens.session(request)
        return not_found()

    def _person(self, request: Request) -> Reply:
        if not self._tokens.believed(request):
            return json_reply(401, {"mensaje": "Token inválido o expirado"})
        person = self._people.get(cedula_key(request.path[len(_PERSON) :]) or "")
        content = {"error": NOT_FOUND} if person is None else record(person)
        return json_reply(200, {"obtenerPersonaPorNroCedulaResponse": {"return": content}})


def build(settings: Settings) -> Identificaciones:
    """Return the institution, ready to serve."""
    return Identificaciones(settings)
