"""``siis report``: nominal reports of referrals for an institution, as whoever runs the machine hands them over."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from gateway.api.listing import filter_from
from gateway.api.reports import RECEIVED, SENT
from gateway.api.sheets import flat, written
from gateway.cli.changes import ended, fail
from gateway.cli.screen import json_line
from gateway.referrals.nominal import Filter
from gateway.reports.service import Side
from gateway.runtime import open_runtime
from gateway.settings import load_settings
from schemas.text import _

app = typer.Typer(help=_("Informes de referencias."), no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Keep the command a group."""


@app.command(help=_("Hacer el informe de las referencias que una institución recibió o envió."))
def referrals(
    institution: Annotated[str, typer.Argument(metavar="INSTITUCIÓN", help=_("Código, por ejemplo MSPBS."))],
    output: Annotated[Path, typer.Option(help=_("Archivo que se escribe: .csv, .xlsx o .jsonl."))],
    side: Annotated[str, typer.Option(help=_("received: las que recibió; sent: las que envió."))] = "received",
    state: Annotated[list[str] | None, typer.Option(help=_("Solo este estado; se puede repetir."))] = None,
    service: Annotated[str | None, typer.Option(help=_("Solo este servicio."))] = None,
    department: Annotated[str | None, typer.Option(help=_("Solo este departamento (INE)."))] = None,
    district: Annotated[str | None, typer.Option(help=_("Solo este distrito (INE)."))] = None,
    since: Annotated[str | None, typer.Option(help=_("Hechas desde este día."))] = None,
    until: Annotated[str | None, typer.Option(help=_("Hechas hasta este día."))] = None,
    overdue: Annotated[bool, typer.Option("--overdue", help=_("Solo las vencidas."))] = False,
) -> None:
    """Write a report; each person in it finds it in the log."""
    form = output.suffix.removeprefix(".")
    if form not in ("csv", "xlsx", "jsonl"):
        fail(_("El archivo termina en .csv, .xlsx o .jsonl."), 2)
    if side not in ("received", "sent"):
        fail(_("--side es received o sent."), 2)
    given = {"service": service, "department": department, "district": district, "since": since, "until": until}
    named = {name: value for name, value in given.items() if value is not None}

    async def made() -> list[dict[str, Any]]:
        asked = filter_from({**named, "overdue": "true" if overdue else "false"}, state or [], limit=_PART)
        return await _rows(institution, cast(Side, side), asked, form)

    rows = ended(made())
    _write(output, _content(form, cast(Side, side), rows))
    typer.echo(_("{n} referencias en {path}").format(n=len(rows), path=output))


_PART = 5000


async def _rows(institution: str, side: Side, asked: Filter, form: str) -> list[dict[str, Any]]:
    actor = {"channel": "command-line", "user": f"uid:{os.getuid()}", "on_behalf_of": institution}
    rows: list[dict[str, Any]] = []
    async with open_runtime(load_settings()) as runtime:
        while True:
            report = await runtime.reports.of_institution(institution, actor, side, asked, form=form)
            rows += report.rows
            if report.next is None:
                return rows
            asked = replace(asked, after=report.next)


def _content(form: str, side: Side, rows: list[dict[str, Any]]) -> bytes:
    if form == "jsonl":
        return "".join(json_line(row) + "\n" for row in rows).encode()
    columns = RECEIVED if side == "received" else SENT
    return written(cast(Literal["csv", "xlsx"], form), columns, [flat(row) for row in rows])


def _write(path: Path, content: bytes) -> None:
    # Names of persons: for whoever asked, and nobody else on the machine; a file that is there stays.
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        fail(_("Ya hay un archivo {path}.").format(path=path), 2)
    except OSError:
        fail(_("No se puede escribir el archivo {path}.").format(path=path), 2)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
