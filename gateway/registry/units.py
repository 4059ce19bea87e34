"""Reads units with their facts from the registry: a person together with all persons found to be the same one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.registry.models import Fact, PersonRef
from gateway.registry.status import POVERTY, UnitRecord

_PERSON = ", ".join(f"p.{name}" for name in PersonRef.__dataclass_fields__)
# Members of the households named belong to it, because a household's poverty is a mark of theirs; so does whoever a
# person asked for was found to be. Somebody erased is nobody.
_PERSONS = f"""
WITH RECURSIVE asked AS (
    SELECT id, merged_into FROM siis.person WHERE id = ANY(:persons) OR household_id = ANY(:households)
    UNION
    SELECT p.id, p.merged_into FROM siis.person AS p JOIN asked ON p.id = asked.merged_into
)
SELECT {_PERSON}, p.merged_into, h.community_id, h.attributes -> '{POVERTY}' AS poor
FROM siis.person AS p LEFT JOIN siis.household AS h ON h.id = p.household_id
WHERE p.id IN (SELECT id FROM asked) AND p.names IS NOT NULL
ORDER BY p.id
FOR NO KEY UPDATE OF p
"""  # noqa: S608
_HOUSEHOLDS = """
SELECT h.id, h.department, h.district, h.community_id, h.attributes, EXISTS (
    SELECT FROM siis.person AS p WHERE p.household_id = h.id AND p.deceased_on IS NULL AND p.merged_into IS NULL
) AS lived_in
FROM siis.household AS h WHERE h.id = ANY(:households) ORDER BY h.id FOR NO KEY UPDATE OF h
"""
_COMMUNITIES = """
SELECT id, department, district, attributes FROM siis.community WHERE id = ANY(:communities) ORDER BY id
FOR NO KEY UPDATE
"""
_FACT = ", ".join(f"f.{name}" for name in Fact.__dataclass_fields__)
_FACTS = f"""
WITH RECURSIVE same AS (
    SELECT id AS root, id FROM unnest(:persons) AS id
    UNION
    SELECT same.root, p.id FROM siis.person AS p JOIN same ON p.merged_into = same.id
)
SELECT same.root AS unit, {_FACT} FROM same JOIN siis.fact AS f ON f.person_id = same.id
UNION ALL SELECT f.household_id, {_FACT} FROM siis.fact AS f WHERE f.household_id = ANY(:households)
UNION ALL SELECT f.community_id, {_FACT} FROM siis.fact AS f WHERE f.community_id = ANY(:communities)
"""  # noqa: S608


def _query(statement: str) -> TextClause:
    names = [name for name in ("persons", "households", "communities") if f":{name}" in statement]
    return text(statement).bindparams(*(bindparam(name, type_=ARRAY(PG_UUID)) for name in names))


_PERSONS_QUERY, _HOUSEHOLDS_QUERY, _COMMUNITIES_QUERY = _query(_PERSONS), _query(_HOUSEHOLDS), _query(_COMMUNITIES)
_FACTS_QUERY = _query(_FACTS)


async def read_units(
    connection: AsyncConnection,
    persons: Collection[UUID],
    households: Collection[UUID],
    communities: Collection[UUID],
) -> list[UnitRecord]:
    """Return the units with all that hangs on them, locked until the transaction ends so that none is computed twice.

    To a household belong its members, to a person the household and the person it was found to be.
    """
    found: list[UnitRecord] = []
    homes = set(households)
    if persons or households:
        values = {"persons": list(persons), "households": list(households)}
        rows = (await connection.execute(_PERSONS_QUERY, values)).all()
        found += [_person(row) for row in rows]
        homes |= {row.household_id for row in rows if row.household_id is not None}
    if homes:
        found += [_household(row) for row in await connection.execute(_HOUSEHOLDS_QUERY, {"households": list(homes)})]
    if communities:
        rows = (await connection.execute(_COMMUNITIES_QUERY, {"communities": list(communities)})).all()
        found += [
            UnitRecord(row.id, "community", row.department, row.district, row.id, row.attributes, _poor(row.attributes))
            for row in rows
        ]
    return found


async def read_facts(connection: AsyncConnection, units: Collection[UnitRecord]) -> dict[UUID, list[Fact]]:
    """Return the facts of units; a person's are also those of everybody found to be the same."""
    by_kind: dict[str, list[UUID]] = {"person": [], "household": [], "community": []}
    for unit in units:
        by_kind[unit.kind].append(unit.id)
    return await facts_of(connection, by_kind["person"], by_kind["household"], by_kind["community"])


async def facts_of(
    connection: AsyncConnection,
    persons: Collection[UUID] = (),
    households: Collection[UUID] = (),
    communities: Collection[UUID] = (),
) -> dict[UUID, list[Fact]]:
    """Return the facts of units by their ids, as :func:`read_facts`."""
    values = {"persons": list(persons), "households": list(households), "communities": list(communities)}
    facts: defaultdict[UUID, list[Fact]] = defaultdict(list)
    for row in await connection.execute(_FACTS_QUERY, values):
        facts[row.unit].append(Fact(*row[1:]))
    return facts


def _person(row: Any) -> UnitRecord:
    who = PersonRef(*(getattr(row, name) for name in PersonRef.__dataclass_fields__))
    return UnitRecord(
        row.id,
        "person",
        row.department,
        row.district,
        row.community_id,
        row.attributes,
        row.poor is True,
        who,
        ended=row.merged_into is not None,
    )


def _household(row: Any) -> UnitRecord:
    return UnitRecord(
        row.id,
        "household",
        row.department,
        row.district,
        row.community_id,
        row.attributes,
        _poor(row.attributes),
        ended=not row.lived_in,
    )


def _poor(attributes: dict[str, object]) -> bool:
    return attributes.get(POVERTY) is True
