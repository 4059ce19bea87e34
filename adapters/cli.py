"""``siis adapter``: the commands an engineer uses before a manifest exists, on files alone, without any database."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from adapters.soap.examine import Examined, examine
from schemas.text import _, printable

app = typer.Typer(no_args_is_help=True)


@app.command("wsdl", help=_("Examinar un WSDL sin red: sus operaciones, y todo lo que le falta o se pierde."))
def wsdl(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("Archivo WSDL."))],
    catalogue: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help=_("Carpeta con los esquemas que el WSDL importa; puede repetirse.")),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Examine a service description; exit 2 when it cannot be used."""
    found = examine(file, catalogue or [])
    if as_json:
        typer.echo(json.dumps(found.as_json()))
    else:
        _show(file, found)
    if not found.usable:
        raise typer.Exit(2)


@app.command(
    "check", help=_("Revisar manifiestos: esquema, tipo, nombres repetidos; y con --connections, conexión y secretos.")
)
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help=_("Manifiestos."))],
    connections: Annotated[
        Path | None, typer.Option(metavar="FILE", help=_("Archivo de conexiones que también se revisa."))
    ] = None,
    secrets: Annotated[
        Path | None, typer.Option(metavar="DIR", help=_("Carpeta donde deben estar los secretos."))
    ] = None,
) -> None:
    """Check manifests before they are in use; exit 2 when one of them is wrong."""
    from adapters.checking import check_files

    wrong = False
    for file, complaint in check_files(files, connections, secrets):
        _say(complaint or f"{file}: OK")
        wrong = wrong or bool(complaint)
    if wrong:
        raise typer.Exit(2)


@app.command("conformance", help=_("Probar los adaptadores con todo lo que puede hacer un sistema, en esta máquina."))
def conformance(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help=_("Nombres; sin ellos, todos."), show_default=False)
    ] = None,
    manifests: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, help=_("Otra carpeta de manifiestos; puede repetirse.")
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help=_("Escribir el informe en XML de JUnit."))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Hold the adapters to the cases; exit 1 when one of them fails."""
    import asyncio

    from adapters.conformance import report, runner

    found = runner.chosen(manifests or [], names or [])
    reports = asyncio.run(runner.run(found, everything=not names))
    if junit is not None:
        report.write_junit(reports, junit)
    if as_json:
        typer.echo(json.dumps(report.as_json(reports), ensure_ascii=False))
    else:
        for line in report.lines(reports):
            _say(line)
    if any(each.failures for each in reports):
        raise typer.Exit(1)


@app.command("sniff", help=_("Mirar un archivo CSV, XLSX o ZIP: codificación, cabecera, columnas, tipos y problemas."))
def sniff(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("Archivo que se mira."))],
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Show what a file is as a table, values apart; exit 2 when it is none."""
    from adapters.files import sniff as sniffing

    found = sniffing.sniff(file)
    if as_json:
        typer.echo(json.dumps(found.as_json()))
    else:
        for line in sniffing.describe(file, found):
            _say(line, err=found.format is None)
    if found.format is None:
        raise typer.Exit(2)


def _show(file: Path, found: Examined) -> None:
    """Print it for a person; what makes a file unusable goes where errors go."""
    verdict = _("{file}: se puede usar") if found.usable else _("{file}: no se puede usar")
    _say(verdict.format(file=file), err=not found.usable)
    if found.operations:
        _say(_("Operaciones: {n}").format(n=len(found.operations)))
    for (service, port, soap), operations in groupby(
        found.operations, key=lambda operation: (operation["service"], operation["port"], operation["soap"])
    ):
        _say(f"  {service} / {port} (SOAP {soap})")
        for operation in operations:
            _say(f"    {operation['name']}")
    if found.problems:
        _say(_("Problemas: {n}").format(n=len(found.problems)), err=not found.usable)
    for problem in found.problems:
        _say(f"  {problem.where} [{problem.kind}] {problem.what}", err=not found.usable)


def _say(text: str, *, err: bool = False) -> None:
    # Names and addresses come from the file: nothing in them may steer the reader's terminal.
    typer.echo(printable(text), err=err)
