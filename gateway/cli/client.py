"""``siis client``: registers client systems and their public keys; every change and its audit entry commit together."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import evidence
from gateway.cli.context import open_context
from gateway.cli.screen import screen
from gateway.cli.token import token
from gateway.identity import service
from gateway.identity.errors import ClientError, KeyRefused
from gateway.identity.keys import read_public_key
from gateway.identity.models import Client, ClientKey, Issuer
from schemas.codes import code_list
from schemas.ids import uuid7
from schemas.text import _

app = typer.Typer(help=_("Sistemas clientes y sus claves públicas."), no_args_is_help=True, add_completion=False)
app.command("token", help=_("Pedir un token como lo hace un sistema cliente."))(token)

# Reading the log is for auditors: it is given by name only.
_DEFAULT_SCOPES = frozenset(code_list("scopes")) - {"audit.read"}
_UNUSABLE_INPUT = {"id", "name", "institution", "scope", "assurance", "grace"}
_GRACE = re.compile(r"([0-9]{1,6})([smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Change = Callable[[AsyncConnection, datetime], Awaitable[service.Detail]]
KeyFile = Annotated[Path, typer.Option("--public-key", help=_("Clave pública EC P-256: PEM o JWK."))]


@app.command(help=_("Registrar un sistema cliente."))
def add(
    name: Annotated[str, typer.Argument(help=_("Nombre del sistema."))],
    institution: Annotated[str, typer.Option(help=_("Código de la institución, por ejemplo MDS."))],
    public_key: KeyFile,
    scope: Annotated[list[str] | None, typer.Option(help=_("Alcance permitido; se puede repetir."))] = None,
    client_id: Annotated[str | None, typer.Option("--id", help=_("Identificador; si falta, se crea uno."))] = None,
    assurance: Annotated[int, typer.Option(help=_("Nivel máximo (1 a 3) con que responde por sus operadores."))] = 1,
) -> None:
    """Register a client system."""
    key = _read_key(public_key)
    new_id = client_id or str(uuid7())
    scopes = frozenset(scope) if scope else _DEFAULT_SCOPES

    async def change(connection: AsyncConnection, now: datetime) -> service.Detail:
        return await service.add_client(
            connection,
            client_id=new_id,
            name=name,
            institution=institution,
            scopes=scopes,
            assurance=assurance,
            key=key,
            now=now,
        )

    issuer = _carry_out("client.added", change)
    typer.echo(_("Cliente registrado: {id}").format(id=new_id))
    typer.echo(_("  clave (kid): {kid}").format(kid=key.kid))
    typer.echo(_("  alcances: {scopes}").format(scopes=" ".join(sorted(scopes))))
    typer.echo(_("  pide sus tokens en: {url}").format(url=issuer.token_endpoint))


@app.command(help=_("Cambiar la clave de un cliente."))
def rotate(
    client_id: Annotated[str, typer.Argument(metavar="ID", help=_("Identificador del cliente."))],
    public_key: KeyFile,
    grace: Annotated[
        str, typer.Option(help=_("Cuánto sirve aún la clave anterior: 30m, 24h, 7d; 0h la corta."))
    ] = "24h",
) -> None:
    """Give a client a new key."""
    key = _read_key(public_key)
    period = _read_grace(grace)

    async def change(connection: AsyncConnection, now: datetime) -> service.Detail:
        return await service.rotate_key(connection, client_id=client_id, key=key, grace=period, now=now)

    _carry_out("client.key_rotated", change)
    typer.echo(_("Clave nueva (kid): {kid}; la anterior sirve {grace} más.").format(kid=key.kid, grace=grace))


@app.command(help=_("Dar de baja un cliente: sus tokens dejan de servir en el acto."))
def disable(client_id: Annotated[str, typer.Argument(metavar="ID", help=_("Identificador del cliente."))]) -> None:
    """Disable a client; its tokens stop at once."""

    async def change(connection: AsyncConnection, now: datetime) -> service.Detail:
        return await service.disable_client(connection, client_id=client_id, now=now)

    _carry_out("client.disabled", change)
    typer.echo(_("Cliente dado de baja: {id}").format(id=client_id))


@app.command("list", help=_("Mostrar los clientes."))
def list_(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Show the clients."""
    clients = asyncio.run(_read_clients())
    now = datetime.now(UTC)
    if as_json:
        typer.echo(orjson.dumps([_as_json(client, now) for client in clients]).decode())
        return
    headings = (_("Identificador"), _("Nombre"), _("Institución"), _("Estado"), _("Alcances"), _("Claves"))
    table = Table(*headings)
    for client in clients:
        table.add_row(
            client.id,
            client.name,
            client.institution,
            _("activo") if client.active else _("de baja"),
            " ".join(sorted(client.scopes)),
            " ".join(key.kid for key in client.usable_keys(now)),
        )
    screen().print(table)


def _carry_out(kind: str, change: Change) -> Issuer:
    try:
        return asyncio.run(_commit(kind, change))
    except ClientError as error:
        _fail(_client_text(error.reason), 2 if error.reason in _UNUSABLE_INPUT else 1)


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


async def _read_clients() -> list[Client]:
    async with open_context() as context, context.database.connection() as connection:
        return await service.list_clients(connection)


def _as_json(client: Client, now: datetime) -> dict[str, Any]:
    return {
        "id": client.id,
        "name": client.name,
        "institution": client.institution,
        "active": client.active,
        "scopes": sorted(client.scopes),
        "assurance": client.assurance,
        "created_at": client.created_at,
        "disabled_at": client.disabled_at,
        "keys": [{"kid": key.kid, "not_after": key.not_after, "usable": key.usable(now)} for key in client.keys],
    }


def _read_key(path: Path) -> ClientKey:
    try:
        return read_public_key(path.read_bytes())
    except OSError:
        _fail(_("No se puede leer el archivo {path}.").format(path=path), 2)
    except KeyRefused as error:
        _fail(_key_text(error.reason).format(path=path), 2)


def _read_grace(text: str) -> timedelta:
    match = _GRACE.match(text)
    if match is None:
        _fail(_("--grace espera un número y una unidad: 30m, 24h, 7d."), 2)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _key_text(reason: str) -> str:
    return {
        "unreadable": _("{path}: no contiene una clave pública en PEM ni en JWK."),
        "private": _(
            "{path}: es la clave PRIVADA. No la entregue a nadie: si este archivo salió de su dueño, genere otra. "
            "Aquí va solo la pública: openssl pkey -in privada.pem -pubout -out publica.pem"
        ),
        "certificate": _("{path}: es un certificado; extraiga la clave: openssl x509 -pubkey -noout -in archivo"),
        "type": _("{path}: la clave no es de curva elíptica; se acepta solo EC P-256 (ES256)."),
        "curve": _("{path}: la curva no es P-256, la única que se acepta (ES256)."),
        "use": _("{path}: la clave JWK no es para verificar firmas ES256 (use, alg o key_ops)."),
        "kid": _("{path}: el kid de la clave JWK debe tener de 1 a 128 caracteres ASCII sin espacios."),
    }[reason]


def _client_text(reason: str) -> str:
    return {
        "id": _("El identificador lleva minúsculas, dígitos, punto, guion o guion bajo; hasta 63."),
        "name": _("El nombre debe tener de 1 a 200 caracteres."),
        "institution": _("La institución no existe en el catálogo."),
        "scope": _("Alcance desconocido; los hay: {scopes}").format(scopes=" ".join(code_list("scopes"))),
        "assurance": _("El nivel va de 1 a 3."),
        "grace": _("El plazo de la clave anterior va de 0 a 30 días."),
        "exists": _("Ya hay un cliente con ese identificador."),
        "unknown": _("No hay ningún cliente con ese identificador."),
        "disabled": _("El cliente ya está de baja."),
        "key-known": _("El cliente ya tiene o tuvo esa clave: genere otra."),
    }[reason]


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(code)
