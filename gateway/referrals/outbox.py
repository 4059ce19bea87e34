"""Keeps what a recipient is told of a referral after the referral itself: stored and deferred in one transaction.

Messages of one referral go out one after another. What is open, waiting or given to a person to decide, holds back
those behind it; only a message that the recipient's interface has no operation for does not: no retry will ever carry
it, and whoever is told otherwise is told in order by a person.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import jobs
from gateway.referrals.models import Referral
from gateway.referrals.outbox_tables import message
from gateway.referrals.tables import referral
from gateway.vault import Vault
from schemas.ids import uuid7

KINDS = frozenset({"cancel", "reopen", "note"})
NOT_SUPPORTED = "not-supported"
COLUMN = "message.texts"


async def tell(
    connection: AsyncConnection,
    vault: Vault,
    current: Referral,
    kind: str,
    *,
    event_number: int,
    texts: dict[str, Any] | None = None,
) -> UUID:
    """Store a message to the recipient of a referral and see that it is sent, in the caller's transaction.

    ``kind`` is one of :data:`KINDS`; ``event_number`` is the referral's event it tells of; ``texts`` leave with it
    (``text``) and are kept encrypted. The caller holds the lock on the referral's row. A cancellation of what was
    never sent is not sent either: the gateway confirms it a moment later.
    """
    if kind not in KINDS:
        raise ValueError(kind)
    message_id = uuid7()
    earlier = select(message).where(message.c.referral_id == current.id).subquery()
    number = select(func.coalesce(func.max(earlier.c.number), 0) + 1).scalar_subquery()
    sealed = None if not texts else vault.seal(COLUMN, message_id, json.dumps(texts, ensure_ascii=False))
    before = (
        await connection.execute(
            select(
                referral.c.delivery,
                select(literal(1)).where(message.c.referral_id == current.id, holds_back()).exists().label("held_back"),
            ).where(referral.c.id == current.id)
        )
    ).one()
    await connection.execute(
        insert(message).values(
            id=message_id,
            referral_id=current.id,
            number=number,
            kind=kind,
            recipient=current.recipient,
            event_number=event_number,
            texts=sealed,
            delivery="pending",
        )
    )
    if before.delivery != "transmitted":
        if kind == "cancel":
            await jobs.defer_recall(connection, current.id)
    elif not before.held_back:
        await jobs.defer_delivery(connection, current.id)
    return message_id


def holds_back() -> Any:
    """Return the condition under which a message keeps those behind it from being sent."""
    return message.c.delivery.in_(("pending", "dead")) & (message.c.delivery_reason.is_distinct_from(NOT_SUPPORTED))
