"""Reads and writes boards and their seats in the caller's transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import Caller
from gateway.boards.tables import board, board_member
from schemas.ids import uuid7


class Board(NamedTuple):
    """A board in force; without a district it is the whole department's."""

    code: str
    names: dict[str, str]
    department: str
    district: str | None
    institution: str


class Seat(NamedTuple):
    """Somebody's seat on a board."""

    id: UUID
    board: str
    institution: str
    user: str
    added_by: str
    added_at: datetime


_BOARD = tuple(board.c[name] for name in Board._fields)
_IN_FORCE = board.c.ended_at.is_(None)


async def add(connection: AsyncConnection, row: dict[str, Any], at: datetime) -> bool:
    """Insert a board; False where its code is taken, also by one that ended."""
    adding = upsert(board).values(**row, since=at).on_conflict_do_nothing().returning(board.c.code)
    return await connection.scalar(adding) is not None


async def end(connection: AsyncConnection, code: str, at: datetime) -> bool:
    """End a board; False where none is in force."""
    ending = update(board).where(board.c.code == code, _IN_FORCE).values(ended_at=at)
    return await connection.scalar(ending.returning(board.c.code)) is not None


async def by_code(connection: AsyncConnection, code: str) -> Board | None:
    """Return a board in force, or None."""
    row = (await connection.execute(select(*_BOARD).where(board.c.code == code, _IN_FORCE))).one_or_none()
    return None if row is None else Board(*row)


async def all_boards(connection: AsyncConnection) -> list[Board]:
    """Return the boards in force, by code."""
    return [Board(*row) for row in await connection.execute(select(*_BOARD).where(_IN_FORCE).order_by(board.c.code))]


async def acted_for(connection: AsyncConnection, institution: str) -> list[Board]:
    """Return the boards for which an institution acts."""
    return [each for each in await all_boards(connection) if each.institution == institution]


async def of_place(connection: AsyncConnection, department: str | None, district: str | None) -> list[Board]:
    """Return the boards of a place, the district's before the department's."""
    row = board.c
    here = or_(row.district.is_(None), row.district == district)
    found = select(*_BOARD).where(_IN_FORCE, row.department == department, here)
    return [Board(*each) for each in await connection.execute(found.order_by(row.district.nulls_last(), row.code))]


async def acting_for(connection: AsyncConnection, department: str | None, district: str | None) -> frozenset[str]:
    """Return the institutions that act for the boards of a place."""
    return frozenset(each.institution for each in await of_place(connection, department, district))


async def seats(connection: AsyncConnection, caller: Caller) -> dict[str, Board]:
    """Return the boards on which a caller sits, by code; the role that goes with a seat is not looked at."""
    row = board_member.c
    mine = (row.institution == caller.institution, row.user == caller.holder_of_roles, row.ended_at.is_(None))
    found = select(*_BOARD).join(board_member, row.board == board.c.code).where(_IN_FORCE, *mine)
    return {each.code: each for each in (Board(*row) for row in await connection.execute(found))}


async def seat(
    connection: AsyncConnection, code: str, institution: str, user: str, *, by: str, at: datetime
) -> UUID | None:
    """Give somebody a seat; None where they have it."""
    row = board_member.c
    held = (row.board == code, row.institution == institution, row.user == user, row.ended_at.is_(None))
    if await connection.scalar(select(row.id).where(*held)) is not None:
        return None
    member = uuid7()
    await connection.execute(
        insert(board_member).values(id=member, board=code, institution=institution, user=user, added_by=by, added_at=at)
    )
    return member


async def unseat(connection: AsyncConnection, code: str, member: UUID, *, by: str, at: datetime) -> bool:
    """End a seat; False where none is in force."""
    row = board_member.c
    ending = update(board_member).where(row.id == member, row.board == code, row.ended_at.is_(None))
    return await connection.scalar(ending.values(ended_by=by, ended_at=at).returning(row.id)) is not None


async def seated(connection: AsyncConnection, code: str) -> list[Seat]:
    """Return who sits on a board, by when they came."""
    row = board_member.c
    held = select(*(row[name] for name in Seat._fields)).where(row.board == code, row.ended_at.is_(None))
    return [Seat(*each) for each in await connection.execute(held.order_by(row.id))]
