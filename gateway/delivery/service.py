"""Delivers one referral: decide again, record, transmit, record what came of it, or defer the next attempt.

Every acknowledged referral ends transmitted once, or visibly withheld, rejected or waiting for a person (DESIGN 9.2).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.models import (
    Adapter,
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
from consent.models import REFERRAL_FIELDS, SEND, Caller, Decision, Request, SubjectFacts
from consent.policy import PolicyStore
from gateway import evidence, jobs
from gateway.clock import utc_now
from gateway.database import Database
from gateway.referrals import states, store
from gateway.referrals.models import Referral
from gateway.registry import service as registry
from gateway.registry.facts import subject_facts
from gateway.registry.models import PersonDetails
from gateway.vault import Vault
from gateway.witnesses.quorum import NO_WITNESSES, Quorum

_log = structlog.get_logger(__name__)
_attempts = Counter("siis_delivery_attempts_total", "Attempts to transmit a referral", ["recipient", "outcome"])

_LONGEST_WAIT = timedelta(hours=6)
# While witnesses are missing; no attempt is counted, so none is lost by it.
_STOPPED_WAIT = timedelta(minutes=1)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """How attempts are spaced: the first wait in seconds, doubled each time up to six hours, and how many in all."""

    first_wait_s: float
    attempts: int

    def wait(self, attempt: int) -> timedelta:
        """Return the pause after attempt number ``attempt`` (from 1), with a tenth of jitter."""
        seconds = self.first_wait_s * 2 ** (attempt - 1) * random.uniform(0.9, 1.1)  # noqa: S311
        return min(timedelta(seconds=seconds), _LONGEST_WAIT)


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
        self._database, self._vault, self._audit = database, vault, audit
        self._policies, self._adapters = policies, adapters
        self._plan, self._now, self._public_address = plan, now, public_address
        self._quorum = quorum

    async def deliver(self, referral_id: UUID) -> None:
        """Make one attempt for one referral. Safe to repeat: a referral that needs none is left alone.

        While witnesses are missing too long nothing is transmitted: the referral waits.
        """
        if self._quorum.stops(self._now()):
            async with self._database.transaction() as connection:
                await jobs.defer_delivery(connection, referral_id, _STOPPED_WAIT)
            return
        async with self._database.connection() as connection:
            current = await store.by_id(connection, referral_id)
            if current is None or current.delivery != "pending":
                return
            details = await registry.person_details(connection, self._vault, current.person_id)
            facts = await subject_facts(connection, None if details is None else details.ref)
            private = await store.private_texts(connection, self._vault, current.id)
        request = self._request(current, private["case"])
        decision = decide(request, facts, self._policies.current)
        if decision.permit is None or details is None:
            await self._withhold(current, request, decision, facts)
            return
        adapter = self._adapters.serving(current.service)
        if adapter is None:
            await self._conclude_failure(current, "no-adapter", final=True)
            return
        entry = evidence.decided(
            "referral.sending",
            request,
            decision,
            subject=current.person_id,
            facts=facts,
            exchange={
                "referral": str(current.id),
                "attempt": current.attempts + 1,
                "adapter": adapter.name,
                "protocol": adapter.kind,
            },
        )
        receipt = evidence.to_hand_over(await self._audit.append(entry), self._public_address)
        message = _message(current, details, private["reason"], decision.released)
        outcome = await adapter.send(decision.permit, message, receipt=receipt)
        _attempts.labels(current.recipient, type(outcome).__name__).inc()
        await self._conclude(current, adapter, outcome)

    async def _conclude(self, current: Referral, adapter: Adapter, outcome: SendOutcome) -> None:
        match outcome:
            case Taken() | AlreadyTaken():
                await self._transmitted(current, outcome, adapter.kind)
            case Rejected():
                await self._conclude_failure(current, "rejected", code=outcome.code, final=True)
            case Unavailable() | Malformed():
                if outcome.effect_unknown and not adapter.deduplicates:
                    await self._conclude_failure(current, "effect-unknown", code=outcome.reason, final=True)
                else:
                    await self._conclude_failure(current, "unavailable", code=outcome.reason, final=False)

    async def _transmitted(self, current: Referral, outcome: Taken | AlreadyTaken, protocol: str) -> None:
        async with self._database.transaction() as connection:
            locked = await store.by_id(connection, current.id, lock=True)
            if locked is None or locked.delivery not in ("pending", "transmitted"):
                return
            at = self._now()
            # A reply may have overtaken this record: then the state has moved on already and only the note is left.
            moves = locked.state == states.CREATED
            entry = evidence.entry(
                "referral.transmitted",
                "done",
                at=at,
                subject=locked.person_id,
                policy_version=self._policies.current.version,
                exchange={
                    "referral": str(locked.id),
                    "requester": locked.requester,
                    "recipient": locked.recipient,
                    "outcome": type(outcome).__name__,
                    "state_before": locked.state,
                    "state_after": states.TRANSITIONS[(locked.state, "send")] if moves else locked.state,
                    **evidence.told(outcome.provenance, protocol),
                    # Of the whole delivery; one attempt's own calls are no matter of the log.
                    "attempts": locked.attempts + 1,
                },
            )
            await self._audit.stage(connection, entry)
            after = await store.add_event(
                connection,
                self._vault,
                locked,
                "send" if moves else "transmitted",
                actor=locked.requester,
                at=at,
                facts={"attempt": locked.attempts + 1, "already": isinstance(outcome, AlreadyTaken)},
                entry_id=entry.id,
            )
            await store.change(
                connection,
                locked.id,
                state=after,
                delivery="transmitted",
                delivery_reason=None,
                attempts=locked.attempts + 1,
                recipient_reference=outcome.reference or None,
            )

    async def _conclude_failure(self, current: Referral, reason: str, *, final: bool, code: str | None = None) -> None:
        async with self._database.transaction() as connection:
            locked = await store.by_id(connection, current.id, lock=True)
            if locked is None or locked.delivery != "pending":
                return
            attempt = locked.attempts + 1
            ended = final or attempt >= self._plan.attempts
            facts: dict[str, Any] = {"attempt": attempt, "reason": reason}
            if code is not None:
                facts["detail"] = code
            entry_id = None
            if ended:
                entry_id = await self._stage_end(connection, locked, reason, attempt)
            await store.add_event(
                connection,
                self._vault,
                locked,
                "dead_letter" if ended else "attempt_failed",
                actor=locked.requester,
                at=self._now(),
                facts=facts,
                entry_id=entry_id,
            )
            delivery = "pending"
            if ended:
                delivery = "rejected" if reason == "rejected" else "dead"
            await store.change(connection, locked.id, delivery=delivery, delivery_reason=reason, attempts=attempt)
            if not ended:
                await jobs.defer_delivery(connection, locked.id, self._plan.wait(attempt))
        _log.info("delivery.failed", referral=str(current.id), reason=reason, attempt=attempt, final=ended)

    async def _stage_end(self, connection: AsyncConnection, locked: Referral, reason: str, attempt: int) -> UUID:
        entry = evidence.entry(
            "referral.undelivered",
            "failed",
            at=self._now(),
            subject=locked.person_id,
            policy_version=self._policies.current.version,
            exchange={
                "referral": str(locked.id),
                "requester": locked.requester,
                "recipient": locked.recipient,
                "reason": reason,
                "attempts": attempt,
            },
        )
        await self._audit.stage(connection, entry)
        return entry.id

    async def _withhold(self, current: Referral, request: Request, decision: Decision, facts: SubjectFacts) -> None:
        async with self._database.transaction() as connection:
            locked = await store.by_id(connection, current.id, lock=True)
            if locked is None or locked.delivery != "pending":
                return
            entry = evidence.decided(
                "referral.withheld",
                request,
                decision,
                subject=locked.person_id,
                facts=facts,
                exchange={"referral": str(locked.id), "state_before": locked.state, "state_after": locked.state},
            )
            await self._audit.stage(connection, entry)
            await store.add_event(
                connection,
                self._vault,
                locked,
                "withheld",
                actor=locked.requester,
                at=request.at,
                facts={"reason": "not-released"},
                entry_id=entry.id,
            )
            await store.change(connection, locked.id, delivery="withheld", delivery_reason="not-released")

    def _request(self, current: Referral, case: str | None) -> Request:
        told = current.caller
        caller = Caller(
            client_id="siis-delivery",
            institution=current.requester,
            user_verified=told["user_verified"],
            roles=frozenset(told["roles"]),
            assurance=told["assurance"],
        )
        return Request(
            action=SEND,
            caller=caller,
            holder=current.recipient,
            dataset=f"service:{current.service}",
            fields=REFERRAL_FIELDS,
            purpose=current.purpose,
            basis=current.basis,
            agreement=current.agreement,
            case=case,
            channel=told["channel"],
            at=self._now(),
        )


def _message(current: Referral, details: PersonDetails, reason: str, released: frozenset[str]) -> ReferralMessage:
    """Build the message with no more of the person than this decision released (a whitelist, applied last)."""

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
