"""Writes what came of an attempt: event, entry, the message's state and its job, in one transaction.

The same for the referral itself and for what follows it. An attempt that another worker concluded meanwhile, or whose
referral was erased, changes nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
import structlog
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.models import AlreadyTaken, Taken
from audit.errors import AuditError
from audit.models import Entry, Outcome
from audit.service import AuditLog
from consent.models import Decision, Request
from consent.policy import PolicyStore
from gateway import evidence, jobs
from gateway.database import Database
from gateway.delivery import queue
from gateway.delivery.material import Material
from gateway.delivery.plan import Plan
from gateway.delivery.queue import Job
from gateway.referrals import states, store
from gateway.referrals.milestones import milestones
from gateway.referrals.models import Referral
from gateway.referrals.outbox import NOT_SUPPORTED
from gateway.referrals.outbox_tables import message
from gateway.vault import Vault

_log = structlog.get_logger(__name__)
# So many transactions at once, so that no round trip is waited for by all, each of so many messages at most.
_TURNS, _GROUP = 4, 32


@dataclass(slots=True, eq=False)
class _Sent:
    """A message that its recipient has; ``tried``: to record it together with others."""

    job: Job
    found: Material
    outcome: Taken | AlreadyTaken
    protocol: str
    tried: bool = False
    recorded: bool = False


@dataclass(slots=True, eq=False)
class _Turn:
    """What waits to be recorded by whoever has the lock next."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[_Sent] = field(default_factory=list)


class Conclusions:
    """Concludes attempts."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        audit: AuditLog,
        policies: PolicyStore,
        plan: Plan,
        now: Callable[[], datetime],
    ) -> None:
        self._database, self._vault, self._audit, self._policies = database, vault, audit, policies
        self._plan, self._now = plan, now
        self._turns = [_Turn() for _ in range(_TURNS)]

    async def transmitted(self, job: Job, found: Material, outcome: Taken | AlreadyTaken, protocol: str) -> None:
        """Conclude that the recipient has the message.

        Those who wait for it at the same moment share one transaction; where it fails, each has one of its own.
        """
        mine, turn = _Sent(job, found, outcome, protocol), self._turns[job.id % _TURNS]
        turn.waiting.append(mine)
        async with turn.lock:
            if mine.recorded:
                return
            group = [mine] if mine.tried else turn.waiting[:_GROUP]
            turn.waiting = [each for each in turn.waiting if each not in group]
            for each in group:
                each.tried = True
            if len(group) > 1:
                with contextlib.suppress(AuditError, SQLAlchemyError, psycopg.Error, OSError):
                    await self._record(group)
            if not mine.recorded:
                await self._record([mine])

    async def _record(self, group: Sequence[_Sent]) -> None:
        async with self._database.transaction() as connection:
            # A part before its whole, as whoever closes the last part locks them.
            for sent in sorted(group, key=lambda each: each.found.referral.id, reverse=True):
                await self._transmitted(connection, sent)
        for sent in group:
            sent.recorded = True

    async def _transmitted(self, connection: AsyncConnection, sent: _Sent) -> None:
        job, found, outcome = sent.job, sent.found, sent.outcome
        locked = await self._still(connection, job, found, also="transmitted")
        if locked is None:
            return
        at = self._now()
        # A reply may have overtaken this record: then the state has moved on already and only the note is left.
        moves = found.further is None and locked.state == states.CREATED
        entry = self._entry(
            "referral.transmitted",
            "done",
            at,
            locked,
            found,
            {
                "outcome": type(outcome).__name__,
                "state_before": locked.state,
                "state_after": states.TRANSITIONS[(locked.state, "send")] if moves else locked.state,
                **evidence.told(outcome.provenance, sent.protocol),
                # Of the whole delivery; one attempt's own calls are no matter of the log.
                "attempts": found.attempts + 1,
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
            facts=_facts(found, already=isinstance(outcome, AlreadyTaken)),
            entry_id=entry.id,
        )
        values: dict[str, Any] = {} if not moves else milestones("send", after, at)
        if found.further is None:
            values["recipient_reference"] = outcome.reference or None
        await self._settle(connection, found, at, "transmitted", None, **values)
        await queue.conclude(connection, job)

    async def failed(
        self,
        job: Job,
        found: Material,
        reason: str,
        *,
        final: bool,
        detail: str | None = None,
        unknown: bool = False,
        not_before_s: float | None = None,
    ) -> None:
        """Conclude that an attempt failed: another one is deferred, or the message is dead and waits for a person.

        ``unknown``: it may have reached the recipient all the same. ``not_before_s``: when the recipient says that it
        can be tried again.
        """
        async with self._database.transaction() as connection:
            locked = await self._still(connection, job, found)
            if locked is None:
                return
            at, attempt = self._now(), found.attempts + 1
            ended = final or attempt >= self._plan.attempts
            facts = _facts(found, reason=reason)
            if detail is not None:
                facts["detail"] = detail
            if unknown:
                facts["effect"] = "unknown"
            entry_id = None
            if ended:
                entry = self._entry(
                    "referral.undelivered", "failed", at, locked, found, {"reason": reason, "attempts": attempt}
                )
                await self._audit.stage(connection, entry)
                entry_id = entry.id
            await store.add_event(
                connection,
                self._vault,
                locked,
                "dead_letter" if ended else "attempt_failed",
                actor=locked.requester,
                at=at,
                facts=facts,
                entry_id=entry_id,
            )
            delivery = "pending"
            if ended:
                delivery = "rejected" if reason == "rejected" else "dead"
            await self._settle(connection, found, at, delivery, reason)
            if ended:
                await self._end(connection, job, found, delivery, reason)
            else:
                wait = max(self._plan.wait(attempt), timedelta(seconds=min(not_before_s or 0.0, 86_400.0)))
                await queue.put_off(connection, job, wait)
            if found.further is None and locked.state == states.CANCEL_REQUESTED:
                await jobs.defer_recall(connection, locked.id)
        _log.info(
            "delivery.failed",
            referral=str(found.referral.id),
            message=found.kind,
            reason=reason,
            attempt=attempt,
            final=ended,
        )

    async def withheld(self, job: Job, found: Material, request: Request, decision: Decision) -> None:
        """Conclude that the message may not leave."""
        async with self._database.transaction() as connection:
            locked = await self._still(connection, job, found)
            if locked is None:
                return
            entry = evidence.decided(
                "referral.withheld",
                request,
                decision,
                subject=locked.person_id,
                facts=found.facts,
                exchange={
                    "referral": str(locked.id),
                    "state_before": locked.state,
                    "state_after": locked.state,
                    **_message(found),
                },
            )
            await self._audit.stage(connection, entry)
            await store.add_event(
                connection,
                self._vault,
                locked,
                "withheld",
                actor=locked.requester,
                at=request.at,
                facts=_facts(found, reason="not-released"),
                entry_id=entry.id,
            )
            await self._settle(connection, found, request.at, "withheld", "not-released", counted=False)
            await self._end(connection, job, found, "withheld", "not-released")
            if found.further is None and locked.state == states.CANCEL_REQUESTED:
                await jobs.defer_recall(connection, locked.id)

    async def _still(
        self, connection: AsyncConnection, job: Job, found: Material, *, also: str = "pending"
    ) -> Referral | None:
        """Lock the referral; ``None``, and the job is over, when somebody else concluded this attempt."""
        locked = await store.by_id(connection, found.referral.id, lock=True)
        if locked is not None:
            if found.further is None:
                same = locked.attempts == found.attempts and locked.delivery in ("pending", also)
            else:
                current = select(message.c.attempts, message.c.delivery).where(message.c.id == found.further.id)
                row = (await connection.execute(current)).one()
                same = row.attempts == found.attempts and row.delivery == "pending"
            if same:
                return locked
        await queue.conclude(connection, job)
        return None

    async def _settle(
        self,
        connection: AsyncConnection,
        found: Material,
        at: datetime,
        delivery: str,
        reason: str | None,
        *,
        counted: bool = True,
        **more: Any,
    ) -> None:
        values = {"delivery": delivery, "delivery_reason": reason, "attempts": found.attempts + counted}
        if found.further is None:
            await store.change(connection, found.referral.id, **values, **more)
        else:
            concluded = None if delivery == "pending" else at
            await connection.execute(
                update(message).where(message.c.id == found.further.id).values(concluded_at=concluded, **values)
            )

    async def _end(self, connection: AsyncConnection, job: Job, found: Material, delivery: str, reason: str) -> None:
        """End a job whose message stays undelivered: what holds back others leaves none of them to send."""
        if found.further is None or (delivery == "dead" and reason != NOT_SUPPORTED):
            await queue.drop(connection, job)
        else:
            await queue.conclude(connection, job)

    def _entry(
        self, event: str, ended: Outcome, at: datetime, locked: Referral, found: Material, exchange: dict[str, Any]
    ) -> Entry:
        return evidence.entry(
            event,
            ended,
            at=at,
            subject=locked.person_id,
            policy_version=self._policies.current.version,
            exchange={
                "referral": str(locked.id),
                "requester": locked.requester,
                "recipient": locked.recipient,
                **_message(found),
                **exchange,
            },
        )


def _message(found: Material) -> dict[str, Any]:
    """Return what an entry says of which message of the referral it is about."""
    return {} if found.further is None else {"message": found.kind, "number": found.further.number}


def _facts(found: Material, **more: Any) -> dict[str, Any]:
    """Return what an event says of an attempt."""
    return {"attempt": found.attempts + 1, **_message(found), **more}
