"""``siis link``: signed links for offices without a system, as whoever runs the machine gives and takes them back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from rich.table import Table

from gateway.api.links import link_json
from gateway.cli.changes import ended, fail, number
from gateway.cli.screen import cell, json_line, screen
from gateway.clock import PARAGUAY
from gateway.links.service import ACTS, USUAL_HOURS, USUAL_USES, Link, NewLink, links_of
from gateway.runtime import Runtime, open_runtime
from gateway.settings import load_settings
from schemas.text import _

app = typer.Typer(help=_("Enlaces para oficinas sin sistema."), no_args_is_help=True, add_completion=False)

Referral = Annotated[str, typer.Argument(metavar="ID", help=_("Número de la referencia."))]
Json = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]

T = TypeVar("T")


@app.command(help=_("Dar a una oficina un enlace y un PIN para responder una referencia."))
def make(
    referral_id: Referral,
    act: Annotated[
        list[str] | None,
        typer.Option(help=_("accept, decline, schedule u outcome; se puede repetir; si falta, todos.")),
    ] = None,
    hours: Annotated[int, typer.Option(min=1, max=336, help=_("Por cuántas horas."))] = USUAL_HOURS,
    uses: Annotated[int, typer.Option(min=1, max=100, help=_("Cuántas veces se puede abrir."))] = USUAL_USES,
    as_json: Json = False,
) -> None:
    """Make a link; address and PIN go two ways."""
    acts = tuple(dict.fromkeys(act or ACTS))
    if not set(acts) <= set(ACTS):
        fail(_("Los actos son: {acts}").format(acts=" ".join(ACTS)), 2)
    which = number(referral_id)

    async def work(runtime: Runtime) -> dict[str, Any]:
        said = await runtime.governance.change_here(
            runtime.links.making(which, NewLink(acts=acts, hours=hours, uses=uses))
        )
        link_id = UUID(said["id"])
        return {**said, "url": runtime.links.address(link_id), "pin": runtime.links.pin_of(link_id)}

    said = ended(_with(work))
    if as_json:
        typer.echo(json_line(said))
        return
    typer.echo(_("Enlace {id}: {url}").format(id=said["id"], url=said["url"]))
    typer.echo(_("PIN {pin}: dígalo por teléfono, nunca por el mismo medio que el enlace.").format(pin=said["pin"]))


@app.command("list", help=_("Mostrar los enlaces de una referencia, sin dirección ni PIN."))
def list_(referral_id: Referral, as_json: Json = False) -> None:
    """Show the links of a referral."""
    which = number(referral_id)

    async def work(runtime: Runtime) -> list[Link]:
        async with runtime.database.connection() as connection:
            return await links_of(connection, which)

    found = ended(_with(work))
    if as_json:
        typer.echo(json_line([link_json(each) for each in found]))
        return
    table = Table(_("Número"), _("Institución"), _("Actos"), _("Vence"), _("Usos"), _("Retirado"))
    for each in found:
        until = f"{each.expires_at.astimezone(PARAGUAY):%Y-%m-%d %H:%M}"
        revoked = "" if each.revoked_at is None else f"{each.revoked_at.astimezone(PARAGUAY):%Y-%m-%d %H:%M}"
        uses = f"{each.uses}/{each.uses_allowed}"
        table.add_row(str(each.id), *map(cell, (each.institution, " ".join(each.acts), until, uses, revoked)))
    screen().print(table)


@app.command(help=_("Retirar un enlace en el acto."))
def revoke(
    link_id: Annotated[str, typer.Argument(metavar="ID", help=_("Número del enlace."))], as_json: Json = False
) -> None:
    """Take a link back."""
    which = number(link_id)

    async def work(runtime: Runtime) -> dict[str, Any]:
        return await runtime.governance.change_here(runtime.links.revoking(which))

    said = ended(_with(work))
    if as_json:
        typer.echo(json_line(said))
        return
    typer.echo(_("Hecho: {id}, entrada {entry}").format(id=said["id"], entry=said["receipt"]["entry_id"]))


async def _with(work: Callable[[Runtime], Awaitable[T]]) -> T:
    async with open_runtime(load_settings()) as runtime:
        return await work(runtime)
