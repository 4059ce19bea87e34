"""``siis issuer``: whose tokens beside our own are believed; every change and its audit entry commit together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.yamlfile import read_yaml
from gateway import evidence
from gateway.cli.context import open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.clock import utc_now
from gateway.identity import issuers
from gateway.identity.issuers import Detail, IssuerError, OutsideIssuer
from gateway.settings import load_settings
from schemas.text import _

app = typer.Typer(help=_("Emisores externos de tokens."), no_args_is_help=True, add_completion=False)

Change = Callable[[AsyncConnection, datetime], Awaitable[Detail]]


@app.command(help=_("Aceptar los tokens de un emisor externo, según un archivo YAML."))
def add(file: Annotated[Path, typer.Argument(metavar="ARCHIVO", help=_("Registro del emisor, en YAML."))]) -> None:
    """Accept the tokens of an outside issuer."""
    registration = issuers.read_registration(read_yaml(file))
    own = load_settings().issuer

    async def change(connection: AsyncConnection, now: datetime) -> Detail:
        return await issuers.add_issuer(connection, registration, own=own, now=now)

    _carry_out("admin.issuer_added", change)
    typer.echo(_("Emisor registrado: {issuer}").format(issuer=registration.issuer))
    typer.echo(_("  claves: {address}").format(address=registration.jwks_uri))
    typer.echo(_("  alcances como máximo: {scopes}").format(scopes=" ".join(registration.scopes)))


@app.command(help=_("Dejar de aceptar los tokens de un emisor, en el acto."))
def disable(issuer: Annotated[str, typer.Argument(metavar="EMISOR", help=_("Dirección del emisor."))]) -> None:
    """Accept an issuer's tokens no longer."""

    async def change(connection: AsyncConnection, now: datetime) -> Detail:
        return await issuers.disable_issuer(connection, issuer, now=now)

    _carry_out("admin.issuer_disabled", change)
    typer.echo(_("Emisor dado de baja: {issuer}").format(issuer=issuer))


@app.command("list", help=_("Mostrar los emisores externos."))
def list_(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Show the outside issuers."""
    found, now = asyncio.run(_read()), utc_now()
    if as_json:
        typer.echo(json_line([_as_json(each, now) for each in found]))
        return
    headings = (_("Emisor"), _("Nombre"), _("Responde por"), _("Estado"), _("Alcances"))
    table = Table(*headings)
    for each in found:
        agreed = each.registration
        table.add_row(
            cell(agreed.issuer),
            cell(agreed.name),
            agreed.institution or _("personas"),
            _("activo") if each.in_force(now) else _("de baja"),
            " ".join(agreed.scopes),
        )
    screen().print(table)


def _carry_out(kind: str, change: Change) -> None:
    try:
        asyncio.run(_commit(kind, change))
    except IssuerError as error:
        _fail(error.reason)


async def _commit(kind: str, change: Change) -> None:
    now = datetime.now(UTC)
    async with open_context() as context, context.database.transaction() as connection:
        what = await change(connection, now)
        actor = {"channel": "command-line", "uid": os.getuid()}
        entry = evidence.entry(kind, "done", at=now, policy_version="none", actor=actor, what=what)
        await context.audit.stage(connection, entry)


async def _read() -> list[OutsideIssuer]:
    async with open_context() as context, context.database.connection() as connection:
        return await issuers.list_issuers(connection)


def _as_json(issuer: OutsideIssuer, now: datetime) -> dict[str, Any]:
    return {
        **issuer.registration.model_dump(mode="json"),
        "active": issuer.in_force(now),
        "created_at": issuer.created_at.isoformat(),
        "disabled_at": issuer.disabled_at and issuer.disabled_at.isoformat(),
    }


def _fail(reason: str) -> NoReturn:
    text, code = {
        "own": (_("Esa es la dirección de esta misma pasarela."), 2),
        "institution": (_("La institución no existe en el catálogo."), 2),
        "client": (
            _("claims.clients.names nombra un cliente no registrado, o de otra institución."),
            2,
        ),
        "exists": (_("Ese emisor ya está registrado: dele de baja antes de registrarlo con otros datos."), 1),
        "unknown": (_("No hay ningún emisor con esa dirección."), 1),
        "disabled": (_("El emisor ya está de baja."), 1),
    }[reason]
    typer.echo(text, err=True)
    raise typer.Exit(code)
