"""Looks up the subjects of requests: who wait at the same moment share one round trip, and nothing is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from audit.batch import Batcher
from audit.connection import Driver, OwnConnection, within_budget
from audit.errors import AuditError, AuditUnavailable
from consent.facts import completed, facts_of
from consent.models import UNKNOWN_SUBJECT, SubjectFacts
from gateway.database import Database
from gateway.registry.models import PersonRef
from gateway.vault import Vault

_GROUP = 200
_BOUND = 10_000
_PERSON = "p.id, p.household_id, p.birth_date, p.deceased_on, p.sex, p.department, p.district, p.attributes"
# Somebody found to be another person is that person.
_BY_INDEX = f"""
SELECT asked.at, {_PERSON}
FROM unnest(%s::text[], %s::bytea[]) WITH ORDINALITY AS asked (system, blind_index, at)
JOIN siis.person_identifier AS i ON i.system = asked.system AND i.blind_index = asked.blind_index
JOIN siis.person AS known ON known.id = i.person_id
JOIN siis.person AS p ON p.id = coalesce(known.merged_into, known.id)
"""  # noqa: S608
_BY_ID = f"""
SELECT asked.at, {_PERSON}
FROM unnest(%s::uuid[]) WITH ORDINALITY AS asked (id, at)
JOIN siis.person AS known ON known.id = asked.id
JOIN siis.person AS p ON p.id = coalesce(known.merged_into, known.id) AND p.names IS NOT NULL
"""  # noqa: S608

# Their own before that of somebody found to be them.
_OTHER = """
SELECT i.id, i.value FROM siis.person AS p JOIN siis.person_identifier AS i ON i.person_id = p.id AND i.system = %s
WHERE p.id = %s OR p.merged_into = %s ORDER BY p.id <> %s, i.id LIMIT 1
"""

Subject = tuple[PersonRef | None, SubjectFacts]


class SubjectLookup:
    """Finds persons with what a decision needs of them, over one connection of its own."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._vault = vault
        self._connection = OwnConnection(database.engine)
        self._batcher: Batcher[tuple[str, str], Subject] = Batcher(self._flush, group=_GROUP, bound=_BOUND)

    async def find(self, system: str, value: str) -> Subject:
        """Return the person with an identifier (normalised) and the facts for a decision; ``None`` when unknown.

        Raises AuditUnavailable when the database does not answer in time: nothing can be decided then.
        """
        [found] = await self._batcher.submit([(system, value)])
        return found

    async def other_identifier(self, person_id: UUID, system: str) -> str | None:
        """Return a person's identifier in another system, the one registered first, or None."""
        try:
            async with self._connection as driver:
                values = (system, person_id, person_id, person_id)
                cursor = await within_budget(driver.execute(_OTHER, values, binary=True))
                row = await cursor.fetchone()
        except (SQLAlchemyError, psycopg.Error, OSError, TimeoutError) as error:
            raise AuditUnavailable("subjects could not be looked up") from error
        return None if row is None else self._vault.open("person_identifier.value", row[0], row[1])

    async def close(self) -> None:
        """Finish what waits and close the connection."""
        await self._batcher.close()
        await self._connection.drop()

    async def _flush(self, group: list[tuple[str, str]]) -> Sequence[Subject | AuditError]:
        try:
            async with self._connection as driver:
                return await within_budget(self._read(driver, group))
        except (SQLAlchemyError, psycopg.Error, OSError, TimeoutError) as error:
            raise AuditUnavailable("subjects could not be looked up") from error

    async def _read(self, driver: Driver, group: list[tuple[str, str]]) -> list[Subject]:
        own = [place for place, (system, _value) in enumerate(group) if system == "siis"]
        other = [place for place, (system, _value) in enumerate(group) if system != "siis"]
        found: dict[int, PersonRef] = {}
        async with driver.cursor(binary=True) as cursor:
            if other:
                systems = [group[place][0] for place in other]
                indexes = [self._vault.index(*group[place]) for place in other]
                await cursor.execute(_BY_INDEX, (systems, indexes))
                _collect(await cursor.fetchall(), other, found)
            if own:
                await cursor.execute(_BY_ID, ([UUID(group[place][1]) for place in own],))
                _collect(await cursor.fetchall(), own, found)
        facts = await facts_of(driver, [who.id for who in found.values()])
        return [_subject(found.get(place), facts) for place in range(len(group))]


def _collect(rows: list[tuple[Any, ...]], places: list[int], found: dict[int, PersonRef]) -> None:
    for at, *columns in rows:
        found[places[at - 1]] = PersonRef(*columns)


def _subject(who: PersonRef | None, facts: dict[UUID, SubjectFacts]) -> Subject:
    if who is None:
        return None, UNKNOWN_SUBJECT
    return who, completed(facts[who.id], birth_date=who.birth_date, deceased=who.deceased_on is not None)
