"""How commands change what decisions rest on: through the one way the faces have, refusals told with an exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, NoReturn, Protocol, TypeVar
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.catalogue.service import institutions
from gateway.cli.context import governance_of, open_context
from gateway.clock import PARAGUAY
from gateway.governance.refusals import refused
from gateway.governance.service import Work
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid
from schemas.text import _, printable

_PART = 200


class _Row(Protocol):
    @property
    def id(self) -> UUID: ...


RowT = TypeVar("RowT", bound=_Row)
DoneT = TypeVar("DoneT")


def carry_out(work: Work) -> dict[str, Any]:
    """Do a change for whoever runs this machine and return what is said of it; ends the command when it is refused."""

    async def done() -> dict[str, Any]:
        async with open_context() as context:
            with refused():
                return await governance_of(context).change_here(work)

    return ended(done())


def ended(doing: Coroutine[Any, Any, DoneT]) -> DoneT:
    """Run what a command does and return its result; ends the command when it is refused."""
    try:
        return asyncio.run(doing)
    except errors.BadRequest as error:
        # What to do and with which values: a pointer into a message would say nothing here.
        what = error.detail or _("El código no existe.")
        codes = _("Los hay: {codes}").format(codes=" ".join(sorted(error.allowed))) if error.allowed else ""
        fail(f"{what} {codes}".rstrip(), 2)
    except errors.Conflict as error:
        fail(error.detail or error.code, 1)
    except errors.NotFound:
        fail(_("No hay nada en vigor con ese número o código."), 1)


def read_all(read: Callable[[AsyncConnection, UUID | None, int], Awaitable[list[RowT]]]) -> list[RowT]:
    """Read a list to its end, part by part."""

    async def parts() -> list[RowT]:
        found: list[RowT] = []
        async with open_context() as context, context.database.connection() as connection:
            while True:
                part = await read(connection, found[-1].id if found else None, _PART)
                found.extend(part)
                if len(part) < _PART:
                    return found

    return asyncio.run(parts())


async def known_institution(connection: AsyncConnection, code: str) -> None:
    """Raise BadRequest unless the catalogue has an institution of this code."""
    known = await institutions(connection)
    if code not in known:
        raise errors.BadRequest("unknown-code", detail=_("La institución no existe en el catálogo."), allowed=known)


def number(text: str) -> UUID:
    """Read the number of a record from the command line; ends the command when it is none."""
    try:
        return parse_uuid(text)
    except InvalidIdentifier:
        fail(_("El número es un UUID."), 2)


def instant(text: str) -> datetime:
    """Read a moment (ISO 8601) from the command line, without an offset in Paraguay's; ends the command when none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(_("Se esperaba una hora como 2026-11-20T08:00, no {text}").format(text=printable(text)), 2)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=PARAGUAY)


def fail(text: str, code: int) -> NoReturn:
    """End the command with what to do and an exit code."""
    typer.echo(text, err=True)
    raise typer.Exit(code)
