"""``siis audit witnesses`` and ``log-keys``: who watches our log, what they say of it, and what they need to know."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.table import Table

from audit.verify import format_key
from gateway.cli.context import open_context
from gateway.cli.screen import cell, screen
from gateway.clock import utc_now
from gateway.runtime import load_signer
from gateway.settings import load_settings
from gateway.witnesses.asking import CONTRADICTIONS, Answered
from gateway.witnesses.policy import Witnesses
from gateway.witnesses.quorum import MISSED_ROUNDS, Standing, read_standing
from gateway.witnesses.service import Witnessing, witnesses_of
from schemas.text import _

app = typer.Typer(add_completion=False)


@app.command(help=_("Decir si un quórum de testigos firma el registro y qué contesta cada uno."))
def witnesses(
    ask: Annotated[bool, typer.Option("--ask", help=_("Preguntar ahora a cada testigo."))] = False,
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Show how it stands with the witnesses; exit 1 without a quorum, or when one contradicts our log."""
    known, standing, answers = asyncio.run(_look(ask))
    contradicted = [answer.witness.name for answer in answers if answer.outcome in CONTRADICTIONS]
    if as_json:
        typer.echo(json.dumps(_json(standing, answers), ensure_ascii=False))
    else:
        _print(known, standing, answers)
        for name in contradicted:
            typer.echo(_("{name} firmó antes un registro que este no continúa.").format(name=name), err=True)
    if standing.state == "missing" or contradicted:
        raise typer.Exit(1)


@app.command("log-keys", help=_("Mostrar las claves de verificación del registro, una por año, para los testigos."))
def log_keys(
    until: Annotated[int | None, typer.Option(help=_("Hasta qué año; por omisión el próximo."))] = None,
) -> None:
    """Print the verifier key of this year's log and of those to come, one a line, as ``siis witness log add`` takes."""
    year = utc_now().year
    signer = load_signer(load_settings())
    for log in range(year, (until or year + 1) + 1):
        verifier = signer.of(log).verifier
        typer.echo(format_key(verifier.name, verifier.kind, verifier.key))


async def _look(ask: bool) -> tuple[Witnesses | None, Standing, list[Answered]]:
    settings = load_settings()
    known = witnesses_of(settings)
    if known is None:
        return None, Standing("none"), []
    async with open_context(settings) as context:
        answers: list[Answered] = []
        if ask:
            answers = await Witnessing.of(settings, context.database, context.audit, utc_now).round()
        at = utc_now()
        grace = timedelta(seconds=MISSED_ROUNDS * settings.witness_interval_s)
        async with context.database.connection() as connection:
            return known, await read_standing(connection, known, at, grace, at), answers


def _json(standing: Standing, answers: list[Answered]) -> dict[str, Any]:
    told: dict[tuple[str, int], str] = {(each.witness.name, each.head.log): each.outcome for each in answers}
    return {
        "state": standing.state,
        "met_at": _iso(standing.met_at),
        "missing_since": _iso(standing.missing_since),
        "witnesses": [
            {
                "name": name,
                "last": None if seen is None else {**asdict(seen), "at": _iso(seen.at)},
                "answers": {str(log): outcome for (asked, log), outcome in told.items() if asked == name},
            }
            for name, seen in standing.witnesses.items()
        ],
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="seconds")


def _print(known: Witnesses | None, standing: Standing, answers: list[Answered]) -> None:
    if known is None:
        typer.echo(_("No hay testigos configurados (SIIS_WITNESSES)."))
        return
    if standing.state == "met":
        typer.echo(_("Un quórum firmó el registro: {at}").format(at=_iso(standing.met_at)))
    else:
        typer.echo(_("Falta el quórum desde: {at}").format(at=_iso(standing.missing_since)))
    table = Table(_("Testigo"), _("Última firma (UTC)"), _("Registro"), _("Entradas"), _("Respuesta de ahora"))
    for each in known.known:
        seen = standing.witnesses[each.name]
        outcomes = ", ".join(answer.outcome for answer in answers if answer.witness.name == each.name)
        last = ("", "", "") if seen is None else (_iso(seen.at) or "", str(seen.log), str(seen.size))
        table.add_row(cell(each.name), *last, cell(outcomes))
    screen().print(table)
