"""Shows the way of one person through the network, in order: a disclosure from our own store, decided and logged.

The coordinator sees every step; any other institution those of the referrals that it sent or received.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Receipt
from audit.service import AuditLog
from consent.decision import decide
from consent.models import Caller, Request
from consent.policy import PolicyStore
from consent.volume import Volume
from gateway import errors, evidence
from gateway.catalogue.models import COORDINATOR
from gateway.clock import utc_now
from gateway.database import Database
from gateway.lawful import require_codes
from gateway.registry import service as registry
from gateway.registry.facts import subject_facts
from gateway.vault import Vault
from gateway.witnesses.quorum import NO_WITNESSES, Quorum, refuse_while_stopped
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier

DATASET = "trajectory"
# What moves nothing (an attempt, a reminder) is no step; who was found to be the same person counts as one. Of the
# whole only its own recipient knows, and of what was withheld its recipient does not.
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
    AND (CAST(:party AS text) IS NULL OR r.requester = :party OR (r.recipient = :party AND r.delivery <> 'withheld'))
ORDER BY e.at, r.id, e.number
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryQuery:
    """Whose way is asked for, why and on which basis; checked against its schema."""

    system: str
    identifier: str
    purpose: str
    basis: str
    agreement: str | None = None
    case: str | None = None
    correlation: str | None = None


class Trajectories:
    """Answers queries for the way of one person."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        audit: AuditLog,
        policies: PolicyStore,
        volume: Volume,
        quorum: Quorum = NO_WITNESSES,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database, self._vault, self._audit = database, vault, audit
        self._policies, self._volume, self._quorum, self._now = policies, volume, quorum, now

    async def query(self, caller: Caller, asked: TrajectoryQuery) -> tuple[dict[str, Any], Receipt]:
        """Return the steps that the caller's institution may see, and the receipt.

        Raises BadRequest, Denied, NotFound or EvidenceStopped.
        """
        try:
            value = registry.normalise(asked.system, asked.identifier)
        except InvalidIdentifier:
            raise errors.BadRequest("bad-identifier", pointer="/subject/value") from None
        require_codes(asked.purpose, asked.basis)
        at = self._now()
        dataset = code_list("datasets")[DATASET]
        request = Request(
            action="status.query",
            caller=caller,
            holder=dataset["holder"],
            dataset=DATASET,
            fields=tuple(dataset["fields"]),
            purpose=asked.purpose,
            basis=asked.basis,
            agreement=asked.agreement,
            case=asked.case,
            at=at,
        )
        if self._quorum.stops(at):
            version = self._policies.current.version
            await refuse_while_stopped(self._audit, "trajectory.stopped", request, version, asked.correlation)
        party = None if caller.institution == COORDINATOR else caller.institution
        async with self._database.connection() as connection:
            who = await registry.find_person(connection, self._vault, asked.system, value)
            facts = await subject_facts(connection, who)
            decision = decide(request, facts, self._policies.current, self._volume.used)
            permitted = decision.permit is not None and who is not None
            steps = await _steps(connection, who.id, party) if permitted and who is not None else []
        if permitted:
            self._volume.count(decision)
        entry = evidence.decided(
            "trajectory.released" if permitted else "trajectory.denied",
            request,
            decision,
            subject=None if who is None else who.id,
            facts=facts,
            correlation=asked.correlation,
        )
        receipt = await self._audit.append(entry)
        if not permitted:
            if decision.hides_subject or decision.permit is not None:
                raise errors.NotFound("not-found", receipt=receipt)
            raise errors.Denied(decision.reasons, receipt)
        answer = {"steps": steps}
        return {name: part for name, part in answer.items() if name in decision.released}, receipt


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
