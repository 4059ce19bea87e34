"""Finds the person a face names, says what a caller may know of them, and carries out what is done about them.

Somebody who is unknown here, whose case is closed, or who is protected from the caller's institution is nobody to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from consent import people
from consent.errors import (
    ConsentNotInForce,
    InvalidRecord,
    NotInForce,
    TextPublished,
    UnknownAgreement,
)
from consent.models import Actor, Caller
from gateway import errors
from gateway.commands import Command, Done
from gateway.governance.service import Governance, Work
from gateway.registry import service as registry
from gateway.registry.models import PersonRef
from gateway.vault import Vault
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier, UnknownCode
from schemas.text import _

MANAGE, PROTECT = "consent.manage", "protection.manage"
#: What staff do about consents, and a person with a token of their own about theirs.
RECORD = ("consent.record", "own.consent")
_NO_ONE = UUID(int=0)


class Named(NamedTuple):
    """A person as a face names them: an identifier and its system, as written."""

    system: str
    value: str


class Looked(NamedTuple):
    """What somebody was shown, and the receipt of the entry that says so."""

    shown: Any
    receipt: dict[str, str]


class Desk:
    """Where things are done about a person: for a caller, or for whoever runs this machine (``None``)."""

    def __init__(self, governance: Governance, vault: Vault) -> None:
        self.governance, self.vault = governance, vault

    async def subject(
        self,
        connection: AsyncConnection,
        caller: Caller | None,
        named: Named | None,
        at: datetime,
        *,
        pointer: str = "/subject",
    ) -> tuple[PersonRef, people.Mandate | None]:
        """Return the person something is about; with the mandate, where a person with their own token acts for another.

        A person who names nobody is meant themselves. Raises BadRequest for no or a bad identifier, and NotFound for
        somebody unknown, closed to the caller, or whom a person does not act for.
        """
        who = await self.find(connection, named, caller, pointer=pointer)
        mandate = await self._permit(connection, caller, who, at)
        if who is None:
            raise errors.NotFound("not-found")
        return who, mandate

    async def find(
        self, connection: AsyncConnection, named: Named | None, caller: Caller | None, *, pointer: str = "/subject"
    ) -> PersonRef | None:
        """Return the person named, whoever may know of them, or None; raises BadRequest for a bad identifier."""
        if named is None:
            if caller is None or caller.person is None:
                raise errors.BadRequest("missing-subject", pointer=pointer, detail=_("Diga de qué persona se trata."))
            named = Named("siis", str(caller.person))
        try:
            value = registry.normalise(*named)
        except InvalidIdentifier:
            detail = _("La cédula va sin puntos ni espacios; el RUC, con guion y dígito verificador.")
            raise errors.BadRequest("bad-identifier", pointer=f"{pointer}/value", detail=detail) from None
        return await registry.find_person(connection, self.vault, named.system, value)

    async def shown(
        self, connection: AsyncConnection, caller: Caller | None, named: Named | None, at: datetime
    ) -> PersonRef | None:
        """Return the person to show something of; None where :meth:`subject` raises NotFound, so that nothing is shown
        of somebody unknown and of somebody closed alike.
        """
        try:
            who, _mandate = await self.subject(connection, caller, named, at)
        except errors.NotFound:
            return None
        return who

    async def known(
        self, connection: AsyncConnection, caller: Caller | None, subject: UUID, at: datetime
    ) -> people.Mandate | None:
        """Raise NotFound unless the caller may know of the person of a record, by our id; return as :meth:`subject`."""
        _who, mandate = await self.subject(connection, caller, Named("siis", str(subject)), at)
        return mandate

    async def _permit(
        self, connection: AsyncConnection, caller: Caller | None, who: PersonRef | None, at: datetime
    ) -> people.Mandate | None:
        """Return the mandate by which a person acts for another, None where none is needed; raises NotFound.

        Somebody unknown costs the same queries as somebody closed, so that the time does not tell them apart.
        """
        subject, birth_date = (_NO_ONE, None) if who is None else (who.id, who.birth_date)
        if caller is None or caller.person == subject:
            return None
        if caller.person is None:
            barred = await people.is_barred(connection, subject, caller.institution)
            closed = await people.is_sealed(connection, subject)
            if barred or (closed and not self.protects(caller)):
                raise errors.NotFound("not-found")
            return None
        mandate = await people.mandate_between(connection, subject, caller.person, birth_date=birth_date, at=at)
        if mandate is None or await people.is_sealed(connection, subject):
            raise errors.NotFound("not-found")
        return mandate

    def protects(self, caller: Caller) -> bool:
        """Say whether a caller keeps protected cases."""
        roles = code_list("roles")
        return any(PROTECT in roles[role]["actions"] for role in self.governance.roles_of(caller))

    async def do(
        self, caller: Caller | None, action: str | tuple[str, ...], work: Work, command: Command | None = None
    ) -> Done:
        """Do a change, or show something and log it, for a caller whose roles allow one of the actions.

        Raises BadRequest, Conflict or NotFound in place of the consent room's errors, and what ``Governance`` raises.
        """
        with refused():
            if caller is None:
                return Done(201, await self.governance.change_here(work), replayed=False)
            return await self.governance.change(caller, action, work, command=command)

    async def look(
        self,
        caller: Caller | None,
        action: str | tuple[str, ...],
        event: str,
        read: Callable[[AsyncConnection, datetime], Awaitable[tuple[UUID | None, dict[str, Any], Any]]],
    ) -> Looked:
        """Show something: ``read`` returns whom it is about, what the log says of it, and what is shown."""
        found: list[Any] = []

        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            subject, said, shown = await read(connection, at)
            found.append(shown)
            return {"event": event, **({} if subject is None else {"subject": str(subject)}), **said}

        done = await self.do(caller, action, work)
        return Looked(found[0], done.answer["receipt"])


def acting(mandate: people.Mandate | None) -> dict[str, str]:
    """Return what the log says of by which mandate a person acted for another."""
    return {} if mandate is None else {"mandate": str(mandate.id)}


@contextmanager
def refused() -> Iterator[None]:
    """Raise the refusals that faces answer and commands print, in place of the consent room's errors."""
    try:
        yield
    except InvalidRecord as error:
        pointer = _POINTERS.get(error.field, f"/{error.field}")
        detail: str | None = _details().get(error.what)
        if error.what == "unknown-code":
            raise errors.BadRequest("unknown-code", pointer=pointer, allowed=error.allowed, detail=detail) from None
        raise errors.BadRequest("invalid-record", pointer=pointer, allowed=error.allowed, detail=detail) from None
    except UnknownCode as error:
        raise errors.BadRequest("unknown-code", pointer="/purpose", allowed=code_list(error.code_list)) from None
    except UnknownAgreement:
        detail = _("No hay un acuerdo activo con ese código del que la institución sea parte.")
        raise errors.BadRequest("unknown-agreement", pointer="/agreement", detail=detail) from None
    except TextPublished:
        detail = _("Esa versión ya se publicó con otras palabras; publique una versión nueva.")
        raise errors.Conflict("text-published", detail=detail) from None
    except ConsentNotInForce:
        raise errors.Conflict("not-in-force", detail=_("El consentimiento ya no está dado.")) from None
    except NotInForce:
        raise errors.NotFound("not-found") from None


# Where a message has a field in another place than the record.
_POINTERS = {"text_version": "/text/version", "language": "/text/language"}


def _details() -> dict[str, str]:
    return {
        "unknown-code": _("Use uno de los códigos permitidos."),
        "missing": _("Falta este dato."),
        "not-on-consent": _("El acuerdo no se apoya en el consentimiento: no hay que pedirlo."),
        "beyond-agreement": _("El acuerdo no pide esto; quítelo."),
        "text-not-published": _("Cite un texto publicado para el acuerdo."),
        "minor": _("La persona es menor de edad: consiente quien la representa."),
        "mandate": _("Esa representación no permite actuar por esta persona ahora."),
        "not-after-start": _("El fin debe ser posterior al comienzo."),
        "oneself": _("Debe ser otra persona."),
        "birth-date-unknown": _("No consta la fecha de nacimiento de la persona."),
        "not-for-this-age": _("Esta clase de representación no corresponde a la edad de la persona."),
        "barred": _("La persona está protegida de quien la representaría."),
        "not-for-this-kind": _("Esta protección no lleva a nadie de quien proteger."),
    }
