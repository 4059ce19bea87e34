"""Reads what an attempt needs, for all that a worker has just taken in two round trips: nothing of it is remembered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
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
from gateway.referrals.models import Referral
from gateway.referrals.outbox import COLUMN, NOT_SUPPORTED
from gateway.registry.models import PersonDetails, PersonRef
from gateway.vault import Vault

_GROUP, _BOUND = 200, 10_000
_REFERRAL, _PERSON = tuple(Referral.__dataclass_fields__), tuple(PersonRef.__dataclass_fields__)
# Who was erased has no names left, and a referral of theirs no texts: neither is anybody's to send. Somebody found to
# be another person is that person, with the identifiers of both.
_READ = f"""
SELECT {", ".join(f"r.{name}" for name in _REFERRAL)}, r.texts AS sealed,
    {", ".join(f"p.{name} AS p_{name}" for name in _PERSON)}, p.names,
    m.id AS m_id, m.kind AS m_kind, m.number AS m_number, m.texts AS m_texts, m.attempts AS m_attempts,
    m.delivery AS m_delivery,
    (
        SELECT array_agg(ARRAY[i.id::text, i.system, encode(i.value, 'hex')] ORDER BY i.person_id <> p.id, i.id)
        FROM siis.person_identifier AS i WHERE i.person_id IN (p.id, r.person_id)
    ) AS identifiers
FROM siis.referral AS r
LEFT JOIN siis.person AS known ON known.id = r.person_id
LEFT JOIN siis.person AS p ON p.id = coalesce(known.merged_into, known.id) AND p.names IS NOT NULL
LEFT JOIN LATERAL (
    SELECT * FROM siis.message AS m
    WHERE m.referral_id = r.id AND m.delivery IN ('pending', 'dead')
        AND m.delivery_reason IS DISTINCT FROM '{NOT_SUPPORTED}'
    ORDER BY m.number LIMIT 1
) AS m ON r.delivery = 'transmitted'
WHERE r.id = ANY(%s) AND r.texts IS NOT NULL
"""  # noqa: S608 — names of columns and constants of ours


@dataclass(frozen=True, slots=True)
class Further:
    """A message that follows a referral to its recipient."""

    id: UUID
    kind: str
    number: int
    attempts: int
    text: str


@dataclass(frozen=True, slots=True)
class Material:
    """A referral with the message of it that is to be sent now; ``further`` is ``None`` for the referral itself."""

    referral: Referral
    further: Further | None
    details: PersonDetails | None
    facts: SubjectFacts
    reason: str
    case: str | None

    @property
    def attempts(self) -> int:
        """How many attempts were made for this message."""
        return self.referral.attempts if self.further is None else self.further.attempts

    @property
    def kind(self) -> str:
        """What kind of message it is."""
        return "referral" if self.further is None else self.further.kind


class Reader:
    """Reads the material of attempts over one connection of its own."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._vault = vault
        self._connection = OwnConnection(database.engine)
        self._batcher: Batcher[UUID, Material | None] = Batcher(self._flush, group=_GROUP, bound=_BOUND)

    async def read(self, referral_id: UUID) -> Material | None:
        """Return what is to be sent of a referral now, or None: nothing, or a person has to decide first.

        Raises AuditUnavailable when the database does not answer in time.
        """
        [found] = await self._batcher.submit([referral_id])
        return found

    async def close(self) -> None:
        """Finish what waits and close the connection."""
        await self._batcher.close()
        await self._connection.drop()

    async def _flush(self, group: list[UUID]) -> Sequence[Material | AuditError | None]:
        try:
            async with self._connection as driver:
                return await within_budget(self._read(driver, group))
        except (SQLAlchemyError, psycopg.Error, OSError, TimeoutError) as error:
            raise AuditUnavailable("what to send could not be read") from error

    async def _read(self, driver: Driver, group: list[UUID]) -> list[Material | None]:
        async with driver.cursor(binary=True, row_factory=psycopg.rows.dict_row) as cursor:
            await cursor.execute(_READ, (group,))
            rows = {row["id"]: row for row in await cursor.fetchall()}
        facts = await facts_of(driver, {row["p_id"] for row in rows.values() if row["p_id"] is not None})
        return [self._material(rows[key], facts) if key in rows else None for key in group]

    def _material(self, row: dict[str, Any], facts: dict[UUID, SubjectFacts]) -> Material | None:
        referral = Referral(**{name: row[name] for name in _REFERRAL})
        further = None
        if referral.delivery == "transmitted" and row["m_delivery"] == "pending":
            further = self._further(row)
        elif referral.delivery != "pending":
            return None
        texts = json.loads(self._vault.open("referral.texts", referral.id, row["sealed"]))
        details = self._person(row) if row["p_id"] is not None else None
        known = UNKNOWN_SUBJECT
        if details is not None:
            ref = details.ref
            known = completed(facts[ref.id], birth_date=ref.birth_date, deceased=ref.deceased_on is not None)
        return Material(referral, further, details, known, texts["reason"], texts["case"])

    def _further(self, row: dict[str, Any]) -> Further:
        texts = {} if row["m_texts"] is None else json.loads(self._vault.open(COLUMN, row["m_id"], row["m_texts"]))
        return Further(row["m_id"], row["m_kind"], row["m_number"], row["m_attempts"], texts.get("text", ""))

    def _person(self, row: dict[str, Any]) -> PersonDetails:
        ref = PersonRef(**{name: row[f"p_{name}"] for name in _PERSON})
        names = json.loads(self._vault.open("person.names", ref.id, row["names"]))
        identifiers = tuple(
            (system, self._vault.open("person_identifier.value", UUID(row_id), bytes.fromhex(sealed)))
            for row_id, system, sealed in row["identifiers"] or ()
        )
        return PersonDetails(ref, names["given_names"], names["surnames"], identifiers)
