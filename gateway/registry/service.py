"""Finds and registers persons, and keeps what is known of their protection."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, insert, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue.models import Service
from gateway.database import driver_connection
from gateway.registry.local_ids import LOCAL, parse_local_id
from gateway.registry.models import NewPerson, PersonDetails, PersonRef, ProtectionStatus
from gateway.registry.observations import Origin, Unit
from gateway.registry.protection import household_status, person_status
from gateway.registry.tables import fact, household, person, person_identifier
from gateway.registry.units import facts_of
from gateway.vault import Vault
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_cedula, parse_ruc, parse_uuid, uuid7

_REF = (
    person.c.id,
    person.c.household_id,
    person.c.birth_date,
    person.c.deceased_on,
    person.c.sex,
    person.c.department,
    person.c.district,
    person.c.attributes,
)


# Somebody found to be another person is that person: whatever identifier is asked for, they are who is found.
_ASKED = person.alias("asked")
_IS_THEM = person.c.id == func.coalesce(_ASKED.c.merged_into, _ASKED.c.id)

# Identifiers that decide who somebody is; one value each per person.
NATIONAL = frozenset({"cedula", "ruc", "siis", LOCAL})


def normalise(system: str, value: str) -> str:
    """Return an identifier in the form it is stored under; raise InvalidIdentifier when it is not well-formed."""
    if system == "cedula":
        return parse_cedula(value)
    if system == "ruc":
        return parse_ruc(value)
    if system == "siis":
        return str(parse_uuid(value))
    if system == LOCAL:
        return parse_local_id(value)
    text = value.strip()
    if not text or any(ord(c) < 32 for c in text):
        raise InvalidIdentifier(system)
    return text


async def find_person(connection: AsyncConnection, vault: Vault, system: str, value: str) -> PersonRef | None:
    """Return the person with an identifier (already normalised), or whom that one was found to be; None: nobody."""
    query: Select[Any]
    if system == "siis":
        # Of somebody erased the row is left, as that of nobody.
        query = select(*_REF).join(_ASKED, _IS_THEM).where(_ASKED.c.id == UUID(value), person.c.names.is_not(None))
    else:
        query = (
            select(*_REF)
            .join(_ASKED, _IS_THEM)
            .join(person_identifier, person_identifier.c.person_id == _ASKED.c.id)
            .where(person_identifier.c.system == system, person_identifier.c.blind_index == vault.index(system, value))
        )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else PersonRef(*row)


async def find_persons(
    connection: AsyncConnection, vault: Vault, system: str, values: Collection[str]
) -> dict[str, PersonRef]:
    """Return the persons that :func:`find_person` finds under identifiers of one system; the unknown are left out."""
    indexes = {vault.index(system, value): value for value in values}
    rows = await connection.execute(
        select(person_identifier.c.blind_index, *_REF)
        .join(_ASKED, person_identifier.c.person_id == _ASKED.c.id)
        .join(person, _IS_THEM)
        .where(person_identifier.c.system == system, person_identifier.c.blind_index.in_(list(indexes)))
    )
    return {indexes[bytes(row.blind_index)]: PersonRef(*row[1:]) for row in rows}


async def person_details(connection: AsyncConnection, vault: Vault, person_id: UUID) -> PersonDetails | None:
    """Return a person with names and identifiers decrypted, or None; None also for somebody erased.

    Somebody found to be another person is that person, who has the identifiers of everybody found to be them.
    """
    found = select(*_REF, person.c.names).join(_ASKED, _IS_THEM).where(_ASKED.c.id == person_id)
    row = (await connection.execute(found)).one_or_none()
    if row is None or row.names is None:
        return None
    names = json.loads(vault.open("person.names", row.id, row.names))
    rows = await connection.execute(
        select(person_identifier.c.id, person_identifier.c.system, person_identifier.c.value)
        .join(person, person_identifier.c.person_id == person.c.id)
        .where(is_or_became(row.id))
        .order_by(person.c.id != row.id, person_identifier.c.id)
    )
    identifiers = tuple((item.system, vault.open("person_identifier.value", item.id, item.value)) for item in rows)
    return PersonDetails(PersonRef(*row[: len(_REF)]), names["given_names"], names["surnames"], identifiers)


def is_or_became(person_id: UUID) -> ColumnElement[bool]:
    """Return the condition on ``person`` of the rows of a person and of everybody found to be them."""
    return or_(person.c.id == person_id, person.c.merged_into == person_id)


async def register(connection: AsyncConnection, vault: Vault, persons: Sequence[NewPerson]) -> None:
    """Insert persons with their identifiers (normalised by the caller); IntegrityError when one is taken."""
    await connection.execute(insert(person), [person_row(vault, item) for item in persons])
    identifiers = [row for item in persons for row in identifier_rows(vault, item)]
    if identifiers:
        await connection.execute(insert(person_identifier), identifiers)


async def add_identifiers(
    connection: AsyncConnection, vault: Vault, person_id: UUID, identifiers: Sequence[tuple[str, str]]
) -> None:
    """Add a sender's own identifiers (normalised) that nobody has yet to a person; never a national one.

    Whoever is found under a cédula is asked for in that name and on that consent, so no message may hand one out.
    """
    foreign = [(system, value) for system, value in identifiers if system not in NATIONAL]
    if foreign:
        rows = _identifier_rows(vault, person_id, foreign)
        await connection.execute(upsert(person_identifier).on_conflict_do_nothing(), rows)


def person_row(vault: Vault, item: NewPerson) -> dict[str, Any]:
    """Return the row of one person, names encrypted."""
    names = json.dumps({"given_names": item.given_names, "surnames": item.surnames}, ensure_ascii=False)
    return {
        "id": item.id,
        "household_id": item.household_id,
        "names": vault.seal("person.names", item.id, names),
        "birth_date": item.birth_date,
        "sex": item.sex,
        "department": item.department,
        "district": item.district,
        "deceased_on": item.deceased_on,
        "guardian_id": item.guardian_id,
        "attributes": item.attributes,
    }


def identifier_rows(vault: Vault, item: NewPerson) -> list[dict[str, Any]]:
    """Return the rows of one person's identifiers, values encrypted and indexed."""
    return _identifier_rows(vault, item.id, item.identifiers)


def _identifier_rows(vault: Vault, person_id: UUID, identifiers: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    rows = []
    for system, value in identifiers:
        row_id = uuid7()
        rows.append(
            {
                "id": row_id,
                "person_id": person_id,
                "system": system,
                "value": vault.seal("person_identifier.value", row_id, value),
                "blind_index": vault.index(system, value),
            }
        )
    return rows


async def copy_rows(connection: AsyncConnection, table: str, columns: Sequence[str], rows: list[list[Any]]) -> None:
    """Load rows into a table of ``siis`` by COPY, inside the transaction of ``connection``."""
    driver = await driver_connection(connection)
    # Table and column names come from our own tables, never from input.
    statement = f"COPY siis.{table} ({', '.join(columns)}) FROM STDIN"
    async with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for row in rows:
            await copy.write_row(row)


async def record_fact(
    connection: AsyncConnection,
    *,
    person_id: UUID,
    household_id: UUID | None,
    service: Service,
    protected: bool,
    source: str,
    instrument: str,
    observed_on: date,
    referral_id: UUID | None = None,
) -> UUID:
    """Add one fact; for a household service it is the household's. Facts are never changed, the newest counts."""
    to_household = "household" in service.categories and household_id is not None
    fact_id = uuid7()
    await connection.execute(
        insert(fact).values(
            id=fact_id,
            person_id=None if to_household else person_id,
            household_id=household_id if to_household else None,
            service=service.code,
            protected=protected,
            source=source,
            instrument=instrument,
            observed_on=observed_on,
            referral_id=referral_id,
        )
    )
    return fact_id


async def record_facts(
    connection: AsyncConnection, received: Mapping[Unit, Mapping[str, bool]], origin: Origin, at: datetime
) -> int:
    """Add facts of units (service code: whether they receive it) of one origin, and return how many."""
    rows = [
        {
            "id": uuid7(),
            "person_id": unit.id if unit.kind == "person" else None,
            "household_id": unit.id if unit.kind == "household" else None,
            "community_id": unit.id if unit.kind == "community" else None,
            "service": service,
            "protected": protected,
            "source": origin.source,
            "instrument": origin.instrument,
            "observed_on": origin.observed_on,
            "recorded_at": at,
            "form_id": origin.form_id,
        }
        for unit, services in received.items()
        for service, protected in services.items()
    ]
    if rows:
        await connection.execute(insert(fact), rows)
    return len(rows)


def unit_of(service: Service, who: PersonRef) -> Unit:
    """Return whom a fact about a service and a person is about: the person, or their household."""
    if "household" in service.categories and who.household_id is not None:
        return Unit("household", who.household_id)
    return Unit("person", who.id)


async def identifiers_of(
    connection: AsyncConnection, vault: Vault, persons: Collection[UUID], system: str
) -> dict[UUID, str]:
    """Return the identifiers that persons have in one system, decrypted."""
    rows = await connection.execute(
        select(person_identifier.c.id, person_identifier.c.person_id, person_identifier.c.value).where(
            person_identifier.c.person_id.in_(list(persons)), person_identifier.c.system == system
        )
    )
    return {row.person_id: vault.open("person_identifier.value", row.id, row.value) for row in rows}


async def protection_of(
    connection: AsyncConnection, services: dict[str, Service], who: PersonRef, day: date
) -> tuple[ProtectionStatus, ProtectionStatus | None]:
    """Return the protection status of a person, and of the household if the person has one, on a day."""
    homes = [] if who.household_id is None else [who.household_id]
    facts = await facts_of(connection, [who.id], homes)
    own = person_status(who, services, facts.get(who.id, ()), day)
    if who.household_id is None:
        return own, None
    attributes = await connection.scalar(select(household.c.attributes).where(household.c.id == who.household_id))
    return own, household_status(attributes or {}, services, facts.get(who.household_id, ()), day)
