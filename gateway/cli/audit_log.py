"""``siis audit verify`` and ``show``: check the whole log, and show its newest entries."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer
from rich import progress as rich_progress
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from audit.check import Progress, check_log
from audit.models import LoggedEntry, Report
from audit.search import recent
from gateway import evidence
from gateway.cli.context import open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.clock import utc_now
from gateway.runtime import load_signer
from schemas.text import _

app = typer.Typer(add_completion=False)


@app.command(help=_("Recalcular todo el registro y nombrar la primera entrada que no concuerda."))
def verify(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Check the log; exit 1 when anything is wrong."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with rich_progress.Progress(*columns, transient=True, disable=as_json) as progress:
        task = progress.add_task(_("Comprobando entradas"), total=None)
        report = asyncio.run(verify_log(lambda done, total: progress.update(task, completed=done, total=total)))
    if as_json:
        typer.echo(json.dumps(report_json(report)))
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(1)


async def verify_log(progress: Progress | None = None) -> Report:
    """Check the log of the settings in force."""
    async with open_context() as context, context.database.connection() as connection:
        signer = load_signer(context.settings)
        return await check_log(connection, signer, progress)


def report_json(report: Report) -> dict[str, Any]:
    """Return a report as JSON; ``first_problem`` names the first wrong entry."""
    problems = [
        {
            "kind": problem.kind,
            "log": problem.log,
            "index": problem.index,
            "entry_id": None if problem.entry_id is None else str(problem.entry_id),
            "what": problem.what,
        }
        for problem in report.problems
    ]
    return {
        "ok": report.ok,
        "entries": report.entries,
        "pending": report.pending,
        "checkpoints": report.checkpoints,
        "root": report.root.hex(),
        "first_problem": problems[0] if problems else None,
        "problems": problems,
    }


def _print(report: Report) -> None:
    counts = _("{entries} entradas numeradas, {pending} en espera, {checkpoints} puntos de control firmados.")
    typer.echo(counts.format(entries=report.entries, pending=report.pending, checkpoints=report.checkpoints))
    typer.echo(_("Raíz: {root}").format(root=report.root.hex()))
    if report.ok:
        typer.echo(_("El registro está íntegro."))
        return
    first = report.problems[0]
    typer.echo(_("EL REGISTRO NO ESTÁ ÍNTEGRO."), err=True)
    text = _("Primera entrada que no concuerda: registro {log}, número {index}, id {id}: {kind}: {what}")
    values = {"log": first.log, "index": first.index, "id": first.entry_id, "kind": first.kind, "what": first.what}
    typer.echo(text.format(**values), err=True)
    if len(report.problems) > 1:
        typer.echo(_("y {n} problemas más.").format(n=len(report.problems) - 1), err=True)


@app.command(help=_("Mostrar las entradas más nuevas; mirar el registro también queda registrado."))
def show(
    limit: Annotated[int, typer.Option(min=1, max=1000, help=_("Cuántas."))] = 20,
    kind: Annotated[str | None, typer.Option("--type", help=_("Solo las de este tipo."))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON, con el detalle."))] = False,
) -> None:
    """Show the newest entries."""
    entries = asyncio.run(_recent(limit, kind))
    if as_json:
        typer.echo(json_line([_entry_json(entry) for entry in entries]))
        return
    table = Table(_("Nº"), _("Hora (UTC)"), _("Tipo"), _("Resultado"), _("Quién"), _("Para qué"), _("Qué"))
    for entry in entries:
        detail = entry.detail or {}
        actor, why, what = (detail.get(name, {}) for name in ("actor", "why", "what"))
        who = " ".join(str(actor[name]) for name in ("institution", "client", "user") if actor.get(name))
        table.add_row(
            "…" if entry.index is None else f"{entry.log}/{entry.index}",
            str(entry.envelope["at"])[11:19],
            str(entry.envelope["type"]),
            str(entry.envelope["outcome"]),
            cell(who),
            cell(str(why.get("purpose") or "")),
            cell(str(what.get("dataset") or detail.get("exchange", {}).get("referral") or "")),
        )
    screen().print(table)


async def _recent(limit: int, kind: str | None) -> list[LoggedEntry]:
    async with open_context() as context:
        read = evidence.entry(
            "log.read",
            "done",
            at=utc_now(),
            policy_version="none",
            actor={"channel": "command-line"},
            what={"limit": limit, "type": kind},
        )
        # The reading is on record before anything is shown.
        await context.audit.append(read)
        async with context.database.connection() as connection:
            return await recent(connection, context.epochs, limit, type=kind)


def _entry_json(entry: LoggedEntry) -> dict[str, Any]:
    return {
        "log": entry.log,
        "index": entry.index,
        "id": str(entry.entry_id),
        "envelope": dict(entry.envelope),
        "detail": None if entry.detail is None else dict(entry.detail),
    }
