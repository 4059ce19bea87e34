"""``siis erasure finish``: closes an epoch of keys, so that no earlier backup of the database opens what was erased."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import progress as rich_progress
from rich.progress import TextColumn, TimeElapsedColumn

from gateway.cli.changes import ended
from gateway.cli.context import open_context
from gateway.cli.screen import json_line
from gateway.commands import receipt_json
from gateway.database import Database, owner_url
from gateway.erasure import epochs
from gateway.erasure.epochs import Closed
from schemas.text import _


def finish(
    norm: Annotated[str, typer.Option(help=_("Norma en que se apoya."))],
    order: Annotated[str, typer.Option("--order", help=_("Acto que lo ordena, por ejemplo la resolución."))],
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Close the epoch in force; one that was cut off is gone on with."""
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed}"), TimeElapsedColumn())
    with rich_progress.Progress(*columns, transient=True, disable=as_json) as shown:
        task = shown.add_task(_("Claves envueltas de nuevo"), total=None)
        closed = ended(_finish(norm, order, lambda done: shown.update(task, completed=done)))
    if as_json:
        told = {"closed": closed.epochs, "current": closed.current, "keys": closed.keys}
        typer.echo(json_line({**told, "receipt": receipt_json(closed.receipt)}))
        return
    text = _("Época {old} cerrada y su clave destruida; ahora vale la {new}. Claves envueltas de nuevo: {n}.")
    typer.echo(text.format(old=", ".join(map(str, closed.epochs)), new=closed.current, n=closed.keys))
    typer.echo(_("Destruya también las copias de la carpeta epochs, y guarde la clave nueva aparte."))
    typer.echo(_("Entrada {entry}.").format(entry=closed.receipt.entry_id))


async def _finish(norm: str, order: str, progress: epochs.Progress) -> Closed:
    async with open_context() as context:
        owner = Database(owner_url(context.settings), pool_size=2)
        try:
            return await epochs.finish(
                owner=owner,
                audit=context.audit,
                keys_dir=context.settings.keys_dir,
                norm=norm,
                reference=order,
                progress=progress,
            )
        finally:
            await owner.close()
