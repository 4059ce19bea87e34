"""``siis guidance``: which services there are for somebody like this, in words to read aloud; nobody is named."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.api.guidance import advice_json
from gateway.cli.changes import ended
from gateway.cli.screen import json_line
from gateway.guidance.models import Advice, Description
from gateway.guidance.service import Guidance
from gateway.runtime import open_runtime
from gateway.settings import load_settings
from schemas.text import _, printable

app = typer.Typer(add_completion=False)


@app.command(help=_("Decir a qué servicios puede recurrir alguien, dónde y con qué papeles, sin decir quién es."))
def guidance(
    age: Annotated[int | None, typer.Option(min=0, max=130, help=_("Edad en años."))] = None,
    mark: Annotated[
        list[str] | None, typer.Option(help=_("Condición de la que depende un servicio, por ejemplo pregnant."))
    ] = None,
    need: Annotated[list[str] | None, typer.Option(help=_("Ruta de servicios, por ejemplo food-security."))] = None,
    district: Annotated[str | None, typer.Option(help=_("Distrito, con el código del INE."))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Give guidance for a description."""
    described = Description(age=age, marks=frozenset(mark or ()), needs=frozenset(need or ()), district=district)
    advice = ended(_describe(described))
    if as_json:
        typer.echo(json_line({"services": [advice_json(each) for each in advice]}))
        return
    for each in advice:
        typer.echo("\n".join(printable(line) for line in _lines(each)))
    if not advice:
        typer.echo(_("Con eso no hay un servicio que corresponda por sí solo: pregunte en la UTGS."))


async def _describe(described: Description) -> list[Advice]:
    async with open_runtime(load_settings()) as runtime:
        service: Guidance = runtime.guidance
        return await service.describe(described)


def _lines(each: Advice) -> list[str]:
    lines = [f"{each.name} ({each.institution_name}): {each.why}"]
    if each.papers:
        lines.append("  " + _("Qué llevar: {papers}").format(papers="; ".join(each.papers)))
    lines += [
        "  " + _("Dónde: {place}").format(place=", ".join(filter(None, (place.name, place.address, place.hours))))
        for place in each.places
    ]
    lines.append("  " + _("Responde en {n} días como máximo.").format(n=each.response_days))
    return lines
