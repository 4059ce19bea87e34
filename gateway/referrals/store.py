"""Reads and writes referrals and their events; moves a referral along the state table in the caller's transaction."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.referrals.models import Referral, ReferralEvent
from gateway.referrals.states import TRANSITIONS
from gateway.referrals.tables import referral, referral_event
from gateway.vault import Vault
from schemas.ids import uuid7

_earlier = referral_event.alias("earlier")
_COLUMNS = tuple(referral.c[name] for name in Referral.__dataclass_fields__)

# Statements of the accepting path are built once: building them costs as much as running them.
_CREATE = insert(referral).returning(*_COLUMNS)
_ADD_EVENT = insert(referral_event).values(
    number=select(func.coalesce(func.max(_earlier.c.number), 0) + 1)
    .where(_earlier.c.referral_id == bindparam("of"))
    .scalar_subquery()
)


async def by_id(connection: AsyncConnection, referral_id: UUID, *, lock: bool = False) -> Referral | None:
    """Return a referral by id, or None, also once its person was erased.

    With ``lock`` nobody else moves it until the transaction ends.
    """
    return await _one(connection, referral.c.id == referral_id, lock=lock)


async def by_foreign(
    connection: AsyncConnection, requester: str, foreign: tuple[str, str], *, lock: bool = False
) -> Referral | None:
    """Return a requester's referral by the number (system, value) its own system gave it, or None."""
    mine = and_(
        referral.c.requester == requester,
        referral.c.foreign_system == foreign[0],
        referral.c.foreign_value == foreign[1],
    )
    return await _one(connection, mine, lock=lock)


async def _one(connection: AsyncConnection, condition: ColumnElement[bool], *, lock: bool) -> Referral | None:
    # Every referral has texts, until the person is erased: then it is evidence, and nobody's to move.
    query = select(*_COLUMNS).where(condition, referral.c.texts.is_not(None))
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else Referral(**row._mapping)


async def create(connection: AsyncConnection, **values: Any) -> Referral:
    """Insert a referral and return it."""
    row = (await connection.execute(_CREATE, values)).one()
    return Referral(**row._mapping)


async def private_texts(connection: AsyncConnection, vault: Vault, referral_id: UUID) -> dict[str, Any]:
    """Return a referral's reason and case number, decrypted."""
    sealed = (await connection.execute(select(referral.c.texts).where(referral.c.id == referral_id))).scalar_one()
    opened: dict[str, Any] = json.loads(vault.open("referral.texts", referral_id, sealed))
    return opened


async def events(connection: AsyncConnection, vault: Vault, referral_id: UUID) -> list[ReferralEvent]:
    """Return the events of a referral in their order, texts decrypted."""
    table = referral_event.c
    rows = await connection.execute(
        select(referral_event).where(table.referral_id == referral_id).order_by(table.number)
    )
    return [
        ReferralEvent(
            number=row.number,
            type=row.type,
            actor=row.actor,
            at=row.at,
            occurred_on=row.occurred_on,
            state_before=row.state_before,
            state_after=row.state_after,
            synthesised=row.synthesised,
            facts=row.facts,
            texts={} if row.texts is None else json.loads(vault.open("referral_event.texts", row.id, row.texts)),
            entry_id=row.entry_id,
        )
        for row in rows
    ]


async def add_event(
    connection: AsyncConnection,
    vault: Vault,
    current: Referral,
    kind: str,
    *,
    actor: str,
    at: datetime,
    state_before: str | None = None,
    occurred_on: date | None = None,
    synthesised: bool = False,
    message_id: str | None = None,
    facts: dict[str, Any] | None = None,
    texts: dict[str, Any] | None = None,
    entry_id: UUID | None = None,
) -> str:
    """Append an event; return the state after it: the table's next one, or the same for an event that moves nothing."""
    before = state_before or current.state
    after = TRANSITIONS.get((before, kind), before)
    event_id = uuid7()
    sealed = None
    if texts:
        sealed = vault.seal("referral_event.texts", event_id, json.dumps(texts, ensure_ascii=False))
    row = {
        "id": event_id,
        "referral_id": current.id,
        "type": kind,
        "actor": actor,
        "at": at,
        "occurred_on": occurred_on,
        "state_before": before,
        "state_after": after,
        "synthesised": synthesised,
        "message_id": message_id,
        "facts": facts or {},
        "texts": sealed,
        "entry_id": entry_id,
    }
    await connection.execute(_ADD_EVENT, {**row, "of": current.id})
    return after


async def change(connection: AsyncConnection, referral_id: UUID, **values: Any) -> None:
    """Set columns of a referral."""
    await connection.execute(
        update(referral).where(referral.c.id == referral_id).values(updated_at=func.now(), **values)
    )


async def entry_of_message(connection: AsyncConnection, referral_id: UUID, actor: str, message_id: str) -> UUID | None:
    """Return the log entry of the event that an institution's message made earlier, or None."""
    table = referral_event.c
    made = (table.referral_id == referral_id, table.actor == actor, table.message_id == message_id)
    return await connection.scalar(select(table.entry_id).where(*made))
