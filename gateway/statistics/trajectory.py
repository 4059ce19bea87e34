"""Shows the way of one person through the network, in order: a disclosure from our own store, decided and logged.

The coordinator sees every step; any other institution those of the referrals that it sent or received.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Receipt
from consent.models import Caller
from gateway.catalogue.models import COORDINATOR
from gateway.registry.models import PersonRef
from gateway.registry.query import OwnStore, PersonQuery

DATASET = "trajectory"
_EVENTS = ("trajectory.released", "trajectory.denied", "trajectory.stopped")
# What moves nothing (an attempt, a reminder) is no step; who was found to be the same person counts as one. Of the
# whole only its own recipient knows, and of what was not transmitted to it its recipient does not.
_STEPS = text("""
WITH RECURSIVE same AS (
    SELECT CAST(:person AS uuid) AS id
    UNION
    SELECT p.id FROM siis.person AS p JOIN same ON p.merged_into = same.id
)
SELECT e.at, e.occurred_on, e.type, e.state_after, e.synthesised, e.actor, e.facts ->> 'outcome' AS outcome,
    e.facts ->> 'reason' AS reason, r.id AS referral, r.service,
    CASE WHEN CAST(:party AS text) IS NULL OR r.requester = :party THEN r.parent_id END AS parent_id,
    r.requester, r.recipient
FROM siis.referral AS r JOIN siis.referral_event AS e ON e.referral_id = r.id
WHERE r.person_id IN (SELECT id FROM same) AND (e.state_after <> e.state_before OR e.type = 'create')
    AND (CAST(:party AS text) IS NULL OR r.requester = :party OR (r.recipient = :party AND r.delivery = 'transmitted'))
ORDER BY e.at, r.id, e.number
""")


class Trajectories(OwnStore):
    """Answers queries for the way of one person."""

    async def query(self, caller: Caller, asked: PersonQuery) -> tuple[dict[str, Any], Receipt]:
        """Return the steps that the caller's institution may see, and the receipt.

        Raises BadRequest, Denied, NotFound or EvidenceStopped.
        """
        party = None if caller.institution == COORDINATOR else caller.institution

        async def read(connection: AsyncConnection, who: PersonRef, _: datetime) -> dict[str, Any]:
            return {"steps": await _steps(connection, who.id, party)}

        return await self._disclose(caller, asked, DATASET, _EVENTS, read)


async def _steps(connection: AsyncConnection, person_id: UUID, party: str | None) -> list[dict[str, Any]]:
    rows = await connection.execute(_STEPS, {"person": person_id, "party": party})
    return [
        {
            **row._mapping,
            "at": row.at.isoformat(),
            "occurred_on": None if row.occurred_on is None else row.occurred_on.isoformat(),
            "referral": str(row.referral),
            "parent_id": None if row.parent_id is None else str(row.parent_id),
        }
        for row in rows
    ]
