"""Individuals: persons of our registry, seen by the institution that presented them or holds an answer of theirs.

Nobody is registered here: whoever is not known has no Individual, so no message makes a person known to the decision.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, literal, select, union
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from consent import people
from consent.tables import agreement as agreement_table
from consent.tables import consent_record, protective_flag
from gateway import errors
from gateway.registry import service as registry
from gateway.registry.models import PersonRef
from gateway.standards.govstack.models import Answer, Call, object_id
from gateway.standards.govstack.tables import individual
from schemas.errors import InvalidIdentifier
from schemas.text import _


async def create(call: Call) -> Answer:
    """Find the person that an identifier names; the institution sees them as an Individual from now on."""
    system, value = _identifier(call)
    who = await registry.find_person(call.connection, call.vault, system, value)
    if who is None or not await _open(call, who.id):
        raise errors.NotFound("not-found")
    await _keep(call, who.id, system)
    return _said("consentbb.individual_created", who.id), {"individual": _echo(call, who.id)}


async def change(call: Call) -> Answer:
    """Add the institution's own identifier to a person; a national one is only compared, never handed out."""
    who = await seen(call, call.path["individualId"])
    given = call.message["individual"]
    if given.get("id", str(who.id)) != str(who.id):
        raise errors.BadRequest("other-object", pointer="/individual/id", detail=_("Es el id de otro objeto."))
    system, value = _identifier(call)
    holder = await registry.find_person(call.connection, call.vault, system, value)
    if holder is None and system not in registry.NATIONAL:
        await registry.add_identifiers(call.connection, call.vault, who.id, [(system, value)])
    elif holder is None or holder.id != who.id:
        # Whether nobody has this identifier or somebody else does is not told.
        detail = _("Ese identificador no se puede asignar a esta persona.")
        raise errors.BadRequest("bad-identifier", pointer="/individual/externalId", detail=detail)
    await _keep(call, who.id, system)
    return _said("consentbb.individual_changed", who.id), {"individual": _echo(call, who.id)}


async def show(call: Call) -> Answer:
    """Show an Individual: its id and the system of the identifier it was presented by, never the identifier."""
    who = await seen(call, call.path["individualId"])
    mine = (individual.c.institution == call.institution) & (individual.c.person_id == who.id)
    system = await call.connection.scalar(select(individual.c.system).where(mine))
    return _said("consentbb.individual_read", who.id), {"individual": individual_json(who.id, system, call.institution)}


async def show_all(call: Call) -> Answer:
    """List the Individuals of the caller's institution by id."""
    persons = _persons_of(call.institution).subquery()
    systems = individual.c.institution == call.institution
    query = (
        select(persons.c.person_id, individual.c.system)
        .join(individual, systems & (individual.c.person_id == persons.c.person_id), isouter=True)
        .where(~closed(persons.c.person_id, call.institution))
        .order_by(persons.c.person_id)
        .offset(call.offset)
        .limit(call.limit)
    )
    found = [
        individual_json(person_id, system, call.institution)
        for person_id, system in await call.connection.execute(query)
    ]
    return {"event": "consentbb.individuals_read", "individuals": len(found)}, {"individuals": found}


async def seen(call: Call, individual_id: str) -> PersonRef:
    """Return the person of an Individual that the caller's institution may see; raises NotFound."""
    person_id = object_id(individual_id)
    persons = _persons_of(call.institution).subquery()
    mine = select(exists().where(persons.c.person_id == person_id))
    who = None
    if await call.connection.scalar(mine) and await _open(call, person_id):
        who = await registry.find_person(call.connection, call.vault, "siis", str(person_id))
    if who is None:
        raise errors.NotFound("not-found")
    return who


async def of_header(call: Call) -> PersonRef:
    """Return the person that the request's header names; raises BadRequest without it."""
    if call.individual is None:
        detail = _("Falta la cabecera X-ConsentBB-IndividualId.")
        raise errors.BadRequest("missing-individual", detail=detail)
    return await seen(call, call.individual)


def agreements_of(institution: str) -> Select[Any]:
    """Return the query for the agreements that an institution is party to; the parties of a code never change."""
    document = agreement_table.c.document
    mine = (document["requester"].astext == institution) | (document["holder"].astext == institution)
    return select(agreement_table.c.code).where(agreement_table.c.version == 1, mine)


def individual_json(person_id: UUID, system: str | None, institution: str) -> dict[str, Any]:
    """Return an Individual without its identifier."""
    told = {"id": str(person_id)}
    return told if system is None else told | {"externalIdType": system.removeprefix(_own(institution))}


def _persons_of(institution: str) -> Any:
    presented = select(individual.c.person_id).where(individual.c.institution == institution)
    answered = select(consent_record.c.subject).where(consent_record.c.agreement.in_(agreements_of(institution)))
    return union(presented, answered)


def closed(subject: ColumnElement[Any], institution: str) -> ColumnElement[bool]:
    """Say in SQL whether a person's case is closed to an institution: to everybody, or to it."""
    flag = protective_flag.c
    everybody = flag.kind.in_((people.SEALED, people.COURT_ORDER))
    barred = (flag.kind == people.AGGRESSOR) & (flag.target == institution)
    return exists().where(flag.subject == subject, everybody | barred)


async def _open(call: Call, person_id: UUID) -> bool:
    return not await is_closed(call.connection, person_id, call.institution)


async def is_closed(connection: AsyncConnection, person_id: UUID, institution: str) -> bool:
    """Say whether a person's case is closed to an institution: to everybody, or to it."""
    return bool(await connection.scalar(select(closed(literal(person_id), institution))))


async def _keep(call: Call, person_id: UUID, system: str) -> None:
    new = {"institution": call.institution, "person_id": person_id, "system": system, "created_at": call.at}
    await call.connection.execute(upsert(individual).values(new).on_conflict_do_nothing())


def _identifier(call: Call) -> tuple[str, str]:
    """Return system and normalised value of the identifier in the message; one of no known system is the sender's."""
    given = call.message["individual"]
    system = given["externalIdType"]
    if system not in registry.NATIONAL:
        system = f"{_own(call.institution)}{system}"
    try:
        return system, registry.normalise(system, given["externalId"])
    except InvalidIdentifier:
        raise errors.BadRequest("bad-identifier", pointer="/individual/externalId") from None


def _echo(call: Call, person_id: UUID) -> dict[str, Any]:
    given = call.message["individual"]
    return {"id": str(person_id), "externalId": given["externalId"], "externalIdType": given["externalIdType"]}


def _own(institution: str) -> str:
    return f"urn:siis:institution:{institution}:"


def _said(event: str, person_id: UUID) -> dict[str, Any]:
    return {"event": event, "subject": str(person_id)}
