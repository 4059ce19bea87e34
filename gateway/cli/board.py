"""``siis board``: the boards of social protection (Mesas) and who sits on them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from rich.table import Table

from gateway.boards import store
from gateway.boards.service import NewBoard, adding, ending, seating, unseating
from gateway.boards.store import Board, Seat
from gateway.cli.changes import carry_out, number
from gateway.cli.context import open_context
from gateway.cli.screen import cell, json_line, screen
from schemas.text import _

app = typer.Typer(help=_("Mesas de Protección Social."), no_args_is_help=True, add_completion=False)

Code = Annotated[str, typer.Argument(metavar="MESA", help=_("Código de la Mesa."))]
Institution = Annotated[str, typer.Option(help=_("Código de la institución, por ejemplo MDS."))]
Json = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]


@app.command(help=_("Agregar la Mesa de un departamento o de un distrito."))
def add(
    code: Code,
    name: Annotated[str, typer.Option(help=_("Nombre de la Mesa."))],
    department: Annotated[str, typer.Option(help=_("Código INE del departamento, de dos cifras."))],
    institution: Institution,
    district: Annotated[
        str | None, typer.Option(help=_("Código INE del distrito, de cuatro cifras; si falta, todo el departamento."))
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a board."""
    names = {"es": name, "en": name}
    new = NewBoard(code=code, names=names, department=department, district=district, institution=institution)
    _tell(carry_out(adding(new)), as_json)


@app.command(help=_("Dar por terminada una Mesa."))
def end(code: Code, as_json: Json = False) -> None:
    """End a board."""
    _tell(carry_out(ending(code)), as_json)


@app.command("list", help=_("Mostrar las Mesas."))
def list_(as_json: Json = False) -> None:
    """Show the boards."""
    found = asyncio.run(_boards())
    if as_json:
        typer.echo(json_line([each._asdict() for each in found]))
        return
    table = Table(_("Código"), _("Nombre"), _("Departamento"), _("Distrito"), _("Institución"))
    for each in found:
        table.add_row(*map(cell, (each.code, each.names["es"], each.department, each.district or "", each.institution)))
    screen().print(table)


@app.command(help=_("Dar un lugar en una Mesa; su institución le otorga además el rol board-member."))
def seat(
    code: Code,
    user: Annotated[str, typer.Argument(metavar="USUARIO", help=_("Usuario de la institución."))],
    institution: Institution,
    as_json: Json = False,
) -> None:
    """Give somebody a seat."""
    _tell(carry_out(seating(code, institution, user)), as_json)


@app.command(help=_("Quitar un lugar en una Mesa."))
def unseat(
    code: Code,
    seat_id: Annotated[str, typer.Argument(metavar="ID", help=_("Número, como lo muestra la lista."))],
    as_json: Json = False,
) -> None:
    """End a seat."""
    _tell(carry_out(unseating(code, number(seat_id))), as_json)


@app.command(help=_("Mostrar quiénes integran una Mesa."))
def members(code: Code, as_json: Json = False) -> None:
    """Show who sits on a board."""
    held = asyncio.run(_members(code))
    if as_json:
        typer.echo(json_line([each._asdict() for each in held]))
        return
    table = Table(_("Número"), _("Institución"), _("Usuario"), _("Desde"))
    for each in held:
        table.add_row(str(each.id), *map(cell, (each.institution, each.user, f"{each.added_at:%Y-%m-%d}")))
    screen().print(table)


async def _boards() -> list[Board]:
    async with open_context() as context, context.database.connection() as connection:
        return await store.all_boards(connection)


async def _members(code: str) -> list[Seat]:
    async with open_context() as context, context.database.connection() as connection:
        return await store.seated(connection, code)


def _tell(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(said))
        return
    typer.echo(_("Hecho: {id}, entrada {entry}").format(id=said["id"], entry=said["receipt"]["entry_id"]))
