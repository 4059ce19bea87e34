"""``siis audit anomalies``: what stands out in a period of the log, for a person to look at."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from gateway.api.anomalies import explanation, report_json
from gateway.cli.changes import ended, instant
from gateway.cli.context import governance_of, open_context
from gateway.cli.rights import Json, machine
from gateway.cli.screen import json_line
from gateway.dossier.anomalies import Anomalies, Finding, Report
from schemas.codes import code_list, label
from schemas.text import _, printable

app = typer.Typer(add_completion=False)


@app.command(help=_("Mostrar lo que llama la atención en un período: para mirar, no es una acusación."))
def anomalies(
    since: Annotated[str, typer.Option(help=_("Desde cuándo, por ejemplo 2026-11-01; hora de Paraguay."))],
    until: Annotated[str, typer.Option(help=_("Hasta cuándo, sin incluirlo."))],
    institution: Annotated[str | None, typer.Option(help=_("Solo los usuarios de esta institución."))] = None,
    as_json: Json = False,
) -> None:
    """Report on a period."""
    report = ended(_read(instant(since), instant(until), institution))
    if as_json:
        typer.echo(json_line(report_json(report)))
        return
    typer.echo(
        _("Entradas miradas: {n}; además {erased} con el detalle borrado.").format(
            n=report.looked_at, erased=report.unreadable
        )
    )
    typer.echo(_("Lo que sigue es para mirar, no es una acusación."))
    for rule in code_list("anomalies"):
        found = [each for each in report.findings if each.rule == rule]
        if not found:
            continue
        typer.echo(f"\n{label('anomalies', rule)}")
        typer.echo(explanation(rule))
        for finding in found:
            typer.echo(f"  {_told(finding)}")
            typer.echo("    " + " ".join(map(str, finding.entries)))
        if rule in report.more:
            typer.echo(_("  y {n} más").format(n=report.more[rule]))
    if not report.findings:
        typer.echo(_("Nada pasó de los umbrales."))


def _told(finding: Finding) -> str:
    who = finding.user or finding.client
    parts = [
        finding.institution,
        None if who is None else printable(who),
        None if finding.pseudonym is None else _("persona {pseudonym}").format(pseudonym=finding.pseudonym),
        _("{n} veces").format(n=finding.count),
        None if finding.usual is None else _("lo usual: {n}").format(n=finding.usual),
    ]
    return ", ".join(part for part in parts if part)


async def _read(since: datetime, until: datetime, institution: str | None) -> Report:
    async with open_context() as context:
        report = Anomalies(
            governance=governance_of(context), audit=context.audit, vault=context.vault, epochs=context.epochs
        )
        return await report.report(since, until, institution, machine())
