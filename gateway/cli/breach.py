"""``siis breach``: breaches of personal data, their 72 hours, and the list of persons that the log gives."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table

from gateway.api.breaches import breach_json
from gateway.cli.changes import fail, instant, number
from gateway.cli.context import Context, governance_of, open_context
from gateway.cli.rights import Json, Number, ended, machine, read_text
from gateway.cli.screen import cell, json_line, screen
from gateway.clock import PARAGUAY, utc_now
from gateway.governance.service import Work
from gateway.rights.breaches import Breaches
from gateway.rights.models import Breach, NewBreach
from schemas.codes import label
from schemas.text import _, printable

app = typer.Typer(help=_("Vulneraciones de datos personales."), no_args_is_help=True, add_completion=False)

_HOUR = timedelta(hours=1)
_PART = 200


class Whom(StrEnum):
    """Who is told of a breach."""

    agency = "agency"
    people = "people"


@app.command("open", help=_("Abrir el registro de una vulneración; las 72 horas corren desde que se la conoce."))
def open_(
    kind: Annotated[str, typer.Argument(metavar="CLASE", help=_("Código de lo que pasó."))],
    what: Annotated[Path, typer.Option(help=_("Archivo que cuenta lo que pasó."))],
    since: Annotated[str, typer.Option(help=_("Desde cuándo, por ejemplo 2026-11-20T08:00; hora de Paraguay."))],
    known_at: Annotated[str, typer.Option(help=_("Cuándo se la conoció."))],
    until: Annotated[str | None, typer.Option(help=_("Hasta cuándo; si falta, continúa."))] = None,
    institution: Annotated[
        str | None, typer.Option(help=_("De qué institución; si falta, de la pasarela misma."))
    ] = None,
    client: Annotated[str | None, typer.Option(help=_("Solo lo que pasó por este sistema."))] = None,
    dataset: Annotated[list[str] | None, typer.Option(help=_("Solo este conjunto; se puede repetir."))] = None,
    as_json: Json = False,
) -> None:
    """Open a breach."""
    new = NewBreach(
        kind=kind,
        what=read_text(what) or "",
        since=instant(since),
        known_at=instant(known_at),
        until=None if until is None else instant(until),
        party=institution,
        client=client,
        datasets=frozenset(dataset or ()),
    )
    said = _do(lambda breaches: breaches.opening(new))
    if as_json:
        typer.echo(json_line(said))
        return
    due = datetime.fromisoformat(said["due_at"]).astimezone(PARAGUAY)
    typer.echo(
        _("Vulneración {id}: avisar hasta el {due}, hora de Paraguay.").format(
            id=said["breach"], due=f"{due:%d/%m/%Y %H:%M}"
        )
    )


@app.command(help=_("Extraer del registro de auditoría la lista de personas; de nuevo agrega las que falten."))
def affected(breach_id: Number, as_json: Json = False) -> None:
    """Draw the list of persons."""
    which = number(breach_id)
    said = _do(lambda breaches: breaches.drawing(which))
    if as_json:
        typer.echo(json_line(said))
        return
    typer.echo(
        _("Personas: {n}; además {erased} cuyos datos fueron borrados.").format(
            n=said["affected"], erased=said["erased"]
        )
    )


@app.command(help=_("Escribir la lista en un archivo CSV para avisar a las personas; queda registrado."))
def export(
    breach_id: Number,
    file: Annotated[Path, typer.Argument(metavar="ARCHIVO", help=_("Archivo nuevo, solo para quien lo crea."))],
) -> None:
    """Write the list of persons to notify."""
    if file.exists():
        fail(_("El archivo {path} ya existe: elija otro nombre.").format(path=file), 2)
    ended(_export(number(breach_id), file))
    typer.echo(_("Lista escrita en {file}.").format(file=file))


@app.command(help=_("Anotar que se avisó a la Agencia o a las personas."))
def notified(
    breach_id: Number,
    whom: Annotated[Whom, typer.Argument(metavar="A_QUIÉN", help=_("agency o people."))],
    at: Annotated[str | None, typer.Option(help=_("Cuándo; si falta, ahora."))] = None,
    as_json: Json = False,
) -> None:
    """Record a notification."""
    which, moment = number(breach_id), None if at is None else instant(at)
    _tell(_do(lambda breaches: breaches.telling(which, whom.value, moment)), as_json)


@app.command(help=_("Cerrar el registro, con las medidas tomadas."))
def close(
    breach_id: Number,
    measures: Annotated[Path, typer.Option(help=_("Archivo que cuenta las medidas."))],
    as_json: Json = False,
) -> None:
    """Close a breach."""
    which, text = number(breach_id), read_text(measures) or ""
    _tell(_do(lambda breaches: breaches.closing(which, text)), as_json)


@app.command("list", help=_("Mostrar las vulneraciones."))
def list_(
    institution: Annotated[str | None, typer.Option(help=_("Solo las de esta institución."))] = None,
    as_json: Json = False,
) -> None:
    """Show breaches."""
    found = ended(_all(institution))
    if as_json:
        typer.echo(json_line([breach_json(item) for item in found]))
        return
    table = Table(_("Número"), _("Clase"), _("Institución"), _("Personas"), _("Plazo"))
    for item in found:
        count = "" if item.affected is None else str(item.affected)
        table.add_row(str(item.id), label("breach-kinds", item.kind), item.institution, count, cell(_left(item)))
    screen().print(table)


@app.command(help=_("Mostrar una vulneración y las horas que quedan."))
def show(breach_id: Number, as_json: Json = False) -> None:
    """Show a breach with the hours left."""
    found = ended(_find(number(breach_id)))
    if as_json:
        hours = round((found.due_at - utc_now()) / _HOUR, 1)
        typer.echo(
            json_line({**breach_json(found), "hours_left": hours, "what": found.what, "measures": found.measures})
        )
        return
    typer.echo(f"{label('breach-kinds', found.kind)}, {found.institution}: {_left(found)}")
    typer.echo(printable(found.what or ""))
    if found.affected is not None:
        typer.echo(
            _("Personas: {n}; además {erased} cuyos datos fueron borrados.").format(
                n=found.affected, erased=found.erased
            )
        )
    if found.measures:
        typer.echo(printable(found.measures))


def _left(found: Breach) -> str:
    """Say how the 72 hours stand: closed, told in time or late, or how many are left."""
    told = (found.notified_agency_at, found.notified_people_at)
    if found.closed_at is not None:
        return _("cerrada")
    if told[0] is not None and told[1] is not None:
        return _("avisada en plazo") if max(told[0], told[1]) <= found.due_at else _("avisada fuera de plazo")
    left = (found.due_at - utc_now()) / _HOUR
    if left < 0:
        return _("VENCIDA hace {n} horas").format(n=int(-left))
    return _("quedan {n} horas").format(n=int(left))


def _breaches(context: Context) -> Breaches:
    governance = governance_of(context)
    return Breaches(governance=governance, audit=context.audit, vault=context.vault, epochs=context.epochs)


def _do(make: Callable[[Breaches], Work]) -> dict[str, Any]:
    async def done() -> dict[str, Any]:
        async with open_context() as context:
            return await governance_of(context).change_here(make(_breaches(context)))

    return ended(done())


async def _export(breach_id: UUID, file: Path) -> None:
    async with open_context() as context:
        lines, _receipt = await _breaches(context).exporting(breach_id, None, machine())
        # Never an existing file: its mode could be anything.
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
            async for group in lines:
                written.write(group)


async def _all(institution: str | None) -> list[Breach]:
    found: list[Breach] = []
    async with open_context() as context:
        breaches = _breaches(context)
        while True:
            part = await breaches.search(institution, after=found[-1].id if found else None, limit=_PART)
            found += part
            if len(part) < _PART:
                return found


async def _find(breach_id: UUID) -> Breach:
    async with open_context() as context:
        return await _breaches(context).find(breach_id, None)


def _tell(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(said))
        return
    typer.echo(_("Hecho: {id}, entrada {entry}").format(id=said["breach"], entry=said["receipt"]["entry_id"]))
