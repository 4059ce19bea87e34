"""``siis register``: whole registers of the institutions, taken now, and those taken before."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from adapters.base import ProducerAdapter
from adapters.files.adapter import FileAdapter
from adapters.files.wording import say
from gateway.cli.context import calm_collector, open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.intake import register_store
from gateway.intake.registers import Intake
from gateway.runtime import Runtime, open_runtime
from gateway.settings import load_settings
from schemas.text import _, printable

app = typer.Typer(
    help=_("Registros completos que entregan las instituciones."), no_args_is_help=True, add_completion=False
)


class _NoRegister(Exception):
    """An adapter has no register of this name, or its kind takes no files."""


@app.command(help=_("Tomar ahora los registros que esperan."))
def take(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help=_("Nombre del adaptador."))] = None,
    dataset: Annotated[str | None, typer.Argument(metavar="DATASET", help=_("Conjunto de datos."))] = None,
    file: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help=_("Archivo que tomar en vez de la carpeta."))
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON, una línea por registro."))] = False,
) -> None:
    """Take what waits, of one adapter and dataset or of all; exit 1 when one was refused, denied or did not come."""
    if file and name is None:
        raise typer.BadParameter(_("hace falta el nombre del adaptador"), param_hint="NAME")
    try:
        well = asyncio.run(_take(name, dataset, file or [], as_json))
    except _NoRegister as error:
        typer.echo(_("No hay un registro así: {name}").format(name=error), err=True)
        raise typer.Exit(2) from None
    if not well:
        raise typer.Exit(1)


async def _take(name: str | None, dataset: str | None, files: list[Path], as_json: bool) -> bool:
    well = True
    async with open_runtime(load_settings()) as runtime:
        calm_collector()
        for adapter, register in _chosen(runtime, name, dataset, files):
            for intake in await _all_of(runtime, adapter, register, again=bool(files)):
                well = well and intake.outcome in ("taken", "nothing")
                _tell(adapter.name, register, intake, as_json)
    return well


async def _all_of(runtime: Runtime, adapter: ProducerAdapter, dataset: str, *, again: bool) -> list[Intake]:
    """Take one register after the other; one that a person names, once."""
    found: list[Intake] = []
    while not found or (found[-1].outcome in ("taken", "refused") and not again):
        found.append(await runtime.registers.take(adapter, dataset, user=f"uid {os.getuid()}", again=again))
    # That nothing is left is worth a word only where there was nothing.
    return found[:-1] if len(found) > 1 and found[-1].outcome == "nothing" else found


def _chosen(
    runtime: Runtime, name: str | None, dataset: str | None, files: list[Path]
) -> list[tuple[ProducerAdapter, str]]:
    adapters = runtime.adapters.taking()
    if name is None:
        adapters = tuple(adapter for adapter in adapters if adapter.connected)
    else:
        runtime.adapters.named(name)
        adapters = tuple(adapter for adapter in adapters if adapter.name == name)
    if files:
        if sum(len(adapter.registers) for adapter in adapters) > 1 and dataset is None:
            raise _NoRegister(_("{name}: diga cuál de sus registros").format(name=name))
        adapters = tuple(
            FileAdapter.of_files(adapter.manifest, [file])
            for adapter in adapters
            if adapter.kind == "file"
            for file in files
        )
    found = [
        (adapter, register)
        for adapter in adapters
        for register in sorted(adapter.registers)
        if dataset in (None, register)
    ]
    if not found and name is not None:
        raise _NoRegister(" ".join(filter(None, (name, dataset))))
    return found


def _tell(adapter: str, dataset: str, intake: Intake, as_json: bool) -> None:
    if as_json:
        typer.echo(
            json_line(
                {
                    "adapter": adapter,
                    "dataset": dataset,
                    "outcome": intake.outcome,
                    "name": intake.name,
                    "rows": intake.rows,
                    "rejected": intake.rejected,
                    "rejects": None if intake.rejects is None else str(intake.rejects),
                    "reason": intake.reason,
                }
            )
        )
        return
    place = printable(" ".join(filter(None, (adapter, dataset, intake.name))))
    match intake.outcome:
        case "taken":
            what = _("tomado, {rows} filas, {rejected} rechazadas").format(rows=intake.rows, rejected=intake.rejected)
        case "refused":
            what = _("no se toma: {reason}; {rejected} filas rechazadas").format(
                reason=say(intake.reason), rejected=intake.rejected
            )
        case "nothing":
            what = _("nada nuevo")
        case "busy":
            what = _("otro proceso lo está tomando")
        case "denied":
            what = _("ningún acuerdo lo permite: {reason}").format(reason=intake.reason)
        case _:
            what = _("la institución no lo entrega: {reason}").format(reason=say(intake.reason))
    typer.echo(f"{place}: {what}")
    if intake.rejects is not None:
        typer.echo(_("  Filas rechazadas, con su motivo: {file}").format(file=intake.rejects))


@app.command("list", help=_("Mostrar los registros tomados."))
def list_(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Show the registers taken, the newest first, with rows, rejects and state."""
    told = asyncio.run(_listed())
    if as_json:
        typer.echo(json.dumps(told))
        return
    states = {
        "taking": _("en curso"),
        "taken": _("vigente"),
        "refused": _("no tomado"),
        "replaced": _("reemplazado"),
    }
    table = Table(_("Adaptador"), _("Datos"), _("Archivo"), _("Estado"), _("Filas"), _("Rechazadas"), _("Desde"))
    for item in told:
        table.add_row(
            cell(item["adapter"]),
            cell(item["dataset"]),
            cell(item["name"]),
            states[item["state"]],
            str(item["rows"]),
            str(item["rejected"]),
            item["at"][:16].replace("T", " "),
        )
    screen().print(table)


async def _listed() -> list[dict[str, Any]]:
    async with open_context() as context, context.database.connection() as connection:
        return await register_store.described(connection)
