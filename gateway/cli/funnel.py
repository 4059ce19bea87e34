"""``siis funnel``: where people fall out, counted, kept and compared by whoever runs this machine; each is an entry."""

from __future__ import annotations

import csv
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table

from consent.policy import PolicyStore
from gateway.cli.changes import ended, number
from gateway.cli.context import governance_of, open_context
from gateway.cli.rights import Json
from gateway.cli.screen import cell, json_line, screen
from gateway.commands import Done
from gateway.registry.achievements import Published
from gateway.statistics.models import Scope
from gateway.statistics.service import Statistics
from gateway.statistics.view import COLUMNS, rows
from schemas.codes import label
from schemas.text import _

app = typer.Typer(help=_("Dónde se pierden las personas."), no_args_is_help=True, add_completion=False)

_PART = 200
_Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help=_("Día en Paraguay; «until» no se incluye."))]
_Department = Annotated[str | None, typer.Option(help=_("Código del departamento (INE)."))]
_District = Annotated[str | None, typer.Option(help=_("Código del distrito (INE), de cuatro cifras."))]
_Institution = Annotated[
    str | None, typer.Option(help=_("Institución que refiere (requester) o que atiende (recipient)."))
]
_Service = Annotated[str | None, typer.Option(help=_("Código del servicio."))]
_Population = Annotated[str | None, typer.Option(help=_("Población de atención especial."))]
_Category = Annotated[str | None, typer.Option(help=_("Categoría del ciclo de vida."))]
_Snapshot = Annotated[str, typer.Argument(metavar="ID", help=_("Número de la instantánea."))]


class Kind(StrEnum):
    """What a kept funnel is for."""

    baseline = "baseline"
    follow_up = "follow_up"


@app.command(help=_("Contar el embudo de las referencias: pasos, tiempos, motivos, puertas de entrada y repeticiones."))
def show(
    department: _Department = None,
    district: _District = None,
    requester: _Institution = None,
    recipient: _Institution = None,
    service: _Service = None,
    population: _Population = None,
    category: _Category = None,
    since: _Day = None,
    until: _Day = None,
    gaps: Annotated[bool, typer.Option("--gaps", help=_("Contar también las desprotecciones sin referencia."))] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help=_("Salida en CSV."))] = False,
    as_json: Json = False,
) -> None:
    """Count a funnel."""
    scope = _scope(department, district, requester, recipient, service, population, category, since, until, gaps=gaps)
    form = "csv" if as_csv else "json"
    found = ended(_funnel(scope, form))
    if as_json:
        typer.echo(json_line(found))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows((COLUMNS, *rows(found)))
    else:
        _print(found)


@app.command(help=_("Guardar el embudo y los logros de un territorio, como línea de base o seguimiento."))
def snapshot(
    kind: Annotated[Kind, typer.Argument(metavar="CLASE", help=_("baseline o follow_up."))],
    department: _Department = None,
    district: _District = None,
    requester: _Institution = None,
    recipient: _Institution = None,
    service: _Service = None,
    population: _Population = None,
    category: _Category = None,
    since: _Day = None,
    until: _Day = None,
    as_json: Json = False,
) -> None:
    """Keep a funnel."""
    scope = _scope(department, district, requester, recipient, service, population, category, since, until)
    done = ended(_take(kind.value, scope))
    if as_json:
        typer.echo(json_line(done.answer))
        return
    entry = done.answer["receipt"]["entry_id"]
    typer.echo(_("Guardada: {id}, entrada {entry}").format(id=done.answer["id"], entry=entry))


@app.command(help=_("Mostrar las instantáneas guardadas."))
def snapshots(as_json: Json = False) -> None:
    """List what is kept."""
    found = ended(_all())
    if as_json:
        typer.echo(json_line(found))
        return
    table = Table(_("Número"), _("Clase"), _("Institución"), _("Hora (UTC)"), _("Definición"), _("Alcance"))
    for each in found:
        scope = " ".join(f"{name}={value}" for name, value in each["scope"].items())
        table.add_row(
            each["id"], each["kind"], each["institution"], each["taken_at"][:19], str(each["definition"]), cell(scope)
        )
    screen().print(table)


@app.command(help=_("Comparar dos instantáneas, con los denominadores."))
def compare(first: _Snapshot, second: _Snapshot, as_json: Json = False) -> None:
    """Compare two kept funnels."""
    found = ended(_compared(number(first), number(second)))
    if as_json:
        typer.echo(json_line(found))
        return
    table = Table(_("Paso"), _("Primera"), _("Segunda"), _("Puntos"))
    for step in found["steps"]:
        shares = step["of_previous"]
        table.add_row(step["name"], _share(shares["first"]), _share(shares["second"]), _text(shares["points"]))
    for each in found["achievements"]:
        name = label("life-cycle", each["category"])
        table.add_row(name, _share(each["first"]), _share(each["second"]), _text(each["points"]))
    screen().print(table)


def _print(found: dict[str, Any]) -> None:
    table = Table(_("Paso"), _("Llegaron"), _("Del paso anterior"), _("No siguieron"))
    for step in found["steps"]:
        ended_here = ", ".join(f"{label('funnel-endings', code)}: {_text(n)}" for code, n in step["endings"].items())
        share = "" if step["percent"] is None else f"{step['percent']} %"
        table.add_row(step["name"], _text(step["reached"]), share, cell(ended_here))
    screen().print(table)
    times = Table(_("Tiempo"), _("Referencias"), _("Mediana (horas)"), _("p90 (horas)"))
    for each in found["times"]:
        numbers = (_text(each[name]) for name in ("referrals", "median_hours", "p90_hours"))
        times.add_row(label("funnel-spans", each["span"]), *numbers)
    screen().print(times)
    lines = Table(_("Qué"), _("Referencias"))
    for each in found["reasons"]:
        what = f"{label('funnel-endings', each['ending'])}: {label('reasons', each['reason'])}"
        lines.add_row(cell(what), _text(each["referrals"]))
    for each in found["doors"]:
        lines.add_row(
            cell(_("Entró por {door}").format(door=f"{each['channel']}, {each['requester']}")), _text(each["referrals"])
        )
    for name, title in (
        ("no_shows", _("Con inasistencia")),
        ("reopened", _("Reabiertas")),
        ("repeated", _("Repetidas")),
    ):
        lines.add_row(title, _text(found[name]["referrals"]))
    screen().print(lines)


def _share(told: dict[str, Any]) -> str:
    percent = "" if told["percent"] is None else f" ({told['percent']} %)"
    return f"{_text(told['n'])} / {_text(told['of'])}{percent}"


def _text(value: float | None) -> str:
    return "—" if value is None else str(value)


def _scope(
    department: str | None,
    district: str | None,
    requester: str | None,
    recipient: str | None,
    service: str | None,
    population: str | None,
    category: str | None,
    since: datetime | None,
    until: datetime | None,
    *,
    gaps: bool = False,
) -> Scope:
    return Scope(
        department=department,
        district=district,
        requester=requester,
        recipient=recipient,
        service=service,
        population=population,
        category=category,
        since=None if since is None else since.date(),
        until=None if until is None else until.date(),
        gaps=gaps,
    )


@asynccontextmanager
async def _open() -> AsyncIterator[Statistics]:
    async with open_context() as context:
        policies = PolicyStore(context.database.engine)
        published = Published(context.database)
        yield Statistics(governance=governance_of(context), audit=context.audit, policies=policies, published=published)


async def _funnel(scope: Scope, form: str) -> dict[str, Any]:
    async with _open() as statistics:
        found, _receipt = await statistics.funnel(None, scope, form=form)
        return found


async def _take(kind: str, scope: Scope) -> Done:
    async with _open() as statistics:
        return await statistics.take(None, kind, scope)


async def _all() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with _open() as statistics:
        while True:
            after = UUID(found[-1]["id"]) if found else None
            part = await statistics.snapshots(None, after=after, limit=_PART)
            found += part
            if len(part) < _PART:
                return found


async def _compared(first: UUID, second: UUID) -> dict[str, Any]:
    async with _open() as statistics:
        found, _receipt = await statistics.compare_snapshots(None, first, second)
        return found
