"""MSPBS: a JSON service that takes referrals and calls back, with a durable queue of what it still has to report."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import socket
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from adapters.simulator.behaviour import NOTICES
from adapters.simulator.recipient import Recipient
from adapters.simulator.settings import Settings
from adapters.simulator.web import JSON, Reply, Request, json_reply, not_found

_CALLBACK = {"gateway", "client_id", "key_file", "kid"}
_DAY = re.compile(r"[0-9]{2}/[0-9]{2}/[0-9]{4}\Z")


class Mspbs(Recipient):
    """The referral service of the Ministry of Public Health."""

    name = "mspbs"
    media = JSON

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._caller: asyncio.Task[None] | None = None

    async def start(self, sock: socket.socket) -> dict[str, str]:
        """Go on calling back where the last process stopped; without its key, wait to be told again."""
        kept = self.book.recall("callback")
        if kept:
            with contextlib.suppress(OSError, ValueError):
                self._call_back(orjson.loads(kept))
        return {}

    async def stop(self) -> None:
        """Stop calling back; what is not told yet waits in the case book."""
        await self._hang_up()
        await super().stop()

    async def handle(self, request: Request) -> Reply:
        """Answer ``POST /api/derivaciones`` and ``POST /api/derivaciones/avisos``."""
        if request.path not in ("/api/derivaciones", "/api/derivaciones/avisos") or request.method != "POST":
            return not_found()
        if not hmac.compare_digest(request.headers.get(b"x-api-key", b""), self.settings.password.encode()):
            return json_reply(401, {"codigo": "NO_AUTORIZADO", "mensaje": "Clave de API no válida"}, effect=False)
        if not request.headers.get(b"idempotency-key"):
            return _invalid("CABECERA_FALTANTE", "Falta la cabecera Idempotency-Key")
        if request.path.endswith("/avisos"):
            return self._note(request.json())
        referral = request.json()
        wrong = "el cuerpo no es un objeto JSON" if referral is None else _first_wrong(referral)
        if referral is None or wrong:
            return _invalid("DATOS_INVALIDOS", f"Derivación no válida: {wrong}")
        number, new = self.take(referral["id_referencia"])
        text = f"MSPBS-{number:06d}"
        if new:
            return json_reply(201, {"numero": text})
        return json_reply(200, {"numero": text, "duplicado": True}, effect=False)

    def _note(self, notice: dict[str, Any] | None) -> Reply:
        told = {} if notice is None else notice
        names = ("id_aviso", "id_referencia", "tipo")
        if not all(isinstance(told.get(name), str) for name in names) or told["tipo"] not in NOTICES:
            return _invalid("DATOS_INVALIDOS", "Aviso no válido")
        new = self.note(told["id_aviso"], told["id_referencia"], told["tipo"])
        if new is None:
            return _invalid("DERIVACION_DESCONOCIDA", "No existe la derivación")
        return json_reply(201, {"registrado": True}) if new else json_reply(200, {"duplicado": True}, effect=False)

    async def control(self, request: Request) -> Reply:
        """Take the address and the key to call back with: ``POST /_control/callback``."""
        if (request.method, request.path) != ("POST", "/_control/callback"):
            return not_found()
        wanted = request.json() or {}
        if set(wanted) != _CALLBACK or not all(isinstance(value, str) for value in wanted.values()):
            return json_reply(400, {"error": f"needs exactly {', '.join(sorted(_CALLBACK))}, all texts"})
        if urlsplit(wanted["gateway"]).hostname not in ("127.0.0.1", "localhost"):
            return json_reply(400, {"error": "gateway must be on loopback"})
        await self._hang_up()
        try:
            self._call_back(wanted)
        except (OSError, ValueError) as error:
            return json_reply(400, {"error": f"key_file cannot be used: {type(error).__name__}"})
        self.book.remember("callback", orjson.dumps(wanted).decode())
        return json_reply(200, {"gateway": wanted["gateway"]})

    def _call_back(self, target: dict[str, Any]) -> None:
        # Imported here: it brings an HTTP client and a signer that the ready line need not wait for.
        from adapters.simulator.callbacks import Callbacks

        callbacks = Callbacks(self.book, self.switches, **target)
        self._caller = asyncio.create_task(callbacks.run())

    async def _hang_up(self) -> None:
        if self._caller:
            self._caller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._caller
            self._caller = None


def _invalid(code: str, text: str) -> Reply:
    return json_reply(422, {"codigo": code, "mensaje": text}, effect=False)


def _first_wrong(referral: dict[str, Any]) -> str:
    """Name the first thing that keeps a referral from being taken; empty if nothing does."""
    patient = referral.get("paciente")
    if not isinstance(patient, dict):
        return "falta paciente"
    reason = referral.get("motivo")
    required = {
        "id_referencia": referral.get("id_referencia"),
        "servicio": referral.get("servicio"),
        "origen": referral.get("origen"),
        "paciente.nombres": patient.get("nombres"),
        "paciente.apellidos": patient.get("apellidos"),
        "motivo.codigo": reason.get("codigo") if isinstance(reason, dict) else None,
        "prioridad": referral.get("prioridad"),
        "emitida": referral.get("emitida"),
    }
    for name, value in required.items():
        if not isinstance(value, str) or not value.strip():
            return f"falta {name}"
    birth = patient.get("fecha_nacimiento")
    if birth and not (isinstance(birth, str) and _is_day(birth)):
        return "paciente.fecha_nacimiento no es una fecha dd/mm/aaaa"
    return ""


def _is_day(text: str) -> bool:
    if not _DAY.match(text):
        return False
    try:
        datetime.strptime(text, "%d/%m/%Y")
    except ValueError:
        return False
    return True


def build(settings: Settings) -> Mspbs:
    """Return the institution, ready to serve."""
    return Mspbs(settings)
