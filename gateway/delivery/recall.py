"""Cancels by itself a referral that its requester takes back before anything was sent: nobody else could confirm it.

Whether something was sent is not guessed. An attempt under way, one whose worker was lost, or one that ended without
anybody knowing its effect: then the message may be there, and the cancellation follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.service import AuditLog
from consent.policy import PolicyStore
from gateway import evidence
from gateway.database import Database
from gateway.referrals import moves, states, store
from gateway.referrals.models import Referral
from gateway.referrals.outbox_tables import message
from gateway.referrals.tables import referral_event
from gateway.vault import Vault

CANCELLED = "cancelled"
# A job that was never started, or whose last start was concluded: taken by nobody while this transaction lasts.
_UNTOUCHED = text(
    """
    DELETE FROM jobs.procrastinate_jobs WHERE id IN (
        SELECT id FROM jobs.procrastinate_jobs
        WHERE lock = :referral AND task_name = 'deliver' AND status = 'todo' AND attempts = 0
        FOR UPDATE SKIP LOCKED
    )
    """
)
# Dead letters of which it is known that nothing left.
_NEVER_LEFT = frozenset({"no-adapter", "unavailable", "given-up"})


class Recall:
    """Confirms cancellations of what was never sent."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        audit: AuditLog,
        policies: PolicyStore,
        now: Callable[[], datetime],
    ) -> None:
        self._database, self._vault, self._audit, self._policies, self._now = database, vault, audit, policies, now

    async def recall(self, referral_id: UUID) -> None:
        """Cancel a referral whose cancellation is asked for, if nothing of it ever left; else leave it alone."""
        async with self._database.transaction() as connection:
            current = await store.by_id(connection, referral_id, lock=True)
            if current is None or current.state != states.CANCEL_REQUESTED:
                return
            if not await self._never_sent(connection, current):
                return
            at = self._now()
            after = states.TRANSITIONS[(current.state, "confirm_cancel")]
            entry = evidence.entry(
                "referral.recalled",
                "done",
                at=at,
                subject=current.person_id,
                policy_version=self._policies.current.version,
                exchange={
                    "referral": str(current.id),
                    "requester": current.requester,
                    "recipient": current.recipient,
                    "state_before": current.state,
                    "state_after": after,
                },
            )
            await moves.perform(
                connection,
                self._vault,
                self._audit,
                current,
                "confirm_cancel",
                entry,
                actor=current.requester,
                at=at,
                synthesised=True,
                delivery="withheld",
                delivery_reason=CANCELLED,
            )
            waiting = (message.c.referral_id == current.id, message.c.delivery == "pending")
            await connection.execute(update(message).where(*waiting).values(delivery="needless", concluded_at=at))

    async def _never_sent(self, connection: AsyncConnection, current: Referral) -> bool:
        if current.delivery in ("withheld", "rejected", "given_up"):
            return True
        if current.delivery == "transmitted" or (
            current.delivery == "dead" and current.delivery_reason not in _NEVER_LEFT
        ):
            return False
        doubtful = select(referral_event.c.number).where(
            referral_event.c.referral_id == current.id, referral_event.c.facts["effect"].astext == "unknown"
        )
        if (await connection.execute(doubtful.limit(1))).first() is not None:
            return False
        if current.delivery == "dead":
            return True
        taken_away = await connection.execute(_UNTOUCHED, {"referral": str(current.id)})
        return bool(taken_away.rowcount)
