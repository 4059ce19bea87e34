"""What the commands of ``siis client`` share: the files they read, a change with its audit entry, and why one fails."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NoReturn
from zoneinfo import ZoneInfo

import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import evidence
from gateway.cli.context import open_context
from gateway.identity import service
from gateway.identity.certificates import read_certificate
from gateway.identity.errors import CertificateRefused, ClientError, KeyRefused
from gateway.identity.keys import read_public_key
from gateway.identity.models import Client, ClientCertificate, ClientKey, Issuer, Network
from gateway.identity.peer import read_network
from schemas.codes import code_list
from schemas.text import _

Change = Callable[[AsyncConnection, datetime], Awaitable[service.Detail]]

_UNUSABLE_INPUT = {"id", "name", "institution", "scope", "assurance", "grace", "credential", "validity", "network"}
_GRACE = re.compile(r"([0-9]{1,6})([smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PARAGUAY = ZoneInfo("America/Asuncion")


def carry_out(kind: str, change: Change) -> Issuer:
    """Make a change and its audit entry in one transaction; return our addresses, or end and say why not."""
    try:
        return asyncio.run(_commit(kind, change))
    except ClientError as error:
        fail(_client_text(error.reason), 2 if error.reason in _UNUSABLE_INPUT else 1)


async def _commit(kind: str, change: Change) -> Issuer:
    now = datetime.now(UTC)
    async with open_context() as context:
        async with context.database.transaction() as connection:
            what = await change(connection, now)
            entry = evidence.entry(
                kind,
                "done",
                at=now,
                policy_version="none",
                actor={"channel": "command-line", "uid": os.getuid()},
                what=what,
            )
            await context.audit.stage(connection, entry)
        return Issuer(context.settings.issuer)


def read_clients() -> list[Client]:
    """Return every client."""

    async def read() -> list[Client]:
        async with open_context() as context, context.database.connection() as connection:
            return await service.list_clients(connection)

    return asyncio.run(read())


def key_from(path: Path) -> ClientKey:
    """Read a public key, or end the command with 2."""
    try:
        return read_public_key(path.read_bytes())
    except OSError:
        fail(_("No se puede leer el archivo {path}.").format(path=path), 2)
    except KeyRefused as error:
        fail(_key_text(error.reason).format(path=path), 2)


def certificate_from(path: Path) -> ClientCertificate:
    """Read a certificate, or end the command with 2."""
    try:
        return read_certificate(path.read_bytes(), now=datetime.now(UTC))
    except OSError:
        fail(_("No se puede leer el archivo {path}.").format(path=path), 2)
    except CertificateRefused as error:
        fail(_certificate_text(error.reason).format(path=path), 2)


def networks_from(texts: list[str]) -> tuple[Network, ...]:
    """Read networks in CIDR form, or end the command with 2."""
    try:
        return tuple(read_network(text) for text in texts)
    except ValueError:
        fail(_("Una red se escribe como 203.0.113.0/24 o 2001:db8::/32, sin bits fuera de la máscara."), 2)


def day_from(text: str | None, *, end: bool = False) -> datetime | None:
    """Read a date (YYYY-MM-DD) as the instant at which that day begins in Paraguay, or ends; else end with 2."""
    if text is None:
        return None
    try:
        day = date.fromisoformat(text) + timedelta(days=1 if end else 0)
    except (ValueError, OverflowError):
        fail(_("Una fecha se escribe como 2027-12-31."), 2)
    return datetime(day.year, day.month, day.day, tzinfo=_PARAGUAY).astimezone(UTC)


def grace_from(text: str) -> timedelta:
    """Read how long a former key still counts, or end the command with 2."""
    match = _GRACE.match(text)
    if match is None:
        fail(_("--grace espera un número y una unidad: 30m, 24h, 7d."), 2)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def fail(text: str, code: int) -> NoReturn:
    """End the command with a text on standard error and an exit code."""
    typer.echo(text, err=True)
    raise typer.Exit(code)


def _key_text(reason: str) -> str:
    return {
        "unreadable": _("{path}: no contiene una clave pública en PEM ni en JWK."),
        "private": _(
            "{path}: es la clave PRIVADA. No la entregue a nadie: si este archivo salió de su dueño, genere otra. "
            "Aquí va solo la pública: openssl pkey -in privada.pem -pubout -out publica.pem"
        ),
        "certificate": _("{path}: es un certificado; se registra con --certificate."),
        "type": _("{path}: la clave no es de curva elíptica; se acepta solo EC P-256 (ES256)."),
        "curve": _("{path}: la curva no es P-256, la única que se acepta (ES256)."),
        "use": _("{path}: la clave JWK no es para verificar firmas ES256 (use, alg o key_ops)."),
        "kid": _("{path}: el kid de la clave JWK debe tener de 1 a 128 caracteres ASCII sin espacios."),
    }[reason]


def _certificate_text(reason: str) -> str:
    return {
        "unreadable": _("{path}: no contiene un certificado X.509 en PEM ni en DER."),
        "private": _("{path}: contiene también la clave PRIVADA. Si este archivo salió de su dueño, genere otra."),
        "expired": _("{path}: el certificado ya venció."),
    }[reason]


def _client_text(reason: str) -> str:
    return {
        "id": _("El identificador lleva minúsculas, dígitos, punto, guion o guion bajo; hasta 63."),
        "name": _("El nombre debe tener de 1 a 200 caracteres."),
        "institution": _("La institución no existe en el catálogo."),
        "scope": _("Alcance desconocido; los hay: {scopes}").format(scopes=" ".join(code_list("scopes"))),
        "assurance": _("El nivel va de 1 a 3."),
        "grace": _("El plazo de la clave anterior va de 0 a 30 días."),
        "credential": _("Falta con qué se identifica: --public-key, --certificate o --pilot-secret."),
        "validity": _("La vigencia debe empezar antes de terminar."),
        "network": _("Se aceptan hasta {most} redes.").format(most=service.MAX_NETWORKS),
        "exists": _("Ya hay un cliente con ese identificador."),
        "unknown": _("No hay ningún cliente con ese identificador."),
        "disabled": _("El cliente ya está de baja."),
        "key-known": _("El cliente ya tiene o tuvo esa clave: genere otra."),
        "certificate-known": _("El cliente ya tiene o tuvo ese certificado."),
        "certificate-unknown": _("El cliente no tiene ese certificado en uso."),
        "not-pilot": _("El cliente no es un piloto: no usa secreto."),
    }[reason]
