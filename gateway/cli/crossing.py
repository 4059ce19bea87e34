"""``siis crossing``: what several institutions say of an applicant, added up for the official who decides."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Any

import typer
from rich.console import Console

from consent.models import Caller
from gateway import errors
from gateway.cli.screen import json_line, screen
from gateway.clock import local_day
from gateway.crossing.models import Advice
from gateway.crossing.pension import UNASKED
from gateway.crossing.service import Crossing
from gateway.runtime import open_runtime
from gateway.settings import load_settings
from schemas.codes import label
from schemas.text import _, printable

app = typer.Typer(help=_("Cruces de datos para quien decide."), no_args_is_help=True, add_completion=False)


@app.callback()
def _root() -> None:
    """Hold the crossings as commands, however few there are."""


@app.command("pension", help=_("Cruzar lo que se sabe de quien pide la pensión universal; decide una persona."))
def pension(
    cedula: Annotated[str, typer.Argument(metavar="CEDULA", help=_("Cédula de quien la pide."))],
    certificate: Annotated[
        str | None, typer.Option(metavar="NUMBER", help=_("Número del certificado de discapacidad que presenta."))
    ] = None,
    institution: Annotated[str, typer.Option(help=_("Institución que pregunta."))] = "MDS",
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Cross the facts about one applicant; exit 1 when the facts are not complete."""
    try:
        advice, name = asyncio.run(_cross(institution, cedula, certificate))
    except errors.BadRequest as error:
        typer.echo(_("El pedido no es válido: {code} ({field})").format(code=error.code, field=error.pointer), err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json_line({"name": name, **advice_json(advice)}))
    else:
        print_advice(screen(), f"{cedula} {name}", advice)
    if advice.verdict == "incomplete":
        raise typer.Exit(1)


async def _cross(institution: str, cedula: str, certificate: str | None) -> tuple[Advice, str]:
    async with open_runtime(load_settings()) as runtime:
        return await Crossing(runtime.exchange).pension(official(institution), cedula, certificate)


def official(institution: str) -> Caller:
    """Return whoever sits at this machine as an official of an institution: a claim, and recorded as such."""
    return Caller(
        client_id="siis-cli", institution=institution, user=f"uid {os.getuid()}", roles=frozenset({"operator"})
    )


def advice_json(advice: Advice) -> dict[str, Any]:
    """Return an advice as JSON: the verdict, every finding with its source, date and receipt, and what is missing."""
    return {
        "verdict": advice.verdict,
        "findings": [
            {
                "code": finding.code,
                "weight": finding.weight,
                "text": finding.text,
                "dataset": finding.answer.dataset,
                "institution": finding.answer.institution,
                "system": finding.answer.system,
                "at": None if finding.answer.at is None else finding.answer.at.isoformat(),
                "receipt": finding.answer.receipt,
            }
            for finding in advice.findings
        ],
        "absent": [
            {"dataset": answer.dataset, "institution": answer.institution, "receipt": answer.receipt}
            for answer in advice.absent
        ],
        "missing": list(advice.missing),
        "unasked": list(UNASKED),
    }


def print_advice(console: Console, who: str, advice: Advice) -> None:
    """Show an advice to a person: the verdict first, then each fact with its weight, source and day."""
    verdicts = {
        "meets": _("reúne los requisitos que se pudieron comprobar"),
        "does-not-meet": _("no reúne los requisitos"),
        "look": _("hay algo que una persona debe mirar"),
        "incomplete": _("faltan datos"),
    }
    weights = {"for": "+", "against": "−", "look": "?", "note": "·"}
    console.print(printable(f"{who}: {verdicts[advice.verdict]}"), markup=False, highlight=False, soft_wrap=True)
    for finding in advice.findings:
        source = finding.answer
        when = "" if source.at is None else f" {local_day(source.at):%d/%m/%Y}"
        origin = f"{source.institution} ({source.system or source.dataset}{when})"
        line = f"  {weights[finding.weight]} {finding.text} — {origin}"
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
    if advice.absent:
        names = ", ".join(f"{label('datasets', answer.dataset)} ({answer.institution})" for answer in advice.absent)
        line = "  · " + _("No consta en: {names}.").format(names=names)
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
    unasked = {"cattle": _("Ninguna fuente dice si tiene más de 30 cabezas de ganado.")}
    for missing in (*advice.missing, *(unasked[code] for code in UNASKED)):
        line = "  ! " + _("Falta: {what}").format(what=missing)
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
