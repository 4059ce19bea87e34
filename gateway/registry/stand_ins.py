"""Registers somebody a second time for those who may not know of them, so that they look like anybody unknown.

Whoever names a protected person finds a stand-in, as they would find the one whom they themselves registered. Of the
person themselves nothing is shown and nothing changed. Whether both are one is for a person to decide: they are merged
as any two records are (``merging.py``).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.registry.tables import person, stand_in
from gateway.vault import Vault


class StandIn(NamedTuple):
    """A stand-in, whom the one who named them meant, and the form that made it."""

    person_id: UUID
    subject: UUID
    form_id: UUID
    at: datetime


_COLUMNS = tuple(stand_in.c[name] for name in StandIn._fields)
# One that was found to be the person it stands for, or was erased, stands for nobody any more.
_STANDS = person.c.merged_into.is_(None) & person.c.names.is_not(None)


async def find(connection: AsyncConnection, vault: Vault, system: str, value: str) -> UUID | None:
    """Return who stands in for the person with an identifier (normalised), or None."""
    found: UUID | None = await connection.scalar(
        select(stand_in.c.person_id)
        .join(person, person.c.id == stand_in.c.person_id)
        .where(stand_in.c.system == system, stand_in.c.blind_index == vault.index(system, value), _STANDS)
    )
    return found


async def keep(connection: AsyncConnection, vault: Vault, new: StandIn, system: str, value: str) -> None:
    """Note for whom somebody just registered stands in, and under which identifier they are found.

    IntegrityError where somebody stands there already.
    """
    index = vault.index(system, value)
    over = select(person.c.id).where(person.c.id == stand_in.c.person_id, ~_STANDS).exists()
    await connection.execute(delete(stand_in).where(stand_in.c.system == system, stand_in.c.blind_index == index, over))
    await connection.execute(insert(stand_in).values(system=system, blind_index=index, **new._asdict()))


async def behind(connection: AsyncConnection, persons: Collection[UUID]) -> list[UUID]:
    """Return who stands in for any of these persons."""
    rows = select(stand_in.c.person_id).join(person, person.c.id == stand_in.c.person_id)
    found = rows.where(stand_in.c.subject.in_(list(persons)), _STANDS).order_by(stand_in.c.person_id)
    return list(await connection.scalars(found))


async def undecided(connection: AsyncConnection) -> list[StandIn]:
    """Return the stand-ins of which nobody said that they are the person they stand for, oldest first."""
    rows = select(*_COLUMNS).join(person, person.c.id == stand_in.c.person_id).where(_STANDS)
    return [StandIn(*row) for row in await connection.execute(rows.order_by(stand_in.c.person_id))]
