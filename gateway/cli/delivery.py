"""``siis delivery``: how delivery stands to each institution, pauses, and decisions on what could not be delivered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gateway.cli.changes import ended, fail, number
from gateway.cli.context import Context, governance_of, open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.clock import PARAGUAY, utc_now
from gateway.delivery.desk import DeliveryDesk, Letter, dead, shown
from gateway.delivery.status import status
from gateway.governance.refusals import refused
from gateway.governance.service import Work
from schemas.text import _

app = typer.Typer(help=_("Entrega de referencias a las instituciones."), no_args_is_help=True, add_completion=False)

Json = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]
Institution = Annotated[str, typer.Argument(metavar="INSTITUCIÓN", help=_("Código de la institución."))]
_PART = 200


@app.command("status", help=_("Mostrar qué espera, desde cuándo, qué falló y qué está en pausa."))
def status_(as_json: Json = False) -> None:
    """Show how delivery stands."""
    found = ended(_status())
    if as_json:
        typer.echo(json_line(found))
        return
    table = Table(
        _("Institución"), _("Esperan"), _("La más vieja"), _("En curso"), _("Sin salida"), _("Enviadas"),
        _("Repetidas"), _("Estado"),
    )  # fmt: skip
    for lane in found:
        counts = [str(lane[name]) for name in ("under_way", "dead", "transmitted", "retried")]
        table.add_row(lane["institution"], str(lane["waiting"]), _age(lane["oldest_s"]), *counts, _state(lane))
    screen().print(table)


@app.command(help=_("Poner en pausa la entrega a una institución; lo que está en curso se termina."))
def pause(institution: Institution) -> None:
    """Pause a lane."""
    _do(lambda desk: desk.pausing(institution, paused=True))
    typer.echo(_("Entrega a {name} en pausa.").format(name=institution))


@app.command(help=_("Reanudar la entrega a una institución, de a poco."))
def resume(institution: Institution) -> None:
    """Let a lane go on."""
    _do(lambda desk: desk.pausing(institution, paused=False))
    typer.echo(_("Entrega a {name} reanudada.").format(name=institution))


@app.command("dead", help=_("Mostrar los mensajes que esperan la decisión de una persona."))
def dead_(
    institution: Annotated[str | None, typer.Option(help=_("Solo los dirigidos a esta institución."))] = None,
    as_json: Json = False,
) -> None:
    """List dead letters."""
    found = ended(_dead(institution))
    if as_json:
        typer.echo(json_line([letter.as_json() for letter in found]))
        return
    table = Table(_("Número"), _("Clase"), _("De"), _("Para"), _("Motivo"), _("Intentos"))
    for letter in found:
        row = (letter.kind, letter.requester, letter.recipient, letter.reason or "", str(letter.attempts))
        table.add_row(str(letter.id), *row)
    screen().print(table)


@app.command(help=_("Volver a enviar un mensaje sin salida, o todos los de una institución."))
def replay(
    letter: Annotated[str | None, typer.Argument(metavar="ID", help=_("Número, como lo muestra «dead»."))] = None,
    institution: Annotated[str | None, typer.Option(help=_("Todos los dirigidos a esta institución."))] = None,
    reason: Annotated[str | None, typer.Option(help=_("De ellos, solo los de este motivo."))] = None,
) -> None:
    """Send dead letters again."""
    if (letter is None) == (institution is None) or (letter is not None and reason is not None):
        fail(_("Indique un número, o --institution y si quiere --reason."), 2)
    if letter is not None:
        which = number(letter)
        _do(lambda desk: desk.replaying(which))
        typer.echo(_("Se vuelve a enviar."))
        return
    total, more = 0, True
    while more:
        said = _do(lambda desk: desk.replaying_many(institution or "", reason))
        total, more = total + said["replayed"], said["more"]
    typer.echo(_("Se vuelven a enviar: {n}").format(n=total))


@app.command("give-up", help=_("Abandonar un mensaje sin salida; quien lo envió lee por qué."))
def give_up(
    letter: Annotated[str, typer.Argument(metavar="ID", help=_("Número, como lo muestra «dead»."))],
    reason: Annotated[str, typer.Option(help=_("Por qué, para quien lo envió."))],
) -> None:
    """Give a dead letter up."""
    which = number(letter)
    _do(lambda desk: desk.giving_up(which, reason))
    typer.echo(_("Mensaje abandonado."))


@app.command(help=_("Dar un mensaje sin salida por entregado, porque la institución dice que lo tiene."))
def transmitted(
    letter: Annotated[str, typer.Argument(metavar="ID", help=_("Número, como lo muestra «dead»."))],
) -> None:
    """Mark a dead letter as transmitted."""
    which = number(letter)
    _do(lambda desk: desk.confirming(which))
    typer.echo(_("Mensaje dado por entregado."))


def _do(work: Callable[[DeliveryDesk], Work]) -> dict[str, Any]:
    async def done() -> dict[str, Any]:
        async with open_context() as context:
            made: Work = work(_desk(context))
            with refused():
                return await governance_of(context).change_here(made)

    return ended(done())


def _desk(context: Context) -> DeliveryDesk:
    return DeliveryDesk(governance_of(context), context.vault)


async def _status() -> list[dict[str, Any]]:
    async with open_context() as context, context.database.connection() as connection:
        return shown(await status(connection), utc_now())


async def _dead(institution: str | None) -> list[Letter]:
    found: list[Letter] = []
    async with open_context() as context, context.database.connection() as connection:
        while True:
            after = found[-1].id if found else None
            part = await dead(connection, None, recipient=institution, after=after, limit=_PART)
            found.extend(part)
            if len(part) < _PART:
                return found


def _age(seconds: int | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return _("{n} s").format(n=seconds)
    if seconds < 7200:
        return _("{n} min").format(n=seconds // 60)
    return _("{n} h").format(n=seconds // 3600)


def _state(lane: dict[str, Any]) -> Text:
    if lane["paused"]:
        return cell(_("en pausa"))
    if lane["silent"]:
        at = lane["next_try_at"]
        moment = "" if at is None else f"{datetime.fromisoformat(at).astimezone(PARAGUAY):%d/%m %H:%M:%S}"
        return cell(_("no responde; se prueba de nuevo {at}").format(at=moment))
    return cell(_("abierta"))
