"""Reads and writes requests of persons and the institutions' parts of them, in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.registry import service as registry
from gateway.rights import terms
from gateway.rights.models import OPEN, Identifier, Part, RightsRequest
from gateway.rights.tables import rights_part, rights_request
from gateway.vault import Vault

TEXT, IDENTITY, ANSWER = "rights_request.text", "rights_request.identity", "rights_part.answer"
_BARE = ("institution", "state", "outcome", "norm", "until", "effective_on")
_PLAIN = ("id", "right", "dataset", "purpose", "received_by", "received_at", "due_on")


async def request(connection: AsyncConnection, request_id: UUID, *, lock: bool = False) -> Row[Any]:
    """Return the row of a request; with ``lock`` nobody else changes it or its parts meanwhile. Raises NotFound."""
    query = select(rights_request).where(rights_request.c.id == request_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise errors.NotFound("not-found")
    return row


async def part_of(connection: AsyncConnection, request_id: UUID, institution: str) -> Row[Any]:
    """Return an institution's part of a request; raises NotFound when it has none."""
    found = await parts(connection, [request_id], institution)
    if not found:
        raise errors.NotFound("not-found")
    return found[0]


async def parts(connection: AsyncConnection, ids: Collection[UUID], institution: str | None) -> Sequence[Row[Any]]:
    """Return the parts of requests, of one institution if one is given."""
    query = select(rights_part).where(rights_part.c.request_id.in_(ids)).order_by(rights_part.c.institution)
    if institution is not None:
        query = query.where(rights_part.c.institution == institution)
    return (await connection.execute(query)).all()


async def add_parts(
    connection: AsyncConnection, request_id: UUID, institutions: Collection[str], state: str, at: datetime
) -> None:
    """Give institutions a part of a request; one that has a part already keeps it as it is."""
    rows = [{"request_id": request_id, "institution": code, "state": state, "state_at": at} for code in institutions]
    if rows:
        await connection.execute(insert(rights_part).on_conflict_do_nothing(), rows)


async def change_part(connection: AsyncConnection, request_id: UUID, institution: str, **values: Any) -> None:
    """Set columns of an institution's part."""
    mine = and_(rights_part.c.request_id == request_id, rights_part.c.institution == institution)
    await connection.execute(update(rights_part).where(mine).values(**values))


async def search(
    connection: AsyncConnection,
    *,
    person: UUID | None,
    institution: str | None,
    late_on: date | None,
    after: UUID | None,
    limit: int,
) -> Sequence[Row[Any]]:
    """Return the rows of requests by id: a person's, those with a part of an institution, or all.

    With ``late_on`` only those of which such a part is open on that day although their term has run out.
    """
    query = select(rights_request).order_by(rights_request.c.id).limit(limit)
    if person is not None:
        query = query.where(rights_request.c.person_id == person)
    part = [rights_part.c.request_id == rights_request.c.id]
    if institution is not None:
        part.append(rights_part.c.institution == institution)
    if late_on is not None:
        part.append(rights_part.c.state.in_(OPEN))
        query = query.where(rights_request.c.due_on < late_on)
    if after is not None:
        query = query.where(rights_request.c.id > after)
    return (await connection.execute(query.where(exists().where(and_(*part))))).all()


async def late_parts(connection: AsyncConnection, day: date) -> dict[str, int]:
    """Count per institution the parts that are open on a day although their term has run out."""
    query = (
        select(rights_part.c.institution, func.count())
        .join(rights_request, rights_request.c.id == rights_part.c.request_id)
        .where(rights_part.c.state.in_(OPEN), rights_request.c.due_on < day)
        .group_by(rights_part.c.institution)
    )
    return {institution: count for institution, count in await connection.execute(query)}  # noqa: C416


def bare_part(row: Row[Any]) -> Part:
    """Return a part without what was written in it."""
    return Part(**{name: row._mapping[name] for name in _BARE}, sha256=None if row.sha256 is None else row.sha256.hex())


def full_part(vault: Vault, row: Row[Any]) -> Part:
    """Return a part with the text of its answer and the reference of what was delivered."""
    written = (
        {} if row.answer is None else json.loads(vault.open(f"{ANSWER}/{row.institution}", row.request_id, row.answer))
    )
    sha256 = None if row.sha256 is None else row.sha256.hex()
    return Part(**{name: row._mapping[name] for name in _BARE}, sha256=sha256, **written)


def seal_answer(vault: Vault, request_id: UUID, institution: str, text: str | None, reference: str | None) -> bytes:
    """Encrypt what an institution wrote in its answer."""
    written = json.dumps({"text": text, "reference": reference}, ensure_ascii=False)
    return vault.seal(f"{ANSWER}/{institution}", request_id, written)


def seal_identity(vault: Vault, request_id: UUID, subject: Identifier, representative: Identifier | None) -> bytes:
    """Encrypt as whom people presented themselves."""
    presented = json.dumps({"subject": subject, "representative": representative}, ensure_ascii=False)
    return vault.seal(IDENTITY, request_id, presented)


def presented(vault: Vault, row: Row[Any]) -> tuple[Identifier, Identifier | None]:
    """Return as whom the person, and who acts for them, presented themselves; the person must still be unknown."""
    found = json.loads(vault.open(IDENTITY, row.id, row.identity))
    representative = found["representative"]
    return tuple(found["subject"]), None if representative is None else tuple(representative)


async def known_as(
    connection: AsyncConnection, vault: Vault, row: Row[Any]
) -> tuple[tuple[Identifier, ...], str | None, Identifier | None]:
    """Return under which identifiers and names the person of a request is known, and who acts for them."""
    if row.person_id is None:
        subject, other = presented(vault, row)
        return (subject,), None, other
    details = await registry.person_details(connection, vault, row.person_id)
    identifiers = () if details is None else details.identifiers
    names = None if details is None else f"{details.given_names} {details.surnames}"
    if row.representative_id is None:
        return identifiers, names, None
    acting = await registry.person_details(connection, vault, row.representative_id)
    known = () if acting is None else acting.identifiers
    return identifiers, names, known[0] if known else ("siis", str(row.representative_id))


def view(row: Row[Any], parts: Sequence[Part], at: datetime, **private: Any) -> RightsRequest:
    """Put a request together; it is overdue while one of these parts is open after its last day."""
    waits = any(part.state in OPEN for part in parts)
    return RightsRequest(
        **{name: row._mapping[name] for name in _PLAIN},
        person=row.person_id,
        overdue=waits and terms.is_over(row.due_on, at),
        parts=tuple(parts),
        **private,
    )
