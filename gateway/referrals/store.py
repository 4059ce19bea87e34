"""Reads and writes referrals and their events; moves a referral along the state table in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ClauseElement,
    Column,
    ColumnElement,
    Date,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.database import Prepared
from gateway.events.tables import event
from gateway.referrals.models import Part, Referral, ReferralEvent
from gateway.referrals.states import TRANSITIONS
from gateway.referrals.tables import ALONE, HELD, referral, referral_event
from gateway.registry.recompute import GAP_SINCE
from gateway.registry.tables import household, person
from gateway.vault import Vault
from schemas.ids import uuid7

_earlier = referral_event.alias("earlier")
_COLUMNS = tuple(referral.c[name] for name in Referral.__dataclass_fields__)

_LOCK_SERVICE = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 5120))")
_HOME = bindparam("home", type_=Uuid)
_POOR = select(household.c.attributes.contains({"poverty": True})).where(household.c.id == _HOME).scalar_subquery()
# Whoever was found to be the person may have one of an id of theirs, which no index compares.
_made = {name: literal_column(f"siis.referral.{name}", column.type) for name, column in referral.c.items()}
_absorbed, _theirs = person.alias("absorbed"), referral.alias("theirs")
_EQUAL_OF_THEIRS = (
    select(_theirs.c.id)
    .join(_absorbed, _theirs.c.person_id == _absorbed.c.id)
    .where(
        _absorbed.c.merged_into == _made["person_id"],
        _theirs.c.service == _made["service"],
        _theirs.c.requester == _made["requester"],
        # Names without a table are those of the inner one.
        text(ALONE),
        ~_made["additional"],
    )
    .order_by(_theirs.c.id)
    .limit(1)
    .scalar_subquery()
)
_CREATE = (
    upsert(referral)
    .values(
        gap_since=select(GAP_SINCE.columns(Column("min", Date)).subquery().c.min).scalar_subquery(),
        population=case(
            (_POOR, func.array_append(bindparam("groups", type_=ARRAY(Text)), "poverty")),
            else_=bindparam("groups", type_=ARRAY(Text)),
        ),
    )
    .on_conflict_do_nothing(
        index_elements=[referral.c.person_id, referral.c.service, referral.c.requester], index_where=text(ALONE)
    )
    .returning(*_COLUMNS, _EQUAL_OF_THEIRS)
)
_NEW = {
    name: bindparam(f"new_{name}", type_=column.type)
    for name, column in referral_event.c.items()
    if name not in ("number", "referral_id")
}
_added = (
    insert(referral_event)
    .values(
        referral_id=bindparam("of", type_=referral_event.c.referral_id.type),
        number=select(func.coalesce(func.max(_earlier.c.number), 0) + 1)
        .where(_earlier.c.referral_id == bindparam("of"))
        .scalar_subquery(),
        **_NEW,
    )
    .returning(referral_event.c.number)
    .cte("added")
)
# Written and published at once: nobody is told of an event that is not there, and none is there untold.
_TOLD = {
    "id": _NEW["id"],
    "type": literal("referral.") + _NEW["type"],
    "at": _NEW["at"],
    "institutions": array([referral.c.requester, referral.c.recipient, _NEW["actor"]]),
    "referral_id": referral.c.id,
    "sequence": _added.c.number,
    "service": referral.c.service,
    "department": referral.c.department,
    "district": referral.c.district,
    "facts": func.jsonb_build_object("state", _NEW["state_after"], "priority", referral.c.priority),
}
_ADD_EVENT = Prepared(
    insert(event).from_select(
        list(_TOLD), select(*_TOLD.values()).where(referral.c.id == bindparam("of")).join_from(referral, _added, true())
    )
)
# Every referral has texts, until the person is erased: then it is evidence, and nobody's to move.
_BY_ID = select(*_COLUMNS).where(referral.c.id == bindparam("of"), referral.c.texts.is_not(None))
_READ, _LOCK = Prepared(_BY_ID), Prepared(_BY_ID.with_for_update())


async def by_id(connection: AsyncConnection, referral_id: UUID, *, lock: bool = False) -> Referral | None:
    """Return a referral by id, or None, also once its person was erased.

    With ``lock`` nobody else moves it until the transaction ends.
    """
    found = await (_LOCK if lock else _READ).run(connection, {"of": referral_id})
    row = await found.fetchone()
    return None if row is None else Referral(*row)


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


async def create(
    connection: AsyncConnection, *, groups: Sequence[str] = (), home: UUID | None = None, **values: Any
) -> Referral:
    """Insert a referral and return it; ``groups`` are the person's populations but poverty, which ``home`` tells.

    Raises Conflict with the number of the one that its requester has under way for the same person and service.
    """
    units = [unit for unit in (values["person_id"], home) if unit is not None]
    looked_up = {"groups": list(groups), "home": home, "units": units, "gap_of": values["service"]}
    found = await _prepared_create(tuple(values)).run(connection, {**values, **looked_up})
    row = await found.fetchone()
    if row is None:
        same = (getattr(referral.c, name) == values[name] for name in ("person_id", "service", "requester"))
        earlier = await connection.scalar(select(referral.c.id).where(*same, text(ALONE)))
        if earlier is None:
            # It was closed in between: then the sender just sends again.
            raise errors.Conflict("already-referred")
        raise errors.Conflict("already-referred", referral=str(earlier))
    *columns, equal = row
    if equal is not None:
        raise errors.Conflict("already-referred", referral=str(equal))
    return Referral(*columns)


@lru_cache
def _prepared_create(columns: tuple[str, ...]) -> Prepared:
    return Prepared(_CREATE, columns)


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
    await _ADD_EVENT.run(connection, {**{f"new_{name}": value for name, value in row.items()}, "of": current.id})
    return after


async def change(connection: AsyncConnection, referral_id: UUID, **values: Any) -> None:
    """Set columns of a referral to values, or to expressions of its columns."""
    if any(isinstance(value, ClauseElement) for value in values.values()):
        mine = update(referral).where(referral.c.id == referral_id)
        await connection.execute(mine.values(updated_at=func.now(), **values))
    else:
        await _prepared_change(tuple(values)).run(connection, {**values, "of": referral_id})


@lru_cache
def _prepared_change(columns: tuple[str, ...]) -> Prepared:
    statement = update(referral).where(referral.c.id == bindparam("of")).values(updated_at=func.now())
    return Prepared(statement, columns)


async def last_number(connection: AsyncConnection, referral_id: UUID) -> int:
    """Return the number of a referral's newest event."""
    table = referral_event.c
    found = await connection.scalar(select(func.max(table.number)).where(table.referral_id == referral_id))
    return int(found or 0)


async def parts(connection: AsyncConnection, whole: UUID) -> list[Part]:
    """Return the parts of a referral, in the order in which they were made."""
    columns = (referral.c[name] for name in Part.__dataclass_fields__)
    rows = await connection.execute(select(*columns).where(referral.c.parent_id == whole).order_by(referral.c.id))
    return [Part(**row._mapping) for row in rows]


async def held_by(connection: AsyncConnection, service: str, *, lock: bool = False) -> int:
    """Return how many referrals under way fill a service; with ``lock`` nobody else counts them to add one meanwhile.

    The lock is of this service alone and lasts until the transaction ends.
    """
    if lock:
        # A statement of its own: one that waits and counts would count what it saw before it waited.
        await connection.execute(_LOCK_SERVICE, {"name": service})
    found = await connection.scalar(
        select(func.count()).select_from(referral).where(referral.c.service == service, text(HELD))
    )
    return int(found or 0)


async def entry_of_message(connection: AsyncConnection, referral_id: UUID, actor: str, message_id: str) -> UUID | None:
    """Return the log entry of the event that an institution's message made earlier, or None."""
    table = referral_event.c
    made = (table.referral_id == referral_id, table.actor == actor, table.message_id == message_id)
    return await connection.scalar(select(table.entry_id).where(*made))
