"""``siis usage``: who used a person's data, for who attends a person without a portal; every look is an entry."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from audit.errors import SubjectErased
from consent.people import PARAGUAY
from gateway.api.usage import page_json
from gateway.cli.changes import ended, fail
from gateway.cli.context import governance_of, open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.governance.people import Named
from gateway.governance.usage import Asked, Page, Usage
from gateway.governance.usage_words import Row
from schemas.text import _, printable

app = typer.Typer(help=_("Quién usó los datos de una persona."), no_args_is_help=True, add_completion=False)

_PART = 200
_FORMATS = ["%Y-%m-%d"]


@app.callback()
def _root() -> None:
    """Keep the name of the one command."""


@app.command(help=_("Mostrar quién usó los datos de una persona, lo más nuevo primero; mirarlo queda registrado."))
def show(
    cedula: Annotated[str, typer.Argument(metavar="CEDULA", help=_("Cédula de la persona."))],
    representative: Annotated[str | None, typer.Option(help=_("Cédula de quien viene en su lugar."))] = None,
    since: Annotated[datetime | None, typer.Option(formats=_FORMATS, help=_("Desde este día, incluido."))] = None,
    until: Annotated[datetime | None, typer.Option(formats=_FORMATS, help=_("Hasta este día, excluido."))] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help=_("También lo que una protección oculta: no lo entregue a nadie más."))
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Show who used a person's data."""
    who, other = Named("cedula", cedula), None if representative is None else Named("cedula", representative)
    asked = Asked(limit=_PART, since=_day(since), until=_day(until), face="command-line", whole=whole)
    try:
        pages = ended(_pages(who, other, asked))
    except SubjectErased:
        fail(_("Los datos de esta persona en el registro se borraron: no queda nada que mostrar."), 1)
    if as_json:
        first = page_json(pages[0])
        first["usage"] = [line for page in pages for line in page_json(page)["usage"]]
        typer.echo(json_line({**first, "next": None}))
        return
    table = Table(
        _("Hora"), _("Quién"), _("Qué hizo"), _("Datos"), _("Para qué y con qué base"), _("Lugar en el registro")
    )
    for row in [row for page in pages for row in page.rows]:
        table.add_row(*map(cell, _cells(row)))
    screen().print(table)
    for row in pages[0].registers:
        holder = row.data.dataset.title if row.data else ""
        typer.echo(f"{_local(row)}  {row.text}: {printable(holder)}")


def _cells(row: Row) -> list[str]:
    fields = ", ".join(field.title for field in row.data.fields) if row.data else ""
    data = f"{row.data.dataset.title}: {fields}".rstrip(": ") if row.data else ""
    why = [coded.title for coded in (row.purpose, row.basis) if coded is not None]
    if row.norm:
        why.append(row.norm)
    if row.on_behalf_of is not None:
        why.append(_("en nombre de: {institution}").format(institution=row.on_behalf_of.title))
    if row.emergency:
        why.append(_("EMERGENCIA"))
    if row.hidden is not None:
        why.append(_("OCULTO A OTROS"))
    place = "…" if row.use.index is None else f"{row.use.index}/{row.use.log}"
    return [_local(row), row.who, row.text, data, "; ".join(why), place]


def _local(row: Row) -> str:
    return f"{row.use.at.astimezone(PARAGUAY):%Y-%m-%d %H:%M}"


def _day(given: datetime | None) -> datetime | None:
    return None if given is None else given.replace(tzinfo=PARAGUAY)


async def _pages(who: Named, other: Named | None, asked: Asked) -> list[Page]:
    pages: list[Page] = []
    async with open_context() as context:
        usage = Usage(governance_of(context), context.vault, audit=context.audit, epochs=context.epochs)
        part = asked
        while True:
            pages.append(await usage.read(None, who, part, representative=other))
            if pages[-1].next is None:
                return pages
            part = replace(asked, after=pages[-1].next)
