"""``siis form``: demand that comes as a file, registers made into facts, and what was observed of a person."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.files.errors import WrongFile
from adapters.files.wording import say
from adapters.files.writing import RejectsFile
from gateway.cli.changes import ended, fail, known_institution
from gateway.cli.context import governance_of, open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.governance.people import Named
from gateway.intake.forms import RECORD, Forms
from gateway.intake.forms_crossing import Crossed
from gateway.intake.forms_facts import FactReports
from gateway.intake.forms_file import Imported, import_facts, import_forms
from gateway.registry.observations import Observation, Told, Unit, observed
from gateway.runtime import open_runtime
from gateway.settings import load_settings
from schemas.codes import label
from schemas.text import _, printable

app = typer.Typer(
    help=_("Fichas, informes y cruces: la demanda que llega."), no_args_is_help=True, add_completion=False
)
File = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help=_("Tabla en CSV (UTF-8) o XLSX."))
]
Institution = Annotated[str, typer.Option(help=_("Código de la institución que la entrega."))]
Rejects = Annotated[
    Path | None, typer.Option(dir_okay=False, help=_("Dónde escribir las filas rechazadas; si no, junto a FILE."))
]
Json = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]


@app.command("import", help=_("Tomar fichas de una tabla: cada ficha entera o nada; lo rechazado, en un archivo."))
def import_(file: File, institution: Institution, rejects: Rejects = None, as_json: Json = False) -> None:
    """Take the forms of a file; exit 1 when a row was rejected."""

    async def work(context: Any, out: RejectsFile) -> Imported:
        return await import_forms(Forms(governance_of(context), context.vault), file, institution, out)

    _import(file, institution, rejects, as_json, work)


@app.command(help=_("Tomar lo que una institución informa, sin referencia, sobre sus propios servicios."))
def facts(file: File, institution: Institution, rejects: Rejects = None, as_json: Json = False) -> None:
    """Take the reports of a file; exit 1 when a row was rejected."""

    async def work(context: Any, out: RejectsFile) -> Imported:
        return await import_facts(FactReports(governance_of(context), context.vault), file, institution, out)

    _import(file, institution, rejects, as_json, work)


def _import(
    file: Path,
    institution: str,
    rejects: Path | None,
    as_json: bool,
    work: Callable[[Any, RejectsFile], Awaitable[Imported]],
) -> None:
    path = rejects or file.with_name(f"{file.stem}.rejects.csv")

    async def taken() -> Imported:
        async with open_context() as context:
            async with context.database.connection() as connection:
                await known_institution(connection, institution)
            with RejectsFile(path) as out:
                return await work(context, out)

    try:
        done = ended(taken())
    except WrongFile as error:
        fail(_("No se puede leer {file}: {why}").format(file=printable(file.name), why=say(str(error))), 2)
    if not done.rejected:
        path.unlink()
    if as_json:
        typer.echo(json_line({**asdict(done), "rejects": str(path) if done.rejected else None}))
    else:
        text = _("{taken} tomadas, {known} ya estaban, {rejected} filas rechazadas")
        typer.echo(text.format(**asdict(done)))
        if done.rejected:
            typer.echo(_("  Filas rechazadas, con su motivo: {file}").format(file=path))
    if done.rejected:
        raise typer.Exit(1)


@app.command(help=_("Convertir en hechos lo que dicen los registros tomados: quién recibe qué servicio."))
def cross(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help=_("Nombre del adaptador."))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON, una línea por registro."))] = False,
) -> None:
    """Cross the registers in force with the persons known here; exit 1 when an agreement does not let one be read."""
    found = asyncio.run(_cross(name))
    for each in found:
        if as_json:
            typer.echo(json_line(asdict(each)))
        elif each.outcome == "denied":
            typer.echo(_("{name}: ningún acuerdo permite leer este registro").format(name=printable(each.name)))
        else:
            text = _("{name}: {rows} filas, {facts} hechos, {unknown} personas que no están registradas")
            typer.echo(printable(text.format(**asdict(each))))
    if not found and not as_json:
        typer.echo(_("No hay registros nuevos que cruzar."))
    if any(each.outcome == "denied" for each in found):
        raise typer.Exit(1)


async def _cross(name: str | None) -> list[Crossed]:
    async with open_runtime(load_settings()) as runtime:
        if name is not None:
            runtime.adapters.named(name)
        chosen = [adapter for adapter in runtime.adapters.taking() if name in (None, adapter.name)]
        return [each for adapter in chosen for each in await runtime.crossing.cross(adapter, user=f"uid {os.getuid()}")]


@app.command(help=_("Mostrar todo lo que se observó de una persona y de su hogar, y qué vale de lo que se contradice."))
def show(
    value: Annotated[str, typer.Argument(metavar="NUMERO", help=_("Número de la persona."))],
    system: Annotated[str, typer.Option(help=_("Sistema del número: cedula, local o siis."))] = "cedula",
    as_json: Json = False,
) -> None:
    """Show the observations of a person and their household; the look is an entry in the log."""

    async def looked() -> dict[str, dict[str, Told]]:
        async with open_context() as context:
            desk = Forms(governance_of(context), context.vault)

            async def read(connection: AsyncConnection, at: Any) -> tuple[UUID | None, dict[str, Any], Any]:
                who, _mandate = await desk.subject(connection, None, Named(system, value), at)
                told = {"person": await observed(connection, Unit("person", who.id))}
                if who.household_id is not None:
                    told["household"] = await observed(connection, Unit("household", who.household_id))
                return who.id, {"observations": sum(map(len, told.values()))}, told

            found: dict[str, dict[str, Told]] = (await desk.look(None, RECORD, "observations.read", read)).shown
            return found

    found = ended(looked())
    rows = [
        {"unit": unit, "name": name, "counts": each is told.counts, **_shown(each)}
        for unit, names in found.items()
        for name, told in names.items()
        for each in (told.counts, *told.others)
    ]
    if as_json:
        typer.echo(json_line(rows))
        return
    table = Table(_("De"), _("Dato"), _("Valor"), _("Vale"), _("Fuente"), _("Instrumento"), _("Visto"), _("Anotado"))
    units = {"person": _("persona"), "household": _("hogar")}
    for row in rows:
        table.add_row(
            units[row["unit"]],
            cell(label("characteristics", row["name"])),
            cell(row["value"]),
            _("sí") if row["counts"] else "",
            cell(row["source"]),
            cell(label("instruments", row["instrument"])),
            row["observed_on"],
            row["recorded_at"][:10],
        )
    screen().print(table)


def _shown(each: Observation) -> dict[str, Any]:
    return {
        "value": each.value,
        "source": each.source,
        "instrument": each.instrument,
        "observed_on": each.observed_on.isoformat(),
        "recorded_at": each.recorded_at.isoformat(),
        "form": None if each.form_id is None else str(each.form_id),
    }
