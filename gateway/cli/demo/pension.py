"""``siis demo pension``: applicants of the universal pension, crossed over nine simulated institutions."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from adapters.connections import secret_places
from adapters.manifest import load_manifest
from adapters.registry import SHIPPED
from adapters.simulator import pension_cases
from gateway import embedded
from gateway.cli.context import open_context
from gateway.cli.crossing import advice_json, official, print_advice
from gateway.cli.db import bring_up
from gateway.cli.demo.processes import DidNotStart, Processes
from gateway.cli.population import register_population
from gateway.cli.screen import json_line, screen
from gateway.crossing.service import Crossing
from gateway.runtime import Runtime, open_runtime
from gateway.settings import Settings, load_settings
from gateway.vault import write_secret
from schemas.text import _

PERSONS, SEED = 600, 1
# The population these applicants are registered as; the number of the law.
_APPLICANTS = 7322
INSTITUTIONS = (
    "identificaciones",
    "registro-civil",
    "ips",
    "senadis",
    "indi",
    "migraciones",
    "mds-padron",
    "sfp",
    "dnit",
)


def pension(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Cross the facts about every applicant; exit 1 when a fact could not be had."""
    settings = load_settings()
    if not settings.embedded:
        typer.echo(_("La demostración usa el servidor incluido: quite SIIS_DATABASE_URL."), err=True)
        raise typer.Exit(2)
    was_running = embedded.status(settings.data_dir) is not None
    processes = Processes(settings.data_dir / "demo" / "logs")
    try:
        told = _play(settings, processes, screen(stderr=as_json))
    except DidNotStart as error:
        typer.echo(_("No se inició {name}; vea {log}").format(name=error.name, log=error.log), err=True)
        raise typer.Exit(1) from None
    finally:
        processes.end()
        if not was_running:
            embedded.stop(settings.data_dir)
    if as_json:
        typer.echo(json_line(told))
    if any(applicant["missing"] for applicant in told["applicants"]):
        raise typer.Exit(1)


def _play(settings: Settings, processes: Processes, console: Console) -> dict[str, Any]:
    _say(console, _("Se inician nueve instituciones simuladas; sus personas son inventadas."))
    folder = settings.data_dir / "demo"
    for name in INSTITUTIONS:
        state = str((folder / f"{name}.sqlite").resolve())
        processes.start_institution(name, ["--persons", str(PERSONS), "--seed", str(SEED), "--state", state])
    bring_up(settings, demonstration=True)
    connections = {}
    for name in INSTITUTIONS:
        item = processes.institution(name)
        connections[name] = {"address": item.address} | ({"host_key": item.host_key} if item.host_key else {})
    settings.connections_file.write_text(yaml.safe_dump(connections), encoding="utf-8")
    password = os.environ.get("SIIS_SIM_PASSWORD", "simulated-password")
    for name in INSTITUTIONS:
        content = load_manifest(SHIPPED / f"{name}.yaml")
        for block, place in secret_places(content):
            write_secret(settings.producer_secrets_dir / content.source.content[block][place], password.encode())
    return asyncio.run(_cross(settings, console))


async def _cross(settings: Settings, console: Console) -> dict[str, Any]:
    async with open_context(settings) as context:
        applicants = list(pension_cases.households())
        await register_population(context, applicants, len(applicants), _APPLICANTS, lambda _done: None)
    verdicts: Counter[str] = Counter()
    told = []
    async with open_runtime(settings) as runtime:
        taken = await _take_registers(runtime, console)
        crossing, caller = Crossing(runtime.exchange), official("MDS")
        for case in pension_cases.CASES:
            cedula = case.person.cedula or ""
            advice, name = await crossing.pension(caller, cedula, case.shows_certificate)
            print_advice(console, f"{cedula} {name}", advice)
            verdicts[advice.verdict] += 1
            told.append({"case": case.name, "cedula": cedula, "name": name, **advice_json(advice)})
    _say(console, _("Es un consejo: decide una persona. Cada dato quedó registrado: siis audit show"))
    return {"applicants": told, "verdicts": dict(verdicts), "registers": taken}


async def _take_registers(runtime: Runtime, console: Console) -> list[dict[str, Any]]:
    taken = []
    for adapter in runtime.adapters.taking():
        if not adapter.connected:
            continue
        for dataset in sorted(adapter.registers):
            while (intake := await runtime.registers.take(adapter, dataset)).outcome in ("taken", "refused"):
                text = _("{adapter}: {name}, {rows} filas, {rejected} rechazadas")
                if intake.outcome == "refused":
                    text = _("{adapter}: {name} no se toma, {rows} filas, {rejected} rechazadas")
                counts = {"rows": intake.rows, "rejected": intake.rejected}
                _say(console, text.format(adapter=adapter.name, name=intake.name, **counts))
                taken.append(
                    {
                        "adapter": adapter.name,
                        "name": intake.name,
                        "outcome": intake.outcome,
                        "rows": intake.rows,
                        "rejected": intake.rejected,
                    }
                )
    return taken


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
