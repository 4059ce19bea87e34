"""``siis audit consistency``: the proof that one checkpoint continues another, for whoever kept the older one."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any

import typer

from audit.proofs import signed_head
from audit.tiles import TileReader
from audit.verify import Checkpoint, NotValid, parse_checkpoint, parse_note, read_text
from gateway.cli.audit_offline import judge
from gateway.cli.changes import fail
from gateway.cli.context import open_context
from schemas.text import _

app = typer.Typer(add_completion=False)


@app.command(help=_("Escribir la prueba de que un punto de control continúa a otro, para verify-checkpoints --proof."))
def consistency(
    old: Annotated[Path, typer.Argument(metavar="VIEJO", help=_("El punto de control anterior."))],
    new: Annotated[Path, typer.Argument(metavar="NUEVO", help=_("El punto de control posterior."))],
    out: Annotated[Path, typer.Option(metavar="ARCHIVO", help=_("Archivo nuevo: un hash en base64 por línea."))],
) -> None:
    """Write the consistency proof between two checkpoints of a log of ours; exit 1 when there can be none."""
    if out.exists():
        fail(_("El archivo {path} ya existe: elija otro nombre.").format(path=out), 2)

    def work() -> tuple[dict[str, Any], list[str]]:
        before, after = _read(old), _read(new)
        if before.origin != after.origin:
            raise NotValid("foreign", _("los dos puntos de control son de registros distintos"))
        if before.size > after.size:
            raise NotValid("not_a_prefix", _("el punto de control nuevo es más corto que el viejo"), index=after.size)
        hashes = asyncio.run(_hashes(before, after))
        out.write_text("".join(f"{b64encode(each).decode()}\n" for each in hashes), encoding="ascii")
        told = _("{n} hashes en {out}. Para comprobar: siis audit verify-checkpoints {old} {new} --proof {out}")
        return {}, [told.format(n=len(hashes), out=out, old=old, new=new)]

    judge(work, as_json=False)


def _read(file: Path) -> Checkpoint:
    return parse_checkpoint(parse_note(read_text(file))[0])


async def _hashes(before: Checkpoint, after: Checkpoint) -> list[bytes]:
    name, _slash, year = after.origin.rpartition("/")
    async with open_context() as context, context.database.connection() as connection:
        ours = name == context.settings.log_origin and len(year) == 4 and year.isdecimal()
        head = await signed_head(connection, int(year)) if ours else None
        if head is None or after.size > head.size:
            raise NotValid("foreign", _("este registro no tiene ese punto de control"))
        # From nothing to something there is nothing to prove (RFC 9162 clause 2.1.4).
        return await TileReader(connection, head.log, after.size).consistency(before.size) if before.size else []
