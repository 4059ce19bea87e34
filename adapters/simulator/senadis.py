"""SENADIS: a disability certificate is held against its number, cédula and name at once, and never shown to a guess."""

from __future__ import annotations

from typing import Any

from adapters.simulator.people import cedula_key
from adapters.simulator.records import Dossier
from adapters.simulator.register import Register, same_name
from adapters.simulator.settings import Settings
from adapters.simulator.web import JSON, Reply, Request, json_reply, not_found

_ASKED = ("numero", "cedula", "nombres", "apellidos")


class Senadis(Register):
    """The authority for the rights of persons with disabilities."""

    name = "senadis"
    media = JSON

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._by_number = {item.certificate.number: item for item in self.archive.values() if item.certificate}

    async def handle(self, request: Request) -> Reply:
        """Answer ``POST /api/certificados/verificar``."""
        if (request.method, request.path) != ("POST", "/api/certificados/verificar"):
            return not_found()
        if not self.has_bearer(request):
            return json_reply(401, {"codigo": "NO_AUTORIZADO"})
        asked = request.json() or {}
        missing = next(
            (name for name in _ASKED if not isinstance(asked.get(name), str) or not asked[name].strip()), None
        )
        if missing is not None:
            return json_reply(422, {"codigo": "DATO_FALTANTE", "mensaje": f"Falta {missing}"})
        return json_reply(200, self._verify({name: str(asked[name]) for name in _ASKED}))

    def _verify(self, asked: dict[str, str]) -> dict[str, Any]:
        """Say whether the certificate is this person's; nothing is told of a certificate that is somebody else's."""
        repeated = {"cedula": asked["cedula"], "numero": asked["numero"]}
        found = self._by_number.get(asked["numero"].strip())
        if found is None:
            return {"resultado": "SIN_CERTIFICADO", "solicitud": repeated}
        if not _is(found, asked):
            return {"resultado": "NO_COINCIDE", "coincide": False, "solicitud": repeated}
        return {"resultado": "VERIFICADO", "coincide": True, "solicitud": repeated, "certificado": _certificate(found)}


def _is(dossier: Dossier, asked: dict[str, str]) -> bool:
    person = dossier.person
    return (
        cedula_key(asked["cedula"]) == person.cedula
        and same_name(asked["nombres"], person.given_names)
        and same_name(asked["apellidos"], person.surnames)
    )


def _certificate(dossier: Dossier) -> dict[str, Any]:
    certificate = dossier.certificate
    if certificate is None:
        return {}
    return {
        "nombres": dossier.person.given_names,
        "apellidos": dossier.person.surnames,
        "grado": certificate.degree,
        "tipo": certificate.kind,
        "fechaExpedicion": certificate.issued_on.isoformat(),
        "fechaVencimiento": certificate.valid_until.isoformat(),
    }


def build(settings: Settings) -> Senadis:
    """Return the institution, ready to serve."""
    return Senadis(settings)
