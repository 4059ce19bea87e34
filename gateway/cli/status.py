"""``siis status``: computes the protection status of everybody, and counts the ten achievements."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from datetime import datetime
from typing import Annotated, Literal

import typer
from rich.table import Table

from adapters.files.writing import neutral
from gateway.api.achievements import COLUMNS, achievements_json, row_json
from gateway.cli.changes import fail
from gateway.cli.context import open_context
from gateway.cli.screen import screen
from gateway.registry.achievements import Achievements, Level, Published, achievements_now
from gateway.registry.mass import Outcome
from gateway.registry.rounds import StatusRounds
from schemas.codes import code_list, label
from schemas.text import _

app = typer.Typer(help=_("Estatus de protección de todos."), no_args_is_help=True, add_completion=False)

Form = Literal["table", "csv", "json"]


@app.command(help=_("Calcular de nuevo el estatus de todos y guardar los logros de hoy."))
def recompute(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Compute everybody's status for today."""
    done = asyncio.run(_recompute())
    if as_json:
        seconds = {"reading": done.reading_s, "rules": done.rules_s, "all": done.total_s}
        typer.echo(json.dumps({"units": done.units, "changed": done.changed, "seconds": seconds}))
        return
    text = _("{units} calculados, {changed} cambiaron, en {seconds:.1f} s.")
    typer.echo(text.format(units=done.units, changed=done.changed, seconds=done.total_s))


@app.command(
    help=_("Contar los diez logros: quiénes están en protección concurrente; las cifras chicas no se muestran.")
)
def achievements(
    level: Annotated[Level, typer.Option(help=_("Por país, departamento, distrito o barrio."))] = "country",
    department: Annotated[str | None, typer.Option(help=_("Código INE del departamento."))] = None,
    district: Annotated[str | None, typer.Option(help=_("Código INE del distrito."))] = None,
    population: Annotated[str | None, typer.Option(help=_("Código de la población."))] = None,
    on: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help=_("Como se contaron al fin de este día; sin él, como están ahora.")),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help=_("table, csv o json."))] = "table",
) -> None:
    """Count the achievements."""
    if population is not None and population not in code_list("populations"):
        fail(_("Esa población no existe. Las que hay: {codes}.").format(codes=", ".join(code_list("populations"))), 2)
    found = asyncio.run(_achievements(on))
    within = {"department": department, "district": district, "population": population}
    if form == "json":
        typer.echo(json.dumps(achievements_json(found, level, **within), ensure_ascii=False))
        return
    rows = [row_json(row) for row in found.part(level, **within)]
    if form == "csv":
        writer = csv.DictWriter(sys.stdout, COLUMNS)
        writer.writeheader()
        # Names of barrios are what somebody wrote: no spreadsheet shall run them.
        writer.writerows(
            {name: neutral(cell) if isinstance(cell, str) else cell for name, cell in row.items()} for row in rows
        )
        return
    table = Table(
        _("Logro"), _("Territorio"), _("Población"), _("Identificados"), _("Con servicios del núcleo"), _("Protegidos")
    )
    for row in rows:
        place = " ".join(row[name] or "—" for name in ("department", "district", "community") if row[name] is not None)
        of = "" if row["population"] is None else label("populations", row["population"])
        counts = ["·" if row[name] is None else str(row[name]) for name in ("identified", "applicable", "concurrent")]
        table.add_row(f"{row['number']} {row['name']}", place, of, *counts)
    screen().print(table)


async def _recompute() -> Outcome:
    async with open_context() as context:
        return await StatusRounds(context.database, context.settings.data_dir).everybody("recompute")


async def _achievements(on: datetime | None) -> Achievements:
    async with open_context() as context:
        if on is not None:
            return await Published(context.database).on(on.date())
        async with context.database.connection() as connection:
            return await achievements_now(connection)
