"""Says which cédulas live in a person's home, for those who look for look-ups among colleagues' families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.registry.tables import person, person_identifier
from gateway.vault import Vault

_CEDULA = "cedula"


class Home(NamedTuple):
    """The cédulas of a person, and of the others of the same household."""

    own: frozenset[str]
    others: frozenset[str]


NOBODY = Home(frozenset(), frozenset())


async def homes(connection: AsyncConnection, vault: Vault, persons: Collection[UUID]) -> dict[UUID, Home]:
    """Return the homes of persons; those of whom nothing is registered are left out."""
    asked, member = person.alias("asked"), person.alias("member")
    own = select(asked.c.id.label("of"), asked.c.id.label("who")).where(asked.c.id.in_(persons))
    others = (
        select(asked.c.id.label("of"), member.c.id.label("who"))
        .join(member, (member.c.household_id == asked.c.household_id) & (member.c.id != asked.c.id))
        .where(asked.c.id.in_(persons))
    )
    home = union_all(own, others).subquery()
    rows = await connection.execute(
        select(home.c.of, home.c.who, person_identifier.c.id, person_identifier.c.value)
        .join(person_identifier, person_identifier.c.person_id == home.c.who)
        .where(person_identifier.c.system == _CEDULA)
    )
    found: defaultdict[UUID, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for row in rows:
        found[row.of][row.who != row.of].add(vault.open("person_identifier.value", row.id, row.value))
    return {of: Home(frozenset(own), frozenset(others)) for of, (own, others) in found.items()}
