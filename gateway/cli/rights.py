"""``siis rights``: the requests of persons, as whoever runs the machine takes, follows and answers them."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from rich.table import Table

from gateway import errors
from gateway.api.rights import request_json, state_text
from gateway.cli.changes import fail, number
from gateway.cli.context import Context, governance_of, open_context
from gateway.cli.screen import cell, json_line, screen
from gateway.clock import local_day
from gateway.governance.service import Work
from gateway.rights.models import Answer, NewRequest, RightsRequest
from gateway.rights.service import Rights
from schemas.codes import label
from schemas.text import _, printable

app = typer.Typer(help=_("Pedidos de las personas sobre sus datos."), no_args_is_help=True, add_completion=False)

Number = Annotated[str, typer.Argument(metavar="ID", help=_("Número, como lo muestra la lista."))]
Institution = Annotated[str, typer.Option(help=_("Institución que responde, por ejemplo MDS."))]
System = Annotated[str, typer.Option(help=_("Sistema del identificador."))]
Json = Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))]
_PART = 200
_LONGEST = 4000

T = TypeVar("T")


@app.command(help=_("Registrar el pedido de una persona: access, rectification, deletion, portability u opposition."))
def receive(
    right: Annotated[str, typer.Argument(metavar="DERECHO", help=_("Código del derecho."))],
    subject: Annotated[str, typer.Option(help=_("Identificador de la persona."))],
    system: System = "cedula",
    representative: Annotated[str | None, typer.Option(help=_("Cédula de quien pide en su nombre."))] = None,
    dataset: Annotated[str | None, typer.Option(help=_("Conjunto de datos; si falta, todo."))] = None,
    purpose: Annotated[str | None, typer.Option(help=_("Finalidad a la que se opone."))] = None,
    text: Annotated[Path | None, typer.Option(help=_("Archivo con lo que pide, en sus palabras."))] = None,
    as_json: Json = False,
) -> None:
    """Register a request."""
    new = NewRequest(
        right=right,
        subject=(system, subject),
        representative=None if representative is None else ("cedula", representative),
        dataset=dataset,
        purpose=purpose,
        text=read_text(text),
    )
    said = _do(lambda rights: rights.steps.receiving(new))
    if as_json:
        typer.echo(json_line(said))
        return
    typer.echo(_("Pedido {id}: responder hasta el {day}.").format(id=said["request"], day=said["due_on"]))
    to = ", ".join(said["routed_to"]) or _("la UTGS debe decidir")
    typer.echo(_("  va a: {institutions}").format(institutions=to))


@app.command(help=_("Enviar un pedido a las instituciones que tienen los datos."))
def route(
    request_id: Number,
    to: Annotated[list[str], typer.Option(help=_("Institución; se puede repetir."))],
    subject: Annotated[
        str | None, typer.Option(help=_("Otro identificador de la persona, si no se la conocía."))
    ] = None,
    system: System = "cedula",
    as_json: Json = False,
) -> None:
    """Send a request on."""
    known, which = None if subject is None else (system, subject), number(request_id)
    _tell(_do(lambda rights: rights.steps.routing(which, to, known)), as_json)


@app.command(help=_("Anotar que una institución empezó a trabajar en su parte."))
def start(request_id: Number, institution: Institution, as_json: Json = False) -> None:
    """Begin with a part."""
    which = number(request_id)
    _tell(_do(lambda rights: rights.steps.starting(which, institution)), as_json)


@app.command(help=_("Responder la parte de una institución."))
def answer(
    request_id: Number,
    institution: Institution,
    outcome: Annotated[str, typer.Option(help=_("Código del resultado."))],
    norm: Annotated[str | None, typer.Option(help=_("Norma en que se apoya."))] = None,
    text: Annotated[Path | None, typer.Option(help=_("Archivo con el motivo o la explicación."))] = None,
    delivered: Annotated[
        Path | None, typer.Option(help=_("Archivo que se entregó a la persona; solo se guarda su SHA-256."))
    ] = None,
    reference: Annotated[str | None, typer.Option(help=_("Referencia de lo entregado."))] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help=_("Fin del bloqueo."))] = None,
    as_json: Json = False,
) -> None:
    """Answer a part."""
    if (delivered is None) != (reference is None):
        fail(_("--delivered y --reference van juntos."), 2)
    given = Answer(outcome=outcome, norm=norm, text=read_text(text), until=None if until is None else until.date())
    if delivered is not None and reference is not None:
        with open(delivered, "rb") as file:
            given = replace(given, delivered=(reference, hashlib.file_digest(file, "sha256").hexdigest()))
    which = number(request_id)
    _tell(_do(lambda rights: rights.steps.answering(which, given, institution)), as_json)


@app.command(help=_("Retirar un pedido, porque la persona lo pide."))
def withdraw(request_id: Number, as_json: Json = False) -> None:
    """Withdraw what is open of a request."""
    which = number(request_id)
    _tell(_do(lambda rights: rights.steps.withdrawing(which, None)), as_json)


@app.command("list", help=_("Mostrar los pedidos, sin nada personal."))
def list_(
    overdue: Annotated[bool, typer.Option("--overdue", help=_("Solo los vencidos."))] = False,
    institution: Annotated[str | None, typer.Option(help=_("Solo los de esta institución."))] = None,
    as_json: Json = False,
) -> None:
    """Show requests."""
    found = ended(_all(overdue, institution))
    if as_json:
        typer.echo(json_line([request_json(item) for item in found]))
        return
    table = Table(_("Número"), _("Derecho"), _("Recibido"), _("Vence"), _("Institución"), _("Estado"))
    late = _("VENCIDO")
    for item in found:
        due = f"{item.due_on} {late}" if item.overdue else str(item.due_on)
        for part in item.parts:
            received = str(local_day(item.received_at))
            table.add_row(
                str(item.id), label("rights", item.right), received, due, part.institution, cell(state_text(part))
            )
    screen().print(table)


@app.command(help=_("Mostrar un pedido con lo que dice; mirarlo queda registrado."))
def show(request_id: Number, as_json: Json = False) -> None:
    """Show a request."""
    found = ended(_find(number(request_id)))
    if as_json:
        typer.echo(json_line(request_json(found, whole=True)))
        return
    right = label("rights", found.right)
    late = _("VENCIDO")
    typer.echo(
        _("{right}, recibido el {day}, responder hasta el {due}").format(
            right=right, day=local_day(found.received_at), due=found.due_on
        )
        + (f" ({late})" if found.overdue else "")
    )
    who = " ".join(filter(None, (found.names, *(f"{system}:{value}" for system, value in found.subject))))
    typer.echo(_("Persona: {who}").format(who=printable(who)))
    if found.representative is not None:
        typer.echo(_("En su nombre: {who}").format(who=printable(":".join(found.representative))))
    if found.text:
        typer.echo(_("Pide: {text}").format(text=printable(found.text)))
    for part in found.parts:
        typer.echo(f"{part.institution}: {state_text(part)}")
        for text in (part.norm, part.text, part.reference, part.sha256):
            if text:
                typer.echo(f"    {printable(text)}")


def rights_of(context: Context) -> Rights:
    """Return the requests of persons over an open database."""
    governance = governance_of(context)
    return Rights(governance=governance, audit=context.audit, vault=context.vault, epochs=context.epochs)


def ended(work: Awaitable[T]) -> T:
    """Return what a command's work gives; ends the command with what to do when it is refused."""

    async def done() -> T:
        return await work

    try:
        return asyncio.run(done())
    except errors.BadRequest as error:
        what = error.detail or _("El código o el identificador no es válido.")
        codes = _("Los hay: {codes}").format(codes=" ".join(sorted(error.allowed))) if error.allowed else ""
        fail(f"{what} {codes}".rstrip(), 2)
    except errors.Conflict as error:
        fail(error.detail or error.code, 1)
    except errors.NotFound:
        fail(_("No hay nada con ese número."), 1)


def read_text(path: Path | None) -> str | None:
    """Return the text of a file; ends the command when it is none, or too long."""
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        fail(_("No se puede leer el archivo {path}.").format(path=path), 2)
    except UnicodeDecodeError:
        fail(_("El archivo {path} no está en UTF-8.").format(path=path), 2)
    if not 0 < len(text) <= _LONGEST:
        fail(_("El texto de {path} lleva de 1 a {n} caracteres.").format(path=path, n=_LONGEST), 2)
    return text


def machine() -> dict[str, Any]:
    """Return the group of an entry that says who acted: whoever runs this machine."""
    return {"channel": "command-line", "user": f"uid:{os.getuid()}"}


def _do(make: Callable[[Rights], Work]) -> dict[str, Any]:
    async def done() -> dict[str, Any]:
        async with open_context() as context:
            return await governance_of(context).change_here(make(rights_of(context)))

    return ended(done())


async def _all(overdue: bool, institution: str | None) -> list[RightsRequest]:
    found: list[RightsRequest] = []
    async with open_context() as context:
        rights = rights_of(context)
        while True:
            after = found[-1].id if found else None
            part = await rights.search(person=None, institution=institution, overdue=overdue, after=after, limit=_PART)
            found += part
            if len(part) < _PART:
                return found


async def _find(request_id: UUID) -> RightsRequest:
    async with open_context() as context:
        rights = rights_of(context)
        found = await rights.find(request_id, institution=None, person=None)
        await rights.record_reading(found, machine())
        return found


def _tell(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(said))
        return
    typer.echo(_("Hecho: {id}, entrada {entry}").format(id=said["request"], entry=said["receipt"]["entry_id"]))
