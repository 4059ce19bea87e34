"""Delivers one message: decide again, record, transmit, record what came of it, or put the next attempt off.

Every acknowledged referral ends transmitted once, or visibly withheld, rejected or waiting for a person (DESIGN 9.2);
so does what follows a referral to its recipient, by the same path.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeVar
from uuid import UUID

from prometheus_client import Counter

from adapters.base import ProducerAdapter
from adapters.models import (
    AlreadyTaken,
    Identifier,
    Malformed,
    ReferralMessage,
    Rejected,
    SendOutcome,
    Taken,
    Unavailable,
)
from adapters.registry import Adapters
from audit.service import AuditLog
from consent.decision import decide
from consent.models import REFERRAL_FIELDS
from consent.policy import PolicyStore
from gateway import evidence
from gateway.clock import utc_now
from gateway.database import Database
from gateway.delivery import lanes, queue
from gateway.delivery.conclusions import Conclusions
from gateway.delivery.material import Material, Reader
from gateway.delivery.plan import Plan
from gateway.delivery.queue import Job, Lane
from gateway.delivery.recall import Recall
from gateway.referrals.models import Referral
from gateway.referrals.outbox import NOT_SUPPORTED
from gateway.referrals.releases import as_sent
from gateway.registry.models import PersonDetails
from gateway.vault import Vault
from gateway.witnesses.quorum import NO_WITNESSES, Quorum

_attempts = Counter("siis_delivery_attempts_total", "Attempts to transmit a message", ["recipient", "outcome"])

# While witnesses are missing; no attempt is counted, so none is lost by it.
_STOPPED_WAIT = timedelta(minutes=1)
# Where no adapter takes referrals, its letters are dead at once; so few at a time are enough.
_NO_ADAPTER_PLACES = 4
# What follows a referral says which one; who it is about is known there.
_FURTHER_FIELDS = ("identifiers",)
T = TypeVar("T")


class Seen(Enum):
    """What an attempt showed of the institution."""

    NOTHING = "nothing"
    ANSWER = "answer"
    SILENCE = "silence"


class Delivery:
    """Carries out delivery jobs."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        audit: AuditLog,
        policies: PolicyStore,
        adapters: Adapters,
        plan: Plan,
        public_address: str,
        quorum: Quorum = NO_WITNESSES,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """``public_address`` is where recipients find the proofs of the receipts they get."""
        self.database, self.plan, self.now = database, plan, now
        self._audit, self._policies, self._adapters = audit, policies, adapters
        self._public_address, self._quorum = public_address, quorum
        self._reader = Reader(database, vault)
        self._conclusions = Conclusions(
            database=database, vault=vault, audit=audit, policies=policies, plan=plan, now=now
        )
        self._recall = Recall(database=database, vault=vault, audit=audit, policies=policies, now=now)
        #: Since they were last read, by institution: messages transmitted, and attempts to be made again.
        self.transmitted: Counts[str] = Counts()
        self.retried: Counts[str] = Counts()

    async def close(self) -> None:
        """Close the connection that material is read over."""
        await self._reader.close()

    def lanes(self, institutions: frozenset[str], wanted: Callable[[str], int]) -> list[Lane]:
        """Return what may be taken for each institution: the places and the rate that its manifests allow."""
        sending: dict[str, list[ProducerAdapter]] = {}
        for adapter in self._adapters.sending():
            sending.setdefault(adapter.institution, []).append(adapter)
        found = []
        for name in sorted(institutions | set(sending)):
            limits = [adapter.manifest.limits for adapter in sending.get(name, ())]
            rates = [limit.per_second for limit in limits if limit.per_second is not None]
            places = min((limit.concurrency for limit in limits), default=_NO_ADAPTER_PLACES)
            found.append(Lane(name, wanted(name), places, min(rates, default=None)))
        return found

    async def recall(self, referral_id: UUID) -> None:
        """Cancel a referral whose cancellation is asked for, if nothing of it ever left."""
        await self._recall.recall(referral_id)

    async def deliver(self, job: Job) -> None:
        """Make one attempt for what a referral has to be sent now. Safe to repeat: where there is nothing, none is.

        While witnesses are missing too long nothing is transmitted: the message waits.
        """
        if self._quorum.stops(self.now()):
            await self._put_off(job, _STOPPED_WAIT)
            return
        found = await self._reader.read(job.referral_id)
        if found is None:
            async with self.database.transaction() as connection:
                await queue.drop(connection, job)
            return
        seen, retry_after_s = await self._attempt(job, found)
        if seen is Seen.SILENCE:
            async with self.database.transaction() as connection:
                await lanes.silent(connection, job.institution, self.plan, self.now(), retry_after_s)
        elif seen is Seen.ANSWER and job.troubled:
            async with self.database.transaction() as connection:
                await lanes.answered(connection, job.institution, self.now())

    async def _attempt(self, job: Job, found: Material) -> tuple[Seen, float | None]:
        current = found.referral
        fields = REFERRAL_FIELDS if found.further is None else _FURTHER_FIELDS
        request = as_sent(current, found.case, self.now(), fields)
        decision = decide(request, found.facts, self._policies.current)
        details = found.details
        if decision.permit is None or details is None:
            await self._conclusions.withheld(job, found, request, decision)
            return Seen.NOTHING, None
        adapter = self._adapters.serving(current.service)
        if adapter is None:
            await self._conclusions.failed(job, found, "no-adapter", final=True)
            return Seen.NOTHING, None
        if found.further is not None and found.further.kind not in adapter.further:
            await self._conclusions.failed(job, found, NOT_SUPPORTED, final=True)
            return Seen.NOTHING, None
        if job.lost_before and not adapter.deduplicates:
            await self._conclusions.failed(job, found, "effect-unknown", final=True, detail="worker lost", unknown=True)
            return Seen.NOTHING, None
        entry = evidence.decided(
            "referral.sending",
            request,
            decision,
            subject=current.person_id,
            facts=found.facts,
            exchange={
                "referral": str(current.id),
                "attempt": found.attempts + 1,
                "adapter": adapter.name,
                "protocol": adapter.kind,
                **({} if found.further is None else {"message": found.kind, "number": found.further.number}),
            },
        )
        receipt = evidence.to_hand_over(await self._audit.append(entry), self._public_address)
        message = _message(found, details, decision.released)
        job.sent = True
        outcome = await adapter.send(decision.permit, message, receipt=receipt)
        _attempts.labels(current.recipient, type(outcome).__name__).inc()
        return await self._conclude(job, found, adapter, outcome)

    async def _conclude(
        self, job: Job, found: Material, adapter: ProducerAdapter, outcome: SendOutcome
    ) -> tuple[Seen, float | None]:
        match outcome:
            case Taken() | AlreadyTaken():
                await self._conclusions.transmitted(job, found, outcome, adapter.kind)
                self.transmitted[job.institution] += 1
                return Seen.ANSWER, None
            case Rejected():
                await self._conclusions.failed(job, found, "rejected", detail=outcome.code, final=True)
                return Seen.ANSWER, None
            case Unavailable() if outcome.provenance.attempts == 0 and adapter.connected:
                # Its breaker is open, or no place was free here: nobody was asked, so this was no attempt.
                await self._put_off(job, timedelta(seconds=max(outcome.retry_after_s or 0.0, 1.0)))
                return (Seen.NOTHING if outcome.retry_after_s is None else Seen.SILENCE), None
            case Unavailable() | Malformed():
                unknown = outcome.effect_unknown or job.lost_before
                doubtful = outcome.effect_unknown and not adapter.deduplicates
                after_s = outcome.retry_after_s if isinstance(outcome, Unavailable) else None
                await self._conclusions.failed(
                    job,
                    found,
                    "effect-unknown" if doubtful else "unavailable",
                    detail=outcome.reason,
                    final=doubtful,
                    unknown=unknown,
                    not_before_s=after_s,
                )
                self.retried[job.institution] += not doubtful
                return (Seen.SILENCE if isinstance(outcome, Unavailable) else Seen.ANSWER), after_s

    async def _put_off(self, job: Job, wait: timedelta) -> None:
        async with self.database.transaction() as connection:
            await queue.put_off(connection, job, wait, starts=job.starts - 1)


def _message(found: Material, details: PersonDetails, released: frozenset[str]) -> ReferralMessage:
    """Build the message with no more of the person than this decision released (a whitelist, applied last)."""
    message = _referral(found.referral, details, found.reason, released)
    if found.further is None:
        return message
    return replace(message, kind=found.further.kind, message_id=found.further.id, reason_text=found.further.text)


def _referral(current: Referral, details: PersonDetails, reason: str, released: frozenset[str]) -> ReferralMessage:
    def given(field: str, value: T, nothing: T) -> T:
        return value if field in released else nothing

    ref = details.ref
    identifiers = tuple(Identifier(system, value) for system, value in details.identifiers)
    return ReferralMessage(
        referral_id=current.id,
        service=current.service,
        requester=current.requester,
        recipient=current.recipient,
        identifiers=given("identifiers", identifiers, ()),
        given_names=given("given_names", details.given_names, ""),
        surnames=given("surnames", details.surnames, ""),
        birth_date=given("birth_date", ref.birth_date, None),
        sex=given("sex", ref.sex, None),
        department=given("department", ref.department, None),
        district=given("district", ref.district, None),
        reason_code=current.reason_code,
        reason_text=reason,
        priority=current.priority,
        issued_at=current.created_at,
        due_on=current.due_on,
    )
