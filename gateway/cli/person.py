"""``siis person``: joins records found to be one person, parts them again, and shows what was joined."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from gateway.cli.changes import ended, fail
from gateway.cli.context import governance_of, open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.governance.merges import Merges
from gateway.governance.people import Named
from schemas.codes import label
from schemas.text import _, printable

app = typer.Typer(
    help=_("Personas registradas más de una vez: unirlas y separarlas."), no_args_is_help=True, add_completion=False
)

Json = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]
Absorbed = Annotated[
    str,
    typer.Argument(metavar="ABSORBIDA", help=_("Número de la persona que resultó ser otra, como local:1234567890.")),
]
T = TypeVar("T")


@app.command(help=_("Decir que dos registros son la misma persona; los números van como cedula:… local:… o siis:…."))
def merge(
    survivor: Annotated[str, typer.Argument(metavar="PERSONA", help=_("Número de la persona que queda."))],
    absorbed: Absorbed,
    reason: Annotated[str, typer.Option(help=_("Código del motivo."))],
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help=_("Se comprobó, aunque la fecha de nacimiento o el sexo no coincidan."))
    ] = False,
    as_json: Json = False,
) -> None:
    """Merge two persons."""
    one, other = _named(survivor), _named(absorbed)
    done = _at_desk(lambda desk: desk.merge(None, one, other, reason=reason, confirmed=confirmed))
    _tell(done.answer, _("Unidas: {other} es ahora la misma persona."), as_json)


@app.command(help=_("Separar a quien se unió con otra persona: cada una queda como estaba."))
def unmerge(
    absorbed: Absorbed,
    reason: Annotated[str, typer.Option(help=_("Código del motivo."))],
    as_json: Json = False,
) -> None:
    """Part two persons again."""
    other = _named(absorbed)
    done = _at_desk(lambda desk: desk.unmerge(None, other, reason=reason))
    _tell(done.answer, _("Separadas: {other} queda otra vez por sí misma."), as_json)


@app.command(help=_("Mostrar los números de una persona y con quién se la unió; queda en el registro."))
def show(
    person: Annotated[str, typer.Argument(metavar="PERSONA", help=_("Un número cualquiera de la persona."))],
    as_json: Json = False,
) -> None:
    """Show the identifiers of a person and the history of merges."""
    who = _named(person)
    shown: dict[str, Any] = _at_desk(lambda desk: desk.show(None, who)).shown
    if as_json:
        typer.echo(json_line(shown))
        return
    typer.echo(_("Persona: {id}").format(id=shown["id"]))
    for each in shown["identifiers"]:
        typer.echo(printable(f"  {each['system']}: {each['value']}"))
    table = Table(_("Qué"), _("Persona"), _("Era"), _("Cuándo"), _("Quién"), _("Motivo"))
    for row in shown["history"]:
        table.add_row(
            _("unidas") if row["undoes"] is None else _("separadas"),
            row["survivor"],
            row["absorbed"],
            row["at"][:16],
            cell(row["by"]),
            cell(label("merge-reasons", row["reason"])),
        )
    screen().print(table)


@app.command(
    "stand-ins",
    help=_(
        "Mostrar a quién registró una ficha en lugar de una persona protegida de quien la envió; queda en el registro."
    ),
)
def stand_ins(as_json: Json = False) -> None:
    """List who stands in for somebody protected; merging the two is what decides."""
    rows: list[dict[str, Any]] = _at_desk(lambda desk: desk.stand_ins(None)).shown
    if as_json:
        typer.echo(json_line(rows))
        return
    table = Table(_("Persona"), _("En su lugar"), _("Ficha"), _("Cuándo"))
    for row in rows:
        table.add_row(row["person"], row["stand_in"], row["form"], row["at"][:16])
    screen().print(table)


def _named(text: str) -> Named:
    system, colon, value = text.rpartition(":")
    if not colon:
        fail(_("El número va con su sistema, como cedula:1234567 o local:1234567890."), 2)
    return Named(system, value)


def _at_desk(do: Callable[[Merges], Coroutine[Any, Any, T]]) -> T:
    """Do something for whoever runs this machine; ends the command when it is refused."""

    async def done() -> T:
        async with open_context() as context:
            return await do(Merges(governance_of(context), context.vault, audit=context.audit))

    return ended(done())


def _tell(answer: dict[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(answer))
        return
    typer.echo(printable(sentence.format(**answer)))
    typer.echo(_("Entrada de auditoría: {entry}").format(entry=answer["receipt"]["entry_id"]))
