"""Polls recipients for counter-referrals: every reply and the cursor behind it in one transaction, bad rows named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.models import Adapter, Page, PollOutcome
from adapters.registry import Adapters
from audit.service import AuditLog
from consent.decision import decide
from consent.models import POLL, REPLIES, REPLY_FIELDS, UNKNOWN_SUBJECT, Caller, Request
from consent.policy import PolicyStore
from gateway import errors, evidence
from gateway.clock import utc_now
from gateway.database import Database
from gateway.intake.rounds import in_rounds
from gateway.intake.tables import intake_reject, poll_cursor
from gateway.referrals.service import ReferralService
from schemas.ids import uuid7

_log = structlog.get_logger(__name__)
_polled = Counter("siis_replies_polled_total", "Counter-referrals polled", ["institution", "outcome"])


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought in: replies applied, repeated, refused by the state table, and unreadable rows."""

    applied: int = 0
    repeated: int = 0
    refused: int = 0
    unreadable: int = 0
    more: bool = False


class ReplyIntake:
    """Polls the adapters that have replies to poll for."""

    def __init__(
        self,
        *,
        database: Database,
        audit: AuditLog,
        policies: PolicyStore,
        referrals: ReferralService,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database, self._audit, self._policies = database, audit, policies
        self._referrals, self._now = referrals, now

    async def run(self, adapters: Adapters, interval_s: float, stop: asyncio.Event) -> None:
        """Poll every adapter that has replies, each every ``interval_s`` seconds, until ``stop`` is set.

        Of several workers one polls.
        """

        async def work(adapter: Adapter) -> bool:
            return (await self.poll(adapter)).more

        def connected() -> list[Adapter]:
            return [adapter for adapter in adapters.polling() if adapter.connected]

        await in_rounds(connected, work, interval_s, stop)

    async def poll(self, adapter: Adapter) -> Polled:
        """Ask one adapter for the replies after its cursor and apply them."""
        caller = Caller(client_id="siis-intake", institution="UTGS", roles=frozenset({"system"}))
        request = Request(
            action=POLL,
            caller=caller,
            holder=adapter.institution,
            dataset=REPLIES,
            fields=REPLY_FIELDS,
            purpose="service-provision",
            basis="official-authority",
            at=self._now(),
        )
        decision = decide(request, UNKNOWN_SUBJECT, self._policies.current)
        if decision.permit is None:
            await self._audit.append(evidence.decided("reply.denied", request, decision, subject=None))
            return Polled()
        async with self._database.transaction() as connection:
            # The lock is held while the producer is asked: a second worker skips this round instead of asking too.
            key = {"name": adapter.name}
            if not await connection.scalar(
                text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 5113))"), key
            ):
                return Polled()
            cursor = await connection.scalar(select(poll_cursor.c.cursor).where(poll_cursor.c.adapter == adapter.name))
            outcome = await adapter.poll(decision.permit, cursor)
            if not isinstance(outcome, Page):
                _failed(adapter, outcome)
                return Polled()
            return await self._take(connection, adapter, outcome, cursor)

    async def _take(self, connection: AsyncConnection, adapter: Adapter, page: Page, before: str | None) -> Polled:
        counts = {"applied": 0, "repeated": 0, "refused": 0}
        rejects: list[dict[str, Any]] = [
            {"row": item.row, "column": item.column, "what": item.what} for item in page.rejects
        ]
        for place, reply in enumerate(page.items, start=1):
            try:
                async with connection.begin_nested():
                    done = await self._referrals.apply(
                        connection,
                        adapter.institution,
                        reply,
                        actor={"institution": adapter.institution, "channel": adapter.name},
                        came=evidence.told(page.provenance, adapter.kind),
                    )
                counts["repeated" if done.replayed else "applied"] += 1
            except errors.Refusal as refusal:
                counts["refused"] += 1
                detail = refusal.detail if isinstance(refusal, errors.Conflict) else None
                what = refusal.code if detail is None else f"{refusal.code}: {detail}"
                rejects.append({"row": place, "column": f"referral {reply.referral_id}", "what": what})
        for reject in rejects:
            reject.update(id=uuid7(), adapter=adapter.name, cursor=page.source or page.cursor)
        if rejects:
            await connection.execute(insert(intake_reject), rejects)
        statement = upsert(poll_cursor).values(adapter=adapter.name, cursor=page.cursor)
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=["adapter"], set_={"cursor": page.cursor, "updated_at": func.now()}
            )
        )
        for name, number in counts.items():
            _polled.labels(adapter.institution, name).inc(number)
        # A cursor that does not move would bring the same page for ever: it waits for its turn.
        more = page.more and page.cursor != before
        return Polled(**counts, unreadable=len(page.rejects), more=more)


def _failed(adapter: Adapter, outcome: PollOutcome) -> None:
    kind = type(outcome).__name__
    _polled.labels(adapter.institution, kind).inc()
    _log.warning("intake.poll_failed", adapter=adapter.name, outcome=kind, reason=getattr(outcome, "reason", None))
