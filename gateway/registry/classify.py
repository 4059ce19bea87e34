"""Classifies everybody: streams persons and households with their facts and says who is protected and who is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue.models import Service
from gateway.registry.models import Fact, PersonRef, ProtectionStatus
from gateway.registry.protection import household_status, person_status
from gateway.registry.tables import fact, household, person

_FACT = tuple(fact.c[name].label(f"fact_{name}") for name in Fact.__dataclass_fields__)
_PERSON = tuple(person.c[name] for name in PersonRef.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Classified:
    """One unit with its status; ``person_id`` is the person, or for a household one living member to write to."""

    person_id: UUID
    status: ProtectionStatus


async def classify(connection: AsyncConnection, services: dict[str, Service], day: date) -> AsyncIterator[Classified]:
    """Yield the status of every person and household on a day, in the order of their ids; memory stays flat."""
    persons = select(*_PERSON, *_FACT).outerjoin(fact, fact.c.person_id == person.c.id).order_by(person.c.id)
    persons = persons.where(person.c.names.is_not(None))
    async for rows in _groups(connection, persons):
        who = PersonRef(*(getattr(rows[0], name) for name in PersonRef.__dataclass_fields__))
        yield Classified(who.id, person_status(who, services, _facts(rows), day))
    member = (
        select(person.c.id)
        .where(person.c.household_id == household.c.id, person.c.deceased_on.is_(None))
        .order_by(person.c.birth_date)
        .limit(1)
        .scalar_subquery()
    )
    homes = (
        select(household.c.id, household.c.attributes, member.label("member"), *_FACT)
        .outerjoin(fact, fact.c.household_id == household.c.id)
        .order_by(household.c.id)
    )
    async for rows in _groups(connection, homes):
        if rows[0].member is not None:
            yield Classified(rows[0].member, household_status(rows[0].attributes, services, _facts(rows), day))


async def _groups(connection: AsyncConnection, query: Select[Any]) -> AsyncIterator[list[Any]]:
    group: list[Any] = []
    async with connection.stream(query) as result:
        async for row in result:
            if group and group[0].id != row.id:
                yield group
                group = []
            group.append(row)
    if group:
        yield group


def _facts(rows: list[Any]) -> list[Fact]:
    names = Fact.__dataclass_fields__
    return [Fact(*(getattr(row, f"fact_{name}") for name in names)) for row in rows if row.fact_id is not None]
