"""``siis audit bundle``: the file about one referral for a court or an ombudsman."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from audit import integrator
from audit.errors import AuditUnavailable
from gateway import errors
from gateway.cli.changes import fail, number
from gateway.cli.context import Context, open_context
from gateway.cli.rights import machine
from gateway.clock import utc_now
from gateway.dossier.bundles import Bundle, Bundles
from gateway.runtime import load_signer
from gateway.witnesses.policy import policy_text
from schemas.text import _

app = typer.Typer(add_completion=False)

# How long a checkpoint may take; and witnesses that were silent for three rounds are missing.
_SIGNING_S, _ROUNDS = 20.0, 3


@app.command(help=_("Preparar el expediente de una referencia: entradas, pruebas, historia y verificador en un ZIP."))
def bundle(
    referral_id: Annotated[str, typer.Argument(metavar="REFERENCIA", help=_("Número de la referencia."))],
    out: Annotated[Path, typer.Option(help=_("Archivo ZIP nuevo, solo para quien lo crea."))],
) -> None:
    """Make the bundle of a referral; exit 1 when no entry names it."""
    which = number(referral_id)
    if out.exists():
        fail(_("El archivo {path} ya existe: elija otro nombre.").format(path=out), 2)
    try:
        made = asyncio.run(_make(which))
    except errors.NotFound:
        fail(_("El registro no tiene ninguna entrada de una referencia con ese número."), 1)
    except AuditUnavailable:
        fail(_("El expediente no se pudo probar a tiempo y no se guardó: revise el registro y los testigos."), 1)
    with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(made.content)
    text = _("Expediente escrito en {file}: {n} entradas. Quedó registrado en la entrada {entry}.")
    typer.echo(text.format(file=out, n=made.records, entry=made.receipt.entry_id))
    typer.echo(_("Para comprobarlo sin red: python verify.py bundle {file}").format(file=out))


async def _make(referral: UUID) -> Bundle:
    async with open_context() as context, _numbering(context):
        signer = load_signer(context.settings)
        bundles = Bundles(
            database=context.database,
            audit=context.audit,
            epochs=context.epochs,
            policy=lambda years: policy_text(signer, years, context.settings.witnesses),
            now=utc_now,
            patience_s=_SIGNING_S + _ROUNDS * context.settings.witness_interval_s,
        )
        return await bundles.make(referral, machine())


@contextlib.asynccontextmanager
async def _numbering(context: Context) -> AsyncIterator[None]:
    """Number what waits while no gateway runs; where one does, it holds the lock and this only stands by."""
    stop = asyncio.Event()
    work = asyncio.create_task(
        integrator.run(context.database.engine, load_signer(context.settings), context.audit, stop)
    )
    try:
        yield
    finally:
        stop.set()
        await work
