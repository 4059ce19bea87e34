"""``siis emergency``: the emergency accesses, and the verdicts on them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from consent import emergency
from consent.emergency import Emergency, Verdict
from consent.models import Actor
from gateway.cli.changes import carry_out, number, read_all
from gateway.cli.screen import cell, json_line, screen
from gateway.clock import utc_now
from schemas.codes import label
from schemas.text import _

app = typer.Typer(help=_("Accesos de emergencia y su revisión."), no_args_is_help=True, add_completion=False)


@app.command("list", help=_("Mostrar los accesos de emergencia."))
def list_(
    institution: Annotated[str | None, typer.Option(help=_("Solo los de esta institución."))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Show the emergency accesses."""

    week: dict[tuple[str, str], int] = {}

    async def read(connection: AsyncConnection, after: UUID | None, limit: int) -> list[Emergency]:
        week.update(await emergency.opened_in_a_week(connection, institution=institution, at=utc_now()))
        return await emergency.list_emergencies(connection, institution=institution, after=after, limit=limit)

    def lately(each: Emergency) -> int:
        return week.get((each.institution, each.user), 0)

    found = read_all(read)
    if as_json:
        typer.echo(json_line([{**each._asdict(), "user_last_seven_days": lately(each)} for each in found]))
        return
    table = Table(
        _("Número"),
        _("Abierto"),
        _("Institución"),
        _("Usuario"),
        _("Datos"),
        _("Motivo"),
        _("Incidente"),
        _("En 7 días"),
        _("Revisión"),
    )
    verdicts = {None: _("pendiente"), "justified": _("justificado"), "not-justified": _("no justificado")}
    for each in found:
        who = (each.institution, each.user, each.dataset, label("emergency-reasons", each.reason), each.incident)
        table.add_row(
            str(each.id),
            f"{each.opened_at:%Y-%m-%d %H:%M:%SZ}",
            *map(cell, who),
            str(lately(each)),
            verdicts[each.verdict],
        )
    screen().print(table)


@app.command(help=_("Dar el veredicto sobre un acceso; si no se justificó, quien lo abrió pierde el rol en el acto."))
def review(
    emergency_id: Annotated[str, typer.Argument(metavar="ID", help=_("Número, como lo muestra la lista."))],
    verdict: Annotated[Verdict, typer.Argument(metavar="VEREDICTO", help="justified | not-justified")],
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Give the verdict on an emergency access."""
    which = number(emergency_id)

    async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        return await emergency.review(connection, actor, which, verdict=verdict, at=at)

    said = carry_out(work)
    if as_json:
        typer.echo(json_line(said))
        return
    typer.echo(_("Revisado: {verdict}").format(verdict=said["verdict"]))
    if said["role_revoked"] is not None:
        typer.echo(_("  {user} perdió el rol de emergencias").format(user=said["user"]))
    typer.echo(_("  entrada {entry}").format(entry=said["receipt"]["entry_id"]))
