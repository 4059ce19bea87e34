"""``siis demo``: the whole idea on one machine, with real processes, real sockets and the real database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from adapters.http import client_for
from adapters.simulator.population import generate as simulate
from gateway import embedded
from gateway.cli.audit_log import report_json, verify_log
from gateway.cli.context import Context, open_context
from gateway.cli.db import bring_up
from gateway.cli.demo import demand, disclosures, orientation, outcome, outreach, prepare
from gateway.cli.demo.cancelling import take_back
from gateway.cli.demo.clients import callers, key_file, register
from gateway.cli.demo.pension import pension
from gateway.cli.demo.processes import DidNotStart, Institution, Processes, free_port
from gateway.cli.demo.report import print_next, print_report, summary
from gateway.cli.demo.story import Story
from gateway.cli.population import register_population
from gateway.cli.screen import screen
from gateway.identity.models import Issuer
from gateway.settings import Settings, load_settings
from gateway.vault import write_secret
from schemas.text import _

PERSONS, SEED = 1000, 1
_INSTITUTIONS = ("identificaciones", "identificaciones-soap", "mds", "mspbs", "minna")
_SECRETS = ("identificaciones_password", "mds_password", "mspbs_api_key", "minna_password")
_READY_WITHIN_S = 90.0
_SETTLED_WITHIN_S = 60.0


app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True, help=_("Mostrar todo el recorrido con instituciones simuladas."))
def demo(
    context: typer.Context,
    leave: Annotated[bool, typer.Option("--exit", help=_("Terminar al final en vez de seguir sirviendo."))] = False,
    as_json: Annotated[bool, typer.Option("--json", help=_("Resumen en JSON en la última línea."))] = False,
) -> None:
    """Show the whole journey with five simulated institutions; exit 1 when a referral was lost or the log is broken."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()
    if not settings.embedded:
        typer.echo(_("La demostración usa el servidor incluido: quite SIIS_DATABASE_URL."), err=True)
        raise typer.Exit(2)
    console = screen(stderr=as_json)
    was_running = embedded.status(settings.data_dir) is not None
    try:
        told = asyncio.run(_demo(settings, console, leave=leave, as_json=as_json))
    except DidNotStart as error:
        typer.echo(_("No se inició {name}; vea {log}").format(name=error.name, log=error.log), err=True)
        raise typer.Exit(1) from None
    finally:
        # Who starts something puts it away; a server that ran before goes on.
        if leave and not was_running:
            embedded.stop(settings.data_dir)
    if told["lost"] or not told["audit"]["ok"]:
        raise typer.Exit(1)


app.command("pension", help=_("Cruzar los datos de quienes piden la pensión universal."))(pension)


async def _demo(settings: Settings, console: Console, *, leave: bool, as_json: bool) -> dict[str, Any]:
    started = time.monotonic()
    processes = Processes(settings.data_dir / "demo" / "logs")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            institutions, issuer = await _prepare(settings, processes, progress)
            async with _supervised(processes), open_context(settings) as context, client_for(5.0) as http:
                await _connect_callback(http, institutions["mspbs"], issuer, settings)
                told, cedula = await _play(context, http, issuer, institutions, progress)
        told["seconds"] = round(time.monotonic() - started, 1)
        print_report(console, told)
        if not leave:
            print_next(console, issuer, settings.data_dir, cedula)
        if as_json:
            typer.echo(json.dumps(told, ensure_ascii=False))
        if not leave:
            async with _supervised(processes):
                await _until_interrupted()
    finally:
        await asyncio.to_thread(processes.end)
    return told


async def _prepare(
    settings: Settings, processes: Processes, progress: Progress
) -> tuple[dict[str, Institution], Issuer]:
    folder = settings.data_dir / "demo"
    for name in _INSTITUTIONS:
        state = folder / f"{name}.sqlite"
        arguments = ["--persons", str(PERSONS), "--seed", str(SEED), "--state", str(state.resolve())]
        processes.start_institution(name, arguments)
    task = progress.add_task(_("Preparando la base de datos"), total=None)
    await asyncio.to_thread(bring_up, settings, demonstration=True)
    async with open_context(settings) as context:
        progress.update(task, description=_("Registrando 1.000 personas"))
        await register_population(context, simulate(PERSONS, SEED), PERSONS, SEED, lambda _done: None)
        await register(context)
        await prepare.prepare_agreement(context)
        await prepare.prepare_board(context)
    progress.update(task, description=_("Iniciando instituciones, pasarela y trabajador"))
    institutions = {name: processes.institution(name) for name in _INSTITUTIONS}
    issuer = await _start_gateway(settings, processes, institutions)
    progress.remove_task(task)
    return institutions, issuer


async def _play(
    context: Context,
    http: httpx.AsyncClient,
    issuer: Issuer,
    institutions: dict[str, Institution],
    progress: Progress,
) -> tuple[dict[str, Any], str]:
    """Play the five steps of the cycle; return their summary, and the cédula of somebody to try a question on."""
    story = Story()
    calling = callers(http, issuer, context.settings.data_dir)
    counting = calling["demo-utgs-territorio"]
    people = await prepare.prepare_consents(context)
    async with context.database.connection() as connection:
        story.status_before, gaps = await outcome.count_status(connection)
        chosen = await orientation.choose(connection, gaps)
    task = progress.add_task(_("Recogiendo la demanda"), total=None)
    families = await demand.collect(calling, story)
    before = await outcome.keep(context, counting, "baseline")
    await orientation.guide(counting, families, story)
    await take_back(http, calling, institutions, families, story)
    progress.update(task, description=_("Enviando referencias"), total=len(chosen))
    misbehaving = asyncio.create_task(outreach.trouble(http, institutions))
    opened = await orientation.open_to_all(calling["demo-utgs"], families, story)
    await orientation.priority_track(calling, families, story)
    await orientation.refer_gaps(calling["demo-utgs"], chosen, story, lambda: progress.advance(task))
    messages = orientation.message_folder()
    if messages is not None:
        await orientation.send_messages(calling["demo-mspbs-aps"], messages, story)
    await asyncio.gather(
        outreach.attend(http, calling["demo-mspbs-usf"], opened, story), disclosures.ask(calling, people, story)
    )
    await misbehaving
    task = progress.add_task(_("Recibiendo contrarreferencias"), total=len(story.acknowledged))
    reached = await _settle(context, story, lambda done: progress.update(task, completed=done))
    await orientation.report(calling, story)
    async with context.database.connection() as connection:
        story.status_after, _gaps = await outcome.count_status(connection)
        channels = await outcome.delivered_by_channel(connection, story)
        lost = await outcome.lost(http, connection, institutions, story)
    after = await outcome.keep(context, counting, "follow_up")
    compared = await outcome.compare(counting, before, after)
    delivery = await outcome.lanes(counting)
    report = await verify_log()
    told = summary(story, reached, channels, lost, report_json(report), messages is not None)
    return {**told, **compared, "delivery": delivery}, people[0][0]


async def _settle(context: Context, story: Story, progress: Callable[[int], None]) -> dict[str, int]:
    deadline = time.monotonic() + _SETTLED_WITHIN_S
    ids = list(story.acknowledged)
    while True:
        async with context.database.connection() as connection:
            reached = await outcome.progress_of(connection, ids)
        progress(len(ids) - reached["open"])
        if not reached["open"] or time.monotonic() > deadline:
            return reached
        await asyncio.sleep(0.3)


@contextlib.asynccontextmanager
async def _supervised(processes: Processes) -> AsyncIterator[None]:
    """Start the gateway and the worker again when somebody kills them: nothing acknowledged may be lost by it."""

    async def watch() -> None:
        while True:
            gone = processes.died()
            if gone in ("serve", "worker"):
                processes.restart(gone)
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


async def _start_gateway(settings: Settings, processes: Processes, institutions: dict[str, Institution]) -> Issuer:
    data = settings.data_dir.resolve()
    connections = {
        item.name: {"address": item.address} | ({"host_key": item.host_key} if item.host_key else {})
        for item in institutions.values()
    }
    settings.connections_file.write_text(yaml.safe_dump(connections), encoding="utf-8")
    password = os.environ.get("SIIS_SIM_PASSWORD", "simulated-password")
    for name in _SECRETS:
        write_secret(settings.producer_secrets_dir / name, password.encode())
    port = free_port()
    issuer = Issuer(f"http://127.0.0.1:{port}")
    environment = {"SIIS_DATA_DIR": str(data), "SIIS_ISSUER": issuer.url, "SIIS_PORT": str(port)}
    pace = {"SIIS_POLL_INTERVAL_S": "0.5", "SIIS_RETRY_FIRST_S": "1"}
    processes.start("serve", ["gateway.cli", "serve"], environment)
    processes.start("worker", ["gateway.cli", "worker"], environment | pace)
    deadline = time.monotonic() + _READY_WITHIN_S
    async with client_for(5.0) as http:
        while time.monotonic() < deadline and processes.died() is None:
            with contextlib.suppress(httpx.HTTPError):
                if (await http.get(f"{issuer.url}/health/ready")).json()["status"] == "ok":
                    return issuer
            await asyncio.sleep(0.1)
    gone = processes.died() or "serve"
    raise DidNotStart(gone, processes.log_of(gone))


async def _connect_callback(http: httpx.AsyncClient, mspbs: Institution, issuer: Issuer, settings: Settings) -> None:
    path = key_file(settings.data_dir, "demo-mspbs").resolve()
    target = {"gateway": issuer.url, "client_id": "demo-mspbs", "key_file": str(path), "kid": _kid(path)}
    answer = await http.post(f"{mspbs.control}/_control/callback", json=target)
    answer.raise_for_status()


def _kid(path: Path) -> str:
    from joserfc.jwk import ECKey

    return str(ECKey.import_key(path.read_bytes()).thumbprint())


async def _until_interrupted() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    await stop.wait()
