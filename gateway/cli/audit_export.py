"""``siis audit search`` and ``siis audit export``: the log for whoever runs this machine; both are entries of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.table import Table

from audit.errors import AuditUnavailable
from audit.integrator import integrate_once
from audit.search import Cursor, Page, read_cursor
from gateway.api.audit import entry_json
from gateway.auditing.exports import PROOF_SUFFIX, Exports
from gateway.auditing.forms import Source, TooManyRows, cells
from gateway.auditing.service import Asked, Auditing
from gateway.cli.changes import ended, fail, instant
from gateway.cli.context import Context, governance_of, open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.registry.lookup import SubjectLookup
from gateway.runtime import load_signer
from gateway.standards.exports import form_of
from gateway.witnesses.policy import policy_text
from schemas.text import _

app = typer.Typer(add_completion=False)


class Format(StrEnum):
    """How an export is written (:data:`gateway.standards.exports.FORMATS`)."""

    csv = "csv"
    xlsx = "xlsx"
    jsonl = "jsonl"
    fhir = "fhir"
    ocsf = "ocsf"


_SHOWN = (1, 3, 4, 5, 12, 13, 15, 21)

Institution = Annotated[str | None, typer.Option(help=_("Institución que es parte de la entrada."))]
User = Annotated[str | None, typer.Option(help=_("Usuario de esa institución; sin institución, de esta máquina."))]
Purpose = Annotated[str | None, typer.Option(help=_("Finalidad."))]
Basis = Annotated[str | None, typer.Option(help=_("Base legal."))]
Dataset = Annotated[str | None, typer.Option(help=_("Conjunto de datos."))]
Cedula = Annotated[str | None, typer.Option(help=_("Cédula de la persona de quien trata."))]
Referral = Annotated[str | None, typer.Option(help=_("Número de la referencia."))]
Outcome = Annotated[str | None, typer.Option(help=_("Resultado: permit, permit_redacted, deny, done o failed."))]
Kind = Annotated[str | None, typer.Option("--type", help=_("Tipo de entrada."))]
Withheld = Annotated[str | None, typer.Option(help=_("Razón por la que se retuvo un campo."))]
Since = Annotated[str | None, typer.Option(help=_("Desde cuándo, por ejemplo 2026-11-20T08:00; hora de Paraguay."))]
Until = Annotated[str | None, typer.Option(help=_("Hasta cuándo, sin incluirlo."))]


@dataclass(frozen=True, slots=True)
class _Open:
    context: Context
    auditing: Auditing


@app.command(help=_("Buscar entradas del registro, las más nuevas primero; la búsqueda queda registrada."))
def search(
    institution: Institution = None,
    user: User = None,
    purpose: Purpose = None,
    basis: Basis = None,
    dataset: Dataset = None,
    cedula: Cedula = None,
    referral: Referral = None,
    outcome: Outcome = None,
    kind: Kind = None,
    withheld: Withheld = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help=_("Cuántas."))] = 50,
    after: Annotated[str | None, typer.Option(help=_("Seguir donde terminó la página anterior."))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON, con el detalle."))] = False,
) -> None:
    """Search the log."""
    asked = _asked(institution, user, purpose, basis, dataset, cedula, referral, outcome, kind, withheld, since, until)
    page = ended(_searched(asked, _cursor(after), limit))
    if as_json:
        following = None if page.next is None else str(page.next)
        typer.echo(json_line({"entries": [entry_json(entry) for entry in page.entries], "next": following}))
        return
    heads = (_("Nº"), _("Hora (UTC)"), _("Tipo"), _("Resultado"), _("Institución"), _("Quién"), _("Para qué"), _("Qué"))
    table = Table(*heads)
    for entry in page.entries:
        texts = cells(entry)
        table.add_row(*(cell(texts[column]) for column in _SHOWN))
    screen().print(table)
    if page.next is not None:
        typer.echo(_("Hay más: siga con --after {cursor}").format(cursor=page.next))


@app.command(help=_("Escribir entradas en un archivo, con su prueba al lado; la exportación queda registrada."))
def export(
    format: Annotated[Format, typer.Option(help=_("csv, xlsx, jsonl, fhir u ocsf."))],
    out: Annotated[Path, typer.Option(metavar="ARCHIVO", help=_("Archivo nuevo; la prueba es ARCHIVO.proof."))],
    institution: Institution = None,
    user: User = None,
    purpose: Purpose = None,
    basis: Basis = None,
    dataset: Dataset = None,
    cedula: Cedula = None,
    referral: Referral = None,
    outcome: Outcome = None,
    kind: Kind = None,
    withheld: Withheld = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Export entries with their proof."""
    asked = _asked(institution, user, purpose, basis, dataset, cedula, referral, outcome, kind, withheld, since, until)
    proof = out.with_name(out.name + PROOF_SUFFIX)
    for file in (out, proof):
        if file.exists():
            fail(_("El archivo {path} ya existe: elija otro nombre.").format(path=file), 2)
    try:
        records = ended(_exported(asked, format.value, out, proof))
    except TooManyRows:
        fail(_("No cabe en una hoja de cálculo: acote el período o use csv."), 1)
    except AuditUnavailable:
        fail(_("La exportación no se pudo probar a tiempo y no se guardó: revise el registro y los testigos."), 1)
    typer.echo(_("{n} entradas en {out}; la prueba, en {proof}.").format(n=records, out=out, proof=proof))


def _asked(
    institution: str | None,
    user: str | None,
    purpose: str | None,
    basis: str | None,
    dataset: str | None,
    cedula: str | None,
    referral: str | None,
    outcome: str | None,
    kind: str | None,
    withheld: str | None,
    since: str | None,
    until: str | None,
) -> Asked:
    return Asked(
        institution=institution,
        user=user,
        purpose=purpose,
        basis=basis,
        dataset=dataset,
        subject=None if cedula is None else ("cedula", cedula),
        referral=referral,
        outcome=outcome,
        type=kind,
        withheld=withheld,
        since=None if since is None else instant(since),
        until=None if until is None else instant(until),
    )


async def _searched(asked: Asked, after: Cursor | None, limit: int) -> Page:
    async with _open() as opened:
        page, _receipt = await opened.auditing.search(None, asked, after=after, limit=limit)
        return page


async def _exported(asked: Asked, kind: str, out: Path, proof: Path) -> int:
    async with _open() as opened:
        context, settings = opened.context, opened.context.settings
        signer = load_signer(settings)

        async def integrate() -> None:
            # Where a process numbers all the time this does nothing.
            async with context.database.connection() as connection:
                await integrate_once(connection, signer, context.audit)

        exports = Exports(
            opened.auditing,
            policy=partial(policy_text, signer, witnesses_file=settings.witnesses),
            witness_interval_s=settings.witness_interval_s,
            folder=settings.data_dir / "exports",
            integrate=integrate,
        )
        source = Source(settings.issuer, settings.log_origin, version("siis-gateway"))
        with exports.place() as folder, _new(out) as data, _new(proof) as lines:
            try:
                begun = await exports.begin(None, asked, form_of(kind, source, folder), lines)
                async for piece in begun.data():
                    data.write(piece)
                data.flush()
                await begun.finish()
            except BaseException:
                # What is left would look like an export and is none.
                _remove(out, proof)
                raise
        return begun.records


@asynccontextmanager
async def _open() -> AsyncIterator[_Open]:
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context())
        subjects = SubjectLookup(context.database, context.vault)
        stack.push_async_callback(subjects.close)
        governance = governance_of(context)
        yield _Open(
            context,
            Auditing(governance=governance, audit=context.audit, epochs=context.epochs, subjects=subjects),
        )


def _new(path: Path) -> IO[bytes]:
    # Never an existing file: its mode could be anything.
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")


def _remove(*files: Path) -> None:
    for file in files:
        file.unlink()


def _cursor(given: str | None) -> Cursor | None:
    try:
        return None if given is None else read_cursor(given)
    except ValueError:
        fail(_("Siga con lo que dio la página anterior."), 2)
