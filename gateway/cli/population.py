"""``siis population``: a synthetic population to try things on."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from adapters.simulator.population import SimHousehold
from adapters.simulator.population import generate as simulate
from gateway import evidence
from gateway.cli.context import Context, open_context
from gateway.cli.screen import screen
from gateway.clock import local_day, utc_now
from gateway.intake import population
from gateway.registry.classify import classify
from gateway.registry.rounds import StatusRounds
from schemas.text import _

app = typer.Typer(help=_("Población sintética."), no_args_is_help=True, add_completion=False)


@app.command(help=_("Generar personas y hogares que no existen y registrarlos."))
def generate(
    persons: Annotated[int, typer.Option(min=1, max=10_000_000, help=_("Cuántas personas."))] = 1000,
    seed: Annotated[int, typer.Option(min=0, help=_("Semilla: la misma da las mismas personas."))] = 1,
) -> None:
    """Generate a population and register it, all of it or nothing."""
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(_("Registrando personas"), total=persons)
        try:
            fresh = asyncio.run(_generate(persons, seed, lambda done: progress.update(task, completed=done)))
        except population.AlreadyLoaded as error:
            text = _("La semilla {seed} ya está registrada con {persons} personas; use otra semilla.")
            typer.echo(text.format(seed=seed, persons=error.persons), err=True)
            raise typer.Exit(1) from None
    if not fresh:
        typer.echo(_("Esta población ya estaba registrada."))
        return
    seconds = time.monotonic() - started
    typer.echo(_("{persons} personas registradas en {seconds:.1f} s.").format(persons=persons, seconds=seconds))


async def _generate(persons: int, seed: int, progress: population.Progress) -> bool:
    async with open_context() as context:
        return await register_population(context, simulate(persons, seed), persons, seed, progress)


async def register_population(
    context: Context, households: Iterable[SimHousehold], persons: int, seed: int, progress: population.Progress
) -> bool:
    """Register a population with its entry in the log, and compute its status; False when it was there already."""
    at = utc_now()
    async with context.database.transaction() as connection:
        fresh = await population.load(
            connection,
            context.vault,
            households,
            persons=persons,
            seed=seed,
            today=local_day(at),
            progress=progress,
        )
        if fresh:
            entry = evidence.entry(
                "population.registered",
                "done",
                at=at,
                policy_version="none",
                actor={"channel": "command-line"},
                what={"persons": persons, "seed": seed, "instrument": "synthetic-form"},
            )
            await context.audit.stage(connection, entry)
    if fresh:
        await StatusRounds(context.database, context.settings.data_dir).everybody("population")
    return fresh


@app.command(help=_("Clasificar a todos: quién está protegido y qué falta, por servicio."))
def status(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Show reached and missing services of the whole registry."""
    reached, missing = asyncio.run(_status())
    codes = sorted(reached.keys() | missing.keys())
    if as_json:
        counts = {code: {"reached": reached[code], "missing": missing[code]} for code in codes}
        typer.echo(json.dumps(counts))
        return
    table = Table(_("Servicio"), _("Alcanzado"), _("Falta"))
    for code in codes:
        table.add_row(code, str(reached[code]), str(missing[code]))
    screen().print(table)


async def _status() -> tuple[Counter[str], Counter[str]]:
    reached: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    async with open_context() as context, context.database.connection() as connection:
        async for item in classify(connection):
            for code, state in item.services.items():
                (reached if state == "protected" else missing)[code] += 1
    return reached, missing
