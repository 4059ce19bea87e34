"""``siis erasure``: restricts a person's data, erases a person by order, and makes backups forget too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.erasure import Erased, list_erased
from consent import restrictions
from consent.models import Actor
from consent.restrictions import Restriction
from consent.sameness import share
from gateway.cli import epoch
from gateway.cli.changes import ended
from gateway.cli.context import Context, governance_of, open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.clock import local_day, utc_now
from gateway.commands import receipt_json
from gateway.database import Database, owner_url
from gateway.erasure.service import Erasure, Erasures, Order, Outlook
from gateway.governance.people import Desk, Named, refused
from gateway.governance.service import Work
from gateway.registry.merging import same_persons
from schemas.codes import code_list, label
from schemas.text import _, printable

app = typer.Typer(
    help=_("Bloquear y borrar los datos de una persona, por orden."), no_args_is_help=True, add_completion=False
)

Cedula = Annotated[str, typer.Argument(metavar="CEDULA", help=_("Cédula de la persona."))]
Norm = Annotated[str, typer.Option(help=_("Norma en que se apoya, por ejemplo «Ley 7593/2025, art. 31»."))]
Reference = Annotated[str, typer.Option("--order", help=_("Acto que lo ordena, por ejemplo la resolución."))]
Holder = Annotated[str, typer.Option(help=_("Solo los datos que tiene esta institución; si falta, todos."))]
Json = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]


@app.command(help=_("Bloquear los datos de una persona: quedan, y nadie recibe nada de ella hasta ese día."))
def restrict(
    cedula: Cedula,
    norm: Norm,
    order: Reference,
    until: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help=_("Último día del bloqueo."))],
    holder: Holder = "",
    as_json: Json = False,
) -> None:
    """Restrict a person's data."""

    async def work(connection: AsyncConnection, person: Any, at: datetime) -> dict[str, Any]:
        said = await restrictions.restrict(
            connection, person, norm=norm, reference=order, until=until.date(), at=at, holder=holder
        )
        await share(connection, await same_persons(connection, person))
        return said

    said = _about(cedula, work)
    if as_json:
        typer.echo(json_line(said))
        return
    text = _("Datos bloqueados hasta el {day}; entrada {entry}.")
    typer.echo(text.format(day=said["until"], entry=said["receipt"]["entry_id"]))


@app.command(help=_("Levantar el bloqueo de los datos de una persona, por otra orden."))
def lift(
    cedula: Cedula,
    norm: Norm,
    order: Reference,
    holder: Annotated[str | None, typer.Option(help=_("Solo el de los datos de esta institución."))] = None,
    as_json: Json = False,
) -> None:
    """Lift a restriction."""

    async def work(connection: AsyncConnection, person: Any, at: datetime) -> dict[str, Any]:
        done = [
            await restrictions.lift(connection, each, norm=norm, reference=order, at=at, holder=holder)
            for each in await same_persons(connection, person)
        ]
        return done[0] | {"changed": any(each["changed"] for each in done)}

    said = _about(cedula, work)
    if as_json:
        typer.echo(json_line(said))
        return
    text = _("Bloqueo levantado; entrada {entry}.") if said["changed"] else _("No había bloqueo; entrada {entry}.")
    typer.echo(text.format(entry=said["receipt"]["entry_id"]))


@app.command("order", help=_("Borrar a una persona por orden: muestra lo que se destruye y pide confirmación."))
def order_(
    cedula: Cedula,
    norm: Norm,
    ordered_by: Annotated[str, typer.Option(help=_("Quién lo ordena: cargo e institución."))],
    order: Reference,
    ground: Annotated[str, typer.Option(help=_("Código del motivo."))] = "retention-ended",
    yes: Annotated[bool, typer.Option("--yes", help=_("Destruir sin preguntar."))] = False,
    as_json: Json = False,
) -> None:
    """Erase a person."""
    given = Order(ground=ground, norm=norm, ordered_by=ordered_by, reference=order)
    named = Named("cedula", cedula)
    if not yes:
        _show(ended(_outlook(named)), given)
        if not typer.confirm(_("¿Destruirlo? No hay vuelta atrás.")):
            raise typer.Exit(1)
    done = ended(_erase(named, given))
    if as_json:
        typer.echo(json_line(_json(done)))
        return
    typer.echo(_("Borrada: {entries} entradas del registro ya no se pueden leer.").format(entries=done.entries))
    typer.echo(_("Entrada {entry}.").format(entry=receipt_json(done.receipt)["entry_id"]))
    if not done.settled:
        typer.echo(_("Una operación anterior sigue abierta: repita la orden cuando termine."), err=True)
    typer.echo(_("Las copias de la base de datos aún tienen la clave: ciérrelas con «siis erasure finish»."))


app.command("finish", help=_("Cerrar la época de claves: las copias anteriores no abren nada de los borrados."))(
    epoch.finish
)


@app.command("list", help=_("Mostrar los bloqueos y las personas borradas, sin nada personal."))
def list_(as_json: Json = False) -> None:
    """Show what is restricted and erased."""
    found, erased = asyncio.run(_all())
    today = local_day(utc_now())
    if as_json:
        shown = {
            "restrictions": [
                {**item._asdict(), "subject": str(item.subject), "in_force": today <= item.until} for item in found
            ],
            "erased": [{**each._asdict(), "pseudonym": str(each.pseudonym)} for each in erased],
        }
        typer.echo(json_line(shown))
        return
    table = Table(_("Persona"), _("Datos de"), _("Conjunto"), _("Hasta"), _("Norma"), _("Orden"))
    everything, expired = _("todos"), _("VENCIDO: corresponde borrar")
    for item in found:
        over = "" if today <= item.until else f" ({expired})"
        table.add_row(
            str(item.subject),
            cell(item.holder or everything),
            cell(item.dataset or everything),
            f"{item.until}{over}",
            cell(item.norm),
            cell(item.reference),
        )
    screen().print(table)
    table = Table(_("Seudónimo en el registro"), _("Borrada (UTC)"), _("Entradas"))
    for each in erased:
        table.add_row(str(each.pseudonym), f"{each.at:%Y-%m-%d %H:%M}", str(each.entries))
    screen().print(table)


def _about(cedula: str, do: Any) -> dict[str, Any]:
    """Do a change about a person named by cédula, for whoever runs this machine."""

    async def done() -> dict[str, Any]:
        async with open_context() as context:
            governance = governance_of(context)
            desk = Desk(governance, context.vault)

            async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
                who, _mandate = await desk.subject(connection, None, Named("cedula", cedula), at)
                said: dict[str, Any] = await do(connection, who.id, at)
                return said

            changing: Work = work
            with refused():
                return await governance.change_here(changing)

    return ended(done())


@asynccontextmanager
async def owned(context: Context) -> AsyncIterator[Database]:
    """Open the database of a context as the role that owns the tables."""
    owner = Database(owner_url(context.settings), pool_size=2)
    try:
        yield owner
    finally:
        await owner.close()


async def _outlook(named: Named) -> Outlook:
    async with open_context() as context, owned(context) as owner:
        return await Erasures(owner=owner, audit=context.audit, vault=context.vault).outlook(named)


async def _erase(named: Named, order: Order) -> Erasure:
    async with open_context() as context, owned(context) as owner:
        return await Erasures(owner=owner, audit=context.audit, vault=context.vault).erase(named, order)


async def _all() -> tuple[list[Restriction], list[Erased]]:
    async with open_context() as context, context.database.connection() as connection:
        return await restrictions.list_restrictions(connection), await list_erased(connection)


def _show(outlook: Outlook, order: Order) -> None:
    typer.echo(_("Se destruye, sin vuelta atrás:"))
    typer.echo(
        _("  el detalle de {n} entradas del registro (las entradas y sus pruebas quedan)").format(n=outlook.entries)
    )
    kinds = _kinds()
    for kind, count in outlook.rows.items():
        typer.echo(f"  {kinds[kind]}: {count}")
    if order.ground in code_list("erasure-grounds"):
        typer.echo(_("Motivo: {ground}.").format(ground=label("erasure-grounds", order.ground)))
    typer.echo(_("Ordena: {who}, {order}.").format(who=printable(order.ordered_by), order=printable(order.reference)))
    if outlook.retained_until is not None:
        typer.echo(_("Su plazo de conservación corre hasta el {day}.").format(day=outlook.retained_until))


def _kinds() -> dict[str, str]:
    return {
        "answers": _("respuestas guardadas para repetir"),
        "texts": _("textos de hechos de referencias"),
        "referrals": _("textos y números de referencias"),
        "requests": _("textos y respuestas de sus pedidos"),
        "breaches": _("menciones en listas de vulneraciones"),
        "notices": _("avisos"),
        "signatures": _("firmas de consentimientos"),
        "revisions": _("versiones de consentimientos"),
        "individuals": _("presentaciones por instituciones"),
        "consents": _("pruebas de consentimientos"),
        "mandates": _("representaciones"),
        "protection": _("protecciones, oposiciones y bloqueos"),
        "emergencies": _("números de incidente de accesos de emergencia"),
        "facts": _("hechos de su estatus de protección"),
        "household": _("hogar que queda sin nadie"),
        "wards": _("personas a su cargo, que dejan de nombrarla"),
        "registers": _("filas de padrones tomados"),
        "identifiers": _("identificadores"),
        "person": _("nombres y datos de la persona"),
    }


def _json(done: Erasure) -> dict[str, Any]:
    return {
        "pseudonym": None if done.pseudonym is None else str(done.pseudonym),
        "entries": done.entries,
        "rows": done.rows,
        "settled": done.settled,
        "receipt": receipt_json(done.receipt),
    }
