"""``siis db``: the embedded server, the migrations, and the address for other tools."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy import create_engine, pool

from consent import agreements
from gateway import embedded, evidence, migrations
from gateway.catalogue import service as catalogue
from gateway.cli.context import open_context
from gateway.database import owner_url, sqlalchemy_url
from gateway.governance.service import answer_of
from gateway.settings import Settings, load_settings
from schemas.text import _

app = typer.Typer(help=_("La base de datos."), no_args_is_help=True, add_completion=False)


@app.command(help=_("Llevar la base de datos a la versión de este programa."))
def upgrade(
    demonstration: Annotated[
        bool, typer.Option("--with-demonstration", help=_("Cargar también los acuerdos de demostración."))
    ] = False,
) -> None:
    """Run the migrations and load the shipped catalogue."""
    settings = load_settings()
    bring_up(settings, demonstration=demonstration)
    typer.echo(_("Base de datos en la revisión {revision}.").format(revision=migrations.head()))


def bring_up(settings: Settings, *, demonstration: bool) -> None:
    """Migrate, load what the catalogue ships, and the demonstration agreements if asked for."""
    migrations.upgrade(owner_url(settings))
    asyncio.run(_load(settings, demonstration=demonstration))


async def _load(settings: Settings, *, demonstration: bool) -> None:
    at = datetime.now(UTC)
    async with open_context(settings) as context, context.database.transaction() as connection:
        await catalogue.load_shipped(connection)
        if not demonstration:
            return
        for said in await agreements.load_demonstration(connection, at=at):
            entry = evidence.entry(
                said["event"],
                "done",
                at=at,
                policy_version="none",
                actor={"channel": "command-line"},
                what=answer_of(said),
            )
            await context.audit.stage(connection, entry)


@app.command(help=_("Iniciar el servidor incluido."))
def start() -> None:
    """Start the embedded server; it keeps running."""
    settings = _embedded_only()
    server = embedded.start(settings.data_dir)
    typer.echo(_("Servidor en marcha (proceso {pid}).").format(pid=server.pid))


@app.command(help=_("Detener el servidor incluido."))
def stop() -> None:
    """Stop the embedded server."""
    stopped = embedded.stop(_embedded_only().data_dir)
    typer.echo(_("Servidor detenido.") if stopped else _("El servidor no estaba en marcha."))


@app.command(help=_("Decir si la base de datos responde y en qué revisión está."))
def status(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Show whether the database answers and its revision; exit 1 when it cannot be used."""
    settings = load_settings()
    running = not settings.embedded or embedded.status(settings.data_dir) is not None
    revision = None
    if running:
        engine = create_engine(sqlalchemy_url(owner_url(settings)), poolclass=pool.NullPool)
        with engine.connect() as connection:
            revision = migrations.current(connection)
    found = {
        "embedded": settings.embedded,
        "running": running,
        "revision": revision,
        "expected": migrations.head(),
        "usable": running and migrations.known(revision),
    }
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(_("En marcha: {answer}").format(answer=_("sí") if running else _("no")))
        typer.echo(_("Revisión: {found} (se espera {expected})").format(found=revision, expected=found["expected"]))
    if not found["usable"]:
        raise typer.Exit(1)


@app.command(help=_("Mostrar la dirección para psql y otras herramientas."))
def url(
    role: Annotated[
        str, typer.Option(help=_("Rol del servidor incluido: admin (por omisión), owner o app."))
    ] = "admin",
) -> None:
    """Print an address that libpq accepts; with the embedded server it is started if it was not running."""
    settings = load_settings()
    if settings.database_url is not None:
        typer.echo(settings.database_url.get_secret_value())
        return
    names = {"admin": embedded.SUPERUSER, "owner": embedded.OWNER, "app": embedded.APPLICATION}
    if role not in names:
        raise typer.BadParameter(" | ".join(names), param_hint="--role")
    typer.echo(embedded.start(settings.data_dir).url(names[role]))


def _embedded_only() -> Settings:
    settings = load_settings()
    if not settings.embedded:
        typer.echo(_("SIIS_DATABASE_URL está puesta: ese servidor no lo maneja siis."), err=True)
        raise typer.Exit(2)
    return settings
