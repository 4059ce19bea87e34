"""Discloses what our own store holds of a person, decided and logged like any: here, the protection status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Receipt
from audit.service import AuditLog
from consent.decision import decide
from consent.models import Caller, Request
from consent.policy import PolicyStore
from consent.volume import Volume
from gateway import errors, evidence
from gateway.catalogue import service as catalogue
from gateway.clock import local_day, utc_now
from gateway.database import Database
from gateway.lawful import require_codes
from gateway.registry import service as registry
from gateway.registry.facts import subject_facts
from gateway.registry.models import PersonRef, ProtectionStatus
from gateway.registry.status import status_on
from gateway.vault import Vault
from gateway.witnesses.quorum import NO_WITNESSES, Quorum, refuse_while_stopped
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier

DATASET = "protection-status"
_EVENTS = ("status.released", "status.denied", "status.stopped")
_Read = Callable[[AsyncConnection, PersonRef, datetime], Awaitable[dict[str, Any]]]
# Released, denied, and refused while the log has no witnesses.
_Events = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonQuery:
    """Whose data is asked for, why and on which basis, as the caller wrote it; checked against its schema."""

    system: str
    identifier: str
    purpose: str
    basis: str
    agreement: str | None = None
    case: str | None = None
    correlation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusQuery(PersonQuery):
    """A query for the status on a day: today in Paraguay where none is named."""

    on: date | None = None


class OwnStore:
    """Discloses what this store holds of a person: the same decision, entry and receipt, whatever is read."""

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

    async def _disclose(
        self, caller: Caller, asked: PersonQuery, dataset: str, event: _Events, read: _Read
    ) -> tuple[dict[str, Any], Receipt]:
        """Return the released parts of what ``read`` finds, and the receipt.

        Raises BadRequest, Denied, NotFound or EvidenceStopped.
        """
        released, denied, stopped = event
        try:
            value = registry.normalise(asked.system, asked.identifier)
        except InvalidIdentifier:
            raise errors.BadRequest("bad-identifier", pointer="/subject/value") from None
        require_codes(asked.purpose, asked.basis)
        at = self._now()
        listed = code_list("datasets")[dataset]
        request = Request(
            action="status.query",
            caller=caller,
            holder=listed["holder"],
            dataset=dataset,
            fields=tuple(listed["fields"]),
            purpose=asked.purpose,
            basis=asked.basis,
            agreement=asked.agreement,
            case=asked.case,
            at=at,
        )
        if self._quorum.stops(at):
            version = self._policies.current.version
            await refuse_while_stopped(self._audit, stopped, request, version, asked.correlation)
        answer: dict[str, Any] | None = None
        async with self._database.connection() as connection:
            who = await registry.find_person(connection, self._vault, asked.system, value)
            facts = await subject_facts(connection, who)
            decision = decide(request, facts, self._policies.current, self._volume.used)
            if decision.permit is not None and who is not None:
                answer = await read(connection, who, at)
        if answer is not None:
            self._volume.count(decision)
        entry = evidence.decided(
            denied if answer is None else released,
            request,
            decision,
            subject=None if who is None else who.id,
            facts=facts,
            correlation=asked.correlation,
        )
        receipt = await self._audit.append(entry)
        if answer is None:
            if decision.hides_subject or decision.permit is not None:
                raise errors.NotFound("not-found", receipt=receipt)
            raise errors.Denied(decision.reasons, receipt)
        return {name: part for name, part in answer.items() if name in decision.released}, receipt


class StatusService(OwnStore):
    """Answers status queries."""

    async def query(self, caller: Caller, asked: StatusQuery) -> tuple[dict[str, Any], Receipt]:
        """Return the released parts of the status and the receipt.

        Raises BadRequest, Denied, NotFound or EvidenceStopped.
        """

        async def read(connection: AsyncConnection, who: PersonRef, at: datetime) -> dict[str, Any]:
            return await _answer(connection, who, asked.on or local_day(at), at)

        return await self._disclose(caller, asked, DATASET, _EVENTS, read)


async def _answer(connection: AsyncConnection, who: PersonRef, day: date, at: datetime) -> dict[str, Any]:
    """Return the status; of a past day, what was computed by then, where anything was (``computed_at`` says when)."""
    own: ProtectionStatus
    household: ProtectionStatus | None
    past = await status_on(connection, who.id, day) if day < local_day(at) else None
    if past is not None:
        home = None if who.household_id is None else await status_on(connection, who.household_id, day)
        own, household, computed_at = past.status, None if home is None else home.status, past.at
    else:
        services = await catalogue.services(connection)
        own, household = await registry.protection_of(connection, services, who, day)
        computed_at = at
    return {
        "on": day.isoformat(),
        "computed_at": computed_at.isoformat(),
        "category": own.category,
        "services": _services(own, day),
        "concurrent": own.concurrent,
        "household": None
        if household is None
        else {"services": _services(household, day), "concurrent": household.concurrent},
    }


def _services(status: ProtectionStatus, day: date) -> list[dict[str, Any]]:
    return [
        {
            "service": item.service,
            "category": item.category,
            "core": item.core,
            "status": item.status,
            "rule": item.rule,
            "source": None if item.fact is None else item.fact.source,
            "instrument": None if item.fact is None else item.fact.instrument,
            "observed_on": None if item.fact is None else item.fact.observed_on.isoformat(),
            "days_old": None if item.fact is None else (day - item.fact.observed_on).days,
        }
        for item in status.services
    ]
