"""``siis witness``: watch the log of another institution's gateway, and sign what it has become."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer
import uvloop
from rich.table import Table
from sqlalchemy import create_engine, pool

from audit.keys import load_or_create_signing_key
from audit.verify import COSIGNATURE, NotValid, format_key
from audit.witness import OtherKey, Witness, WitnessedLog, add_log, witnessed_logs
from gateway import migrations
from gateway.cli.screen import cell, screen
from gateway.clock import utc_now
from gateway.database import Database, application_url, owner_url, sqlalchemy_url
from gateway.settings import Settings, SettingsError, load_settings
from schemas.text import _, translated

KEY_FILE = "witness.pem"

app = typer.Typer(help=_("Atestiguar el registro de otra institución."), no_args_is_help=True, add_completion=False)
_logs = typer.Typer(help=_("Los registros que se atestiguan."), no_args_is_help=True)
app.add_typer(_logs, name="log")


@app.command(help=_("Mostrar la clave de verificación del testigo; la primera vez se crea."))
def key() -> None:
    """Print the verifier key that logs and auditors need; the key file is made the first time, mode 0600."""
    verifier = _witness(load_settings()).verifier
    typer.echo(format_key(verifier.name, COSIGNATURE, verifier.key))


@app.command(help=_("Atender pedidos de firma."))
def serve(
    host: Annotated[str | None, typer.Option(help=_("Dirección donde escuchar."))] = None,
    port: Annotated[int | None, typer.Option(help=_("Puerto donde escuchar."))] = None,
) -> None:
    """Answer requests for cosignatures until interrupted."""
    settings = load_settings()
    uvloop.run(_serve(settings, host or settings.host, settings.port if port is None else port))


async def _serve(settings: Settings, host: str, port: int) -> None:
    from gateway.api.witness import create_witness
    from gateway.cli.serve import Server

    async with _opened(settings) as database:
        application = create_witness(database, _witness(settings), utc_now)
        await Server.of(application, host, port).serve()


@_logs.command(help=_("Atestiguar desde ahora los registros de estas claves de verificación."))
def add(keys: Annotated[list[str], typer.Argument(metavar="VKEY…", help=_("Claves que publica el registro."))]) -> None:
    """Witness logs from now on, each by its verifier key (C2SP signed-note); again is no mistake."""
    try:
        origins = asyncio.run(_add(load_settings(), keys))
    except NotValid as error:
        typer.echo(_("No es la clave de un registro: {what}").format(what=translated(error.what)), err=True)
        raise typer.Exit(2) from None
    except OtherKey as error:
        typer.echo(_("{origin} ya se atestigua con otra clave.").format(origin=error.args[0]), err=True)
        raise typer.Exit(1) from None
    for origin in origins:
        typer.echo(_("Se atestigua {origin}.").format(origin=origin))


async def _add(settings: Settings, keys: list[str]) -> list[str]:
    async with _opened(settings) as database, database.transaction() as connection:
        return [await add_log(connection, each, utc_now()) for each in keys]


@_logs.command("list", help=_("Mostrar los registros que se atestiguan y hasta dónde."))
def list_logs(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Show the logs this witness knows, and what it cosigned last of each."""
    found = asyncio.run(_list(load_settings()))
    if as_json:
        rows = [{**each._asdict(), "at": None if each.at is None else each.at.isoformat()} for each in found]
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    table = Table(_("Registro"), _("Entradas"), _("Firmado por última vez (UTC)"))
    for each in found:
        at = "" if each.at is None else each.at.isoformat(sep=" ", timespec="seconds")
        table.add_row(cell(each.origin), str(each.size), at)
    screen().print(table)


async def _list(settings: Settings) -> list[WitnessedLog]:
    async with _opened(settings) as database, database.connection() as connection:
        return await witnessed_logs(connection)


def _witness(settings: Settings) -> Witness:
    if settings.witness_name is None:
        raise SettingsError([("SIIS_WITNESS_NAME", _("falta el nombre con el que firma el testigo"))])
    return Witness(settings.witness_name, load_or_create_signing_key(settings.keys_dir / KEY_FILE))


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Database]:
    """Open the witness's own database; its tables are made the first time, so that nothing else need be run."""
    owner = owner_url(settings)
    if not migrations.known(_revision(owner)):
        migrations.upgrade(owner)
    database = Database(application_url(settings))
    try:
        yield database
    finally:
        await database.close()


def _revision(url: str) -> str | None:
    engine = create_engine(sqlalchemy_url(url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        return migrations.current(connection)
