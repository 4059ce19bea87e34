"""Notices: what a role of an institution, or a person, must be told; written with it, and shown to nobody else."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.governance.tables import notice
from schemas.codes import require_code
from schemas.ids import uuid7


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNotice:
    """A notice to a role of an institution, or to a person; not shown before ``not_before`` (UTC).

    ``origin`` is the institution that did what it tells of, ``reference`` the record of it, ``kind`` a code of
    ``notices``.
    """

    kind: str
    origin: str
    reference: UUID
    entry_id: UUID
    subject: UUID | None = None
    audience_institution: str | None = None
    audience_role: str | None = None
    person: UUID | None = None
    not_before: datetime | None = None


class Notice(NamedTuple):
    """A notice as its reader sees it."""

    id: UUID
    kind: str
    origin: str
    reference: UUID
    entry_id: UUID
    subject: UUID | None
    created_at: datetime
    seen_at: datetime | None


class Reader(NamedTuple):
    """Who reads notices: a person, or else somebody acting in roles of an institution."""

    institution: str
    roles: Collection[str]
    person: UUID | None


async def write(connection: AsyncConnection, notices: Iterable[NewNotice], *, at: datetime) -> None:
    """Write notices in the transaction of what they tell of; raises UnknownCode for a kind that does not exist."""
    rows = [{**asdict(new), "id": uuid7(), "created_at": at} for new in notices]
    for row in rows:
        require_code("notices", row["kind"])
    if rows:
        await connection.execute(insert(notice), rows)


async def list_for(
    connection: AsyncConnection, reader: Reader, *, at: datetime, after: UUID | None = None, limit: int = 50
) -> list[Notice]:
    """Return what a reader may see at an instant, by id, from behind ``after``."""
    row = notice.c
    query = select(*(row[name] for name in Notice._fields)).where(_shown_to(reader, at)).order_by(row.id).limit(limit)
    if after is not None:
        query = query.where(row.id > after)
    return [Notice(*found) for found in await connection.execute(query)]


async def mark_seen(connection: AsyncConnection, reader: Reader, notice_id: UUID, *, at: datetime) -> dict[str, Any]:
    """Note that a notice was seen; the first time counts. Raises NotFound for one the reader may not see."""
    row = notice.c
    marking = update(notice).where(row.id == notice_id, _shown_to(reader, at))
    seen = marking.values(seen_at=func.coalesce(row.seen_at, at)).returning(row.kind, row.entry_id, row.seen_at)
    found = (await connection.execute(seen)).one_or_none()
    if found is None:
        raise errors.NotFound("not-found")
    return {
        "event": "notice.seen",
        "id": str(notice_id),
        "kind": found.kind,
        "entry_id": str(found.entry_id),
        "seen_at": found.seen_at.isoformat(),
    }


def _shown_to(reader: Reader, at: datetime) -> ColumnElement[bool]:
    row = notice.c
    mine = row.person == reader.person
    if reader.person is None:
        mine = (row.audience_institution == reader.institution) & row.audience_role.in_(reader.roles)
    return mine & or_(row.not_before.is_(None), row.not_before <= at)
