"""Founds households, and decides of which one a form speaks: nobody comes to be in two, nobody is moved by silence."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.registry.tables import household, person
from schemas.ids import uuid7


async def new_household(connection: AsyncConnection) -> UUID:
    """Add a household of which nothing is known yet, and return its id."""
    household_id = uuid7()
    await connection.execute(insert(household).values(id=household_id))
    return household_id


async def exists(connection: AsyncConnection, household_id: UUID) -> bool:
    """Say whether there is a household of this id."""
    return await connection.scalar(select(household.c.id).where(household.c.id == household_id)) is not None


async def hold(connection: AsyncConnection, persons: Collection[UUID]) -> dict[UUID, UUID | None]:
    """Return the household of each person; nobody else moves them until the transaction ends."""
    found = select(person.c.id, person.c.household_id).where(person.c.id.in_(list(persons))).order_by(person.c.id)
    rows = await connection.execute(found.with_for_update(key_share=True))
    return {row.id: row.household_id for row in rows}


async def members(connection: AsyncConnection, household_id: UUID) -> frozenset[UUID]:
    """Return the living members of a household; of somebody erased no household is known any more."""
    found = await connection.scalars(
        select(person.c.id).where(
            person.c.household_id == household_id, person.c.deceased_on.is_(None), person.c.merged_into.is_(None)
        )
    )
    return frozenset(found)


async def made_up_by(connection: AsyncConnection, on_form: Collection[UUID], theirs: Collection[UUID]) -> UUID | None:
    """Return the household, of those that persons on a form belong to, that they make up already; None for a new one.

    They make one up when all its living members are on the form: then it is the same household, seen again. Where one
    is missing the form may speak of a part that went its own way, so whoever sends it must say which household it is.
    """
    whole = [home for home in sorted(theirs) if await members(connection, home) <= frozenset(on_form)]
    return whole[0] if len(whole) == 1 else None
