"""``siis audit prune``: takes the oldest entries of the log away once their term is over; proofs still verify."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from gateway.cli.changes import ended
from gateway.cli.context import open_context
from gateway.cli.screen import json_line
from gateway.commands import receipt_json
from gateway.database import Database, owner_url
from gateway.erasure.pruning import Pruned, prune
from schemas.text import _

app = typer.Typer(add_completion=False)


@app.command(
    "prune", help=_("Quitar del registro las entradas anteriores a un día, vencido su plazo; las pruebas valen.")
)
def prune_(
    before: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help=_("Se quitan las anteriores a este día."))],
    norm: Annotated[str, typer.Option(help=_("Norma en que se apoya."))],
    order: Annotated[str, typer.Option("--order", help=_("Acto que lo ordena, por ejemplo la resolución."))],
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Prune the log; a pruning that was cut off is gone on with."""
    done = ended(_prune(before, norm, order))
    if as_json:
        typer.echo(json_line([_json(each) for each in done]))
        return
    if not done:
        typer.echo(_("No hay nada que quitar antes de ese día."))
    for each in done:
        text = _("Registro {log}: {n} entradas quitadas; empieza en el número {minimum}, raíz {root}.")
        typer.echo(text.format(log=each.log, n=each.entries, minimum=each.minimum, root=each.root.hex()))
        typer.echo(_("Entrada {entry}.").format(entry=each.receipt.entry_id))


async def _prune(before: datetime, norm: str, order: str) -> list[Pruned]:
    async with open_context() as context:
        owner = Database(owner_url(context.settings), pool_size=2)
        try:
            return await prune(owner=owner, audit=context.audit, before=before.date(), norm=norm, reference=order)
        finally:
            await owner.close()


def _json(done: Pruned) -> dict[str, Any]:
    return {
        "log": done.log,
        "entries": done.entries,
        "minimum": done.minimum,
        "root": done.root.hex(),
        "receipt": receipt_json(done.receipt),
    }
