"""What protects a person and who acts for them: representatives, objections, and flags that nobody overrides.

Every function works on the connection handed in and commits nothing. Every change returns what the log must say, as a
JSON-ready dict whose ``event`` names it and whose ``subject`` is our internal id as text. Who may, is asked before.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple, get_args
from uuid import UUID

from sqlalchemy import delete, exists, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.errors import InvalidRecord, NotInForce
from consent.models import FlagKind, RepresentationKind
from consent.subject import AGE_OF_CONSENT, is_adult
from consent.tables import objection, protective_flag, representation
from consent.transaction import instant
from schemas.codes import code_list, require_code
from schemas.ids import uuid7

KINDS: tuple[RepresentationKind, ...] = get_args(RepresentationKind)
FLAGS: tuple[FlagKind, ...] = get_args(FlagKind)
#: Whose mandate ends by itself when the person comes of age.
UNTIL_MAJORITY = frozenset({"parent", "guardian"})
SEALED, AGGRESSOR, COURT_ORDER = "sealed", "aggressor", "court-order"
# Legal terms count in Paraguay, which keeps UTC-3 the whole year since October 2024.
PARAGUAY = timezone(timedelta(hours=-3))


class Mandate(NamedTuple):
    """A stored mandate to act for a person; ``valid_to`` and ``ended_at`` are excluded from it."""

    id: UUID
    subject: UUID
    representative: UUID
    kind: RepresentationKind
    proof_reference: str
    recorded_by: str
    valid_from: datetime
    valid_to: datetime | None
    ended_at: datetime | None
    end_reason: str | None

    def in_force(self, at: datetime) -> bool:
        """Say whether it stands at an instant, as far as its own dates tell."""
        over = self.valid_to is not None and self.valid_to <= at
        ended = self.ended_at is not None and self.ended_at <= at
        return self.valid_from <= at and not over and not ended


class Flag(NamedTuple):
    """A protective flag; ``target`` is empty, or for an aggressor a person's id or an institution's code."""

    kind: FlagKind
    target: str
    reference: str | None
    since: datetime


def majority(birth_date: date) -> datetime:
    """Return when somebody comes of age: the start of that day in Paraguay; born 29 February, on 1 March."""
    year = birth_date.year + AGE_OF_CONSENT
    try:
        day = birth_date.replace(year=year)
    except ValueError:
        day = date(year, 3, 1)
    return datetime(day.year, day.month, day.day, tzinfo=PARAGUAY)


async def add_representation(
    conn: AsyncConnection,
    *,
    subject: UUID,
    representative: UUID,
    kind: str,
    proof_reference: str,
    recorded_by: str,
    birth_date: date | None,
    at: datetime,
    valid_from: datetime | None = None,
    valid_to: datetime | None = None,
) -> dict[str, Any]:
    """Record who may act for a person, with the proof; a parent's or guardian's mandate ends at the person's majority.

    ``birth_date`` is the subject's, from the registry. Raises :class:`InvalidRecord`: an unknown kind, a kind that does
    not fit the person's age, oneself, somebody the person is protected from, or an end before the start.
    """
    if kind not in KINDS:
        raise InvalidRecord("kind", "unknown-code", KINDS)
    if not proof_reference:
        raise InvalidRecord("proof_reference", "missing")
    if subject == representative:
        raise InvalidRecord("representative", "oneself")
    if birth_date is None:
        raise InvalidRecord("kind", "birth-date-unknown")
    starts = at if valid_from is None else valid_from
    if (kind in UNTIL_MAJORITY) is is_adult(birth_date, max(starts, at)):
        raise InvalidRecord("kind", "not-for-this-age")
    if await is_barred(conn, subject, str(representative)):
        raise InvalidRecord("representative", "barred")
    ends = valid_to
    if kind in UNTIL_MAJORITY:
        ends = majority(birth_date) if ends is None else min(ends, majority(birth_date))
    if ends is not None and ends <= max(starts, at):
        raise InvalidRecord("valid_to", "not-after-start")
    mandate_id = uuid7()
    await conn.execute(
        insert(representation).values(
            id=mandate_id,
            subject=subject,
            representative=representative,
            kind=kind,
            proof_reference=proof_reference,
            recorded_by=recorded_by,
            valid_from=starts,
            valid_to=ends,
        )
    )
    return {
        "event": "representation.added",
        "subject": str(subject),
        "representation": str(mandate_id),
        "kind": kind,
        "valid_from": instant(starts),
        "valid_to": None if ends is None else instant(ends),
    }


async def end_representation(
    conn: AsyncConnection, mandate_id: UUID, *, step: str, reason: str, at: datetime
) -> dict[str, Any]:
    """End a mandate, or block it for a conflict of interest or by a court: what was given by it counts no more.

    Raises :class:`InvalidRecord` for a reason (``representation-end-reasons``) that is not one of the step, and
    :class:`NotInForce` where there is no such mandate or it ended.
    """
    check_reason("representation-end-reasons", step, reason)
    row = (
        await conn.execute(
            update(representation)
            .where(representation.c.id == mandate_id, representation.c.ended_at.is_(None))
            .values(ended_at=at, end_reason=reason)
            .returning(representation.c.subject)
        )
    ).first()
    if row is None:
        raise NotInForce
    return {
        "event": "representation.blocked" if step == "block" else "representation.ended",
        "subject": str(row.subject),
        "representation": str(mandate_id),
        "reason": reason,
        "at": instant(at),
    }


def check_reason(codes: str, step: str, reason: str) -> None:
    """Raise :class:`InvalidRecord` with the reasons of a step, unless this is one of them in its code list."""
    allowed = [code for code, spec in code_list(codes).items() if spec["step"] == step]
    if reason not in allowed:
        raise InvalidRecord("reason", "unknown-code", allowed)


async def read_mandate(conn: AsyncConnection, mandate_id: UUID) -> Mandate:
    """Return one mandate; raises :class:`NotInForce` where there is none."""
    row = (await conn.execute(select(representation).where(representation.c.id == mandate_id))).one_or_none()
    if row is None:
        raise NotInForce
    return Mandate(*row)


async def mandates_of(
    conn: AsyncConnection, subject: UUID, *, after: UUID | None = None, limit: int = 50
) -> list[Mandate]:
    """Return who acts or acted for a person, in the order of their ids, from after one of them."""
    table = representation
    query = select(table).where(table.c.subject == subject).order_by(table.c.id).limit(limit)
    if after is not None:
        query = query.where(table.c.id > after)
    return [Mandate(*row) for row in await conn.execute(query)]


async def mandate_between(
    conn: AsyncConnection, subject: UUID, representative: UUID, *, birth_date: date | None, at: datetime
) -> Mandate | None:
    """Return a mandate by which one person acts for another now, or None."""
    table = representation
    query = select(table).where(table.c.subject == subject, table.c.representative == representative)
    for row in await conn.execute(query.order_by(table.c.id)):
        mandate = Mandate(*row)
        if await acts(conn, mandate, birth_date=birth_date, at=at):
            return mandate
    return None


async def acts(conn: AsyncConnection, mandate: Mandate, *, birth_date: date | None, at: datetime) -> bool:
    """Say whether a mandate lets somebody act now: in force, its person not of age where that ends it, not barred."""
    if not mandate.in_force(at):
        return False
    if mandate.kind in UNTIL_MAJORITY and (birth_date is None or is_adult(birth_date, at)):
        return False
    return not await is_barred(conn, mandate.subject, str(mandate.representative))


async def object_to(conn: AsyncConnection, subject: UUID, purpose: str, *, at: datetime) -> dict[str, Any]:
    """Record that a person objects to a purpose (Ley 7593/2025 art. 30); legal obligations are not moved by it.

    Raises :class:`schemas.errors.UnknownCode` for a purpose that does not exist.
    """
    require_code("purposes", purpose)
    added = await conn.scalar(
        upsert(objection)
        .values(subject=subject, purpose=purpose, since=at)
        .on_conflict_do_nothing()
        .returning(objection.c.subject)
    )
    return _objected("consent.objection", subject, purpose, added is not None, at)


async def withdraw_objection(conn: AsyncConnection, subject: UUID, purpose: str, *, at: datetime) -> dict[str, Any]:
    """Take back an objection; ``changed`` is false where there was none. Raises UnknownCode as :func:`object_to`."""
    require_code("purposes", purpose)
    mine = (objection.c.subject == subject) & (objection.c.purpose == purpose)
    done = await conn.execute(delete(objection).where(mine))
    return _objected("consent.objection_withdrawn", subject, purpose, done.rowcount > 0, at)


def _objected(event: str, subject: UUID, purpose: str, changed: bool, at: datetime) -> dict[str, Any]:
    return {"event": event, "subject": str(subject), "purpose": purpose, "changed": changed, "at": instant(at)}


async def objections_of(conn: AsyncConnection, subject: UUID) -> list[tuple[str, datetime]]:
    """Return the purposes a person objects to, and since when."""
    table = objection
    query = select(table.c.purpose, table.c.since).where(table.c.subject == subject).order_by(table.c.purpose)
    return [(row.purpose, row.since) for row in await conn.execute(query)]


async def set_flag(
    conn: AsyncConnection,
    subject: UUID,
    kind: str,
    *,
    at: datetime,
    target: str = "",
    reference: str | None = None,
    by: str = "",
) -> dict[str, Any]:
    """Protect a person; ``changed`` is false where the flag stood. Nobody overrides it, an emergency neither.

    ``by`` is the institution that sets it, the only one that lifts it; empty for whoever runs the gateway.
    ``sealed`` closes the whole case, ``court-order`` closes it on the act in ``reference``, ``export-ban`` keeps it
    with who holds it, ``aggressor`` bars ``target``: an institution's code or a person's id as text. Raises
    :class:`InvalidRecord` for an unknown kind, a target where none belongs or none where one does, or no reference.
    """
    _check_flag(kind, target)
    if kind == AGGRESSOR and target == str(subject):
        raise InvalidRecord("target", "oneself")
    if kind == COURT_ORDER and not reference:
        raise InvalidRecord("reference", "missing")
    added = await conn.scalar(
        upsert(protective_flag)
        .values(subject=subject, kind=kind, target=target, set_by=by, reference=reference, since=at)
        .on_conflict_do_nothing()
        .returning(protective_flag.c.subject)
    )
    return _flagged("protection.set", subject, kind, target, reference, added is not None, at)


async def lift_flag(
    conn: AsyncConnection,
    subject: UUID,
    kind: str,
    *,
    at: datetime,
    target: str = "",
    reference: str | None = None,
    by: str | None = None,
) -> dict[str, Any]:
    """Lift what the institution ``by`` set (``None``: everybody's), a court's order only on another act.

    ``changed`` is false where nothing of theirs was.
    """
    _check_flag(kind, target)
    if kind == COURT_ORDER and not reference:
        raise InvalidRecord("reference", "missing")
    table = protective_flag
    mine = (table.c.subject == subject) & (table.c.kind == kind) & (table.c.target == target)
    done = await conn.execute(delete(table).where(mine if by is None else mine & (table.c.set_by == by)))
    return _flagged("protection.lifted", subject, kind, target, reference, done.rowcount > 0, at)


def _check_flag(kind: str, target: str) -> None:
    if kind not in FLAGS:
        raise InvalidRecord("kind", "unknown-code", FLAGS)
    if (kind == AGGRESSOR) is not bool(target):
        raise InvalidRecord("target", "missing" if kind == AGGRESSOR else "not-for-this-kind")


def _flagged(
    event: str, subject: UUID, kind: str, target: str, reference: str | None, changed: bool, at: datetime
) -> dict[str, Any]:
    # The row is deleted when the flag is lifted, so the log alone keeps who was barred and by which act.
    return {
        "event": event,
        "subject": str(subject),
        "kind": kind,
        "target": target or None,
        "reference": reference,
        "changed": changed,
        "at": instant(at),
    }


async def flags_of(conn: AsyncConnection, subject: UUID, by: str | None = None) -> list[Flag]:
    """Return what protects a person, in the order of kinds: all of it, or what one institution set."""
    table = protective_flag
    query = select(table.c.kind, table.c.target, table.c.reference, table.c.since).where(table.c.subject == subject)
    if by is not None:
        query = query.where(table.c.set_by == by)
    return [Flag(*row) for row in await conn.execute(query.order_by(table.c.kind, table.c.target))]


async def is_sealed(conn: AsyncConnection, subject: UUID) -> bool:
    """Say whether a person's case is closed to everybody: sealed, or by a court's order."""
    table = protective_flag
    closed = (table.c.subject == subject) & table.c.kind.in_((SEALED, COURT_ORDER))
    return bool(await conn.scalar(select(exists().where(closed))))


async def is_barred(conn: AsyncConnection, subject: UUID, name: str) -> bool:
    """Say whether a person is protected from somebody: an institution's code or a person's id as text."""
    table = protective_flag
    barred = (table.c.subject == subject) & (table.c.kind == AGGRESSOR) & (table.c.target == name)
    return bool(await conn.scalar(select(exists().where(barred))))
