"""``siis role``: who holds which role in an institution, and which compartments its roles hold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from consent import roles
from consent.models import Actor
from consent.roles import HeldCompartment, HeldRole
from gateway.cli.changes import carry_out, known_institution, number, read_all
from gateway.cli.screen import cell, json_line, screen
from gateway.clock import utc_now
from schemas.codes import label
from schemas.text import _

app = typer.Typer(help=_("Roles y compartimentos de las instituciones."), no_args_is_help=True, add_completion=False)
compartment = typer.Typer(
    help=_("Clases de datos sensibles que ven los roles."), no_args_is_help=True, add_completion=False
)
app.add_typer(compartment, name="compartment")

Institution = Annotated[str, typer.Option(help=_("Código de la institución, por ejemplo MDS."))]
Only = Annotated[str | None, typer.Option("--institution", help=_("Solo los de esta institución."))]
Json = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]
Number = Annotated[str, typer.Argument(metavar="ID", help=_("Número, como lo muestra la lista."))]


@app.command(help=_("Otorgar un rol a un usuario, o a un sistema (client:ID)."))
def grant(
    user: Annotated[str, typer.Argument(metavar="USUARIO", help=_("Usuario de la institución, o client:ID."))],
    role: Annotated[str, typer.Argument(metavar="ROL", help=_("Código del rol."))],
    institution: Institution,
    days: Annotated[int | None, typer.Option(min=1, max=3660, help=_("Por cuántos días; si falta, sin fin."))] = None,
    as_json: Json = False,
) -> None:
    """Grant a role."""

    async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        await known_institution(connection, institution)
        valid_to = None if days is None else at + timedelta(days=days)
        return await roles.grant_role(
            connection, actor, institution=institution, user=user, role=role, valid_to=valid_to, at=at
        )

    _tell(carry_out(work), as_json, lambda said: _("Rol otorgado: {role} a {user} de {institution}").format(**said))


@app.command(help=_("Revocar un rol, en el acto."))
def revoke(assignment: Number, as_json: Json = False) -> None:
    """Revoke a role."""
    which = number(assignment)

    async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        return await roles.revoke_role(connection, actor, which, at=at)

    _tell(carry_out(work), as_json, lambda said: _("Rol revocado: {role} a {user} de {institution}").format(**said))


@app.command("list", help=_("Mostrar los roles otorgados que están en vigor."))
def list_(institution: Only = None, as_json: Json = False) -> None:
    """Show the granted roles in force."""

    async def read(connection: AsyncConnection, after: UUID | None, limit: int) -> list[HeldRole]:
        return await roles.list_assignments(connection, institution=institution, at=utc_now(), after=after, limit=limit)

    held = read_all(read)
    if as_json:
        typer.echo(json_line([each._asdict() for each in held]))
        return
    table = Table(_("Número"), _("Institución"), _("Usuario"), _("Rol"), _("Otorgado por"), _("Vale hasta"))
    for each in held:
        until = "" if each.valid_to is None else f"{each.valid_to:%Y-%m-%d %H:%M:%SZ}"
        row = (each.institution, each.user, label("roles", each.role), each.granted_by, until)
        table.add_row(str(each.id), *map(cell, row))
    screen().print(table)


@compartment.command(help=_("Dar a un rol una clase de datos sensibles."))
def add(
    role: Annotated[str, typer.Argument(metavar="ROL", help=_("Código del rol."))],
    name: Annotated[str, typer.Argument(metavar="COMPARTIMENTO", help=_("Código de la etiqueta, por ejemplo health."))],
    institution: Institution,
    as_json: Json = False,
) -> None:
    """Let a role see a class of sensitive data."""

    async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        await known_institution(connection, institution)
        return await roles.grant_compartment(
            connection, actor, institution=institution, role=role, compartment=name, at=at
        )

    text = _("Compartimento dado: {compartment} a {role} de {institution}")
    _tell(carry_out(work), as_json, lambda said: text.format(**said))


@compartment.command(help=_("Quitar a un rol una clase de datos sensibles, en el acto."))
def remove(grant_id: Number, as_json: Json = False) -> None:
    """Take a class of sensitive data from a role."""
    which = number(grant_id)

    async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        return await roles.revoke_compartment(connection, actor, which, at=at)

    text = _("Compartimento quitado: {compartment} a {role} de {institution}")
    _tell(carry_out(work), as_json, lambda said: text.format(**said))


@compartment.command("list", help=_("Mostrar las clases de datos sensibles que ve cada rol."))
def list_compartments(institution: Only = None, as_json: Json = False) -> None:
    """Show which classes of sensitive data each role sees."""

    async def read(connection: AsyncConnection, after: UUID | None, limit: int) -> list[HeldCompartment]:
        return await roles.list_compartments(connection, institution=institution, after=after, limit=limit)

    held = read_all(read)
    if as_json:
        typer.echo(json_line([each._asdict() for each in held]))
        return
    table = Table(_("Número"), _("Institución"), _("Rol"), _("Compartimento"), _("Otorgado por"))
    for each in held:
        named = (label("roles", each.role), label("labels", each.compartment))
        table.add_row(str(each.id), each.institution, *named, cell(each.granted_by))
    screen().print(table)


def _tell(said: dict[str, Any], as_json: bool, sentence: Callable[[dict[str, Any]], str]) -> None:
    if as_json:
        typer.echo(json_line(said))
        return
    typer.echo(sentence(said))
    typer.echo(_("  número {id}, entrada {entry}").format(id=said["id"], entry=said["receipt"]["entry_id"]))
