"""Subjects found to be one person: what protects one of them protects all; consents and mandates stay with each.

Every function works on the connection handed in and commits nothing. Who is the same as whom, somebody else knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_, delete, exists, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.people import AGGRESSOR
from consent.tables import objection, protective_flag, representation, restriction

_TABLES: Final[dict[str, Table]] = {each.name: each for each in (protective_flag, objection, restriction)}
#: A row that was given to a subject (its table, its columns as JSON has them), and ``before``: a day it put off.
Given = dict[str, Any]


async def are_parties(conn: AsyncConnection, one: Collection[UUID], other: Collection[UUID]) -> bool:
    """Say whether one acts or acted for the other, or is protected from them: then they cannot be the same person."""
    table, flag = representation.c, protective_flag.c
    related: list[ColumnElement[bool]] = []
    for mine, theirs in ((one, other), (other, one)):
        names = [str(each) for each in theirs]
        related.append(exists().where(table.subject.in_(mine), table.representative.in_(theirs)))
        related.append(exists().where(flag.kind == AGGRESSOR, flag.subject.in_(mine), flag.target.in_(names)))
    return bool(await conn.scalar(select(or_(*related))))


async def share(conn: AsyncConnection, subjects: Collection[UUID]) -> list[Given]:
    """Give each subject what protects the others, and bar each from whom another is barred; return what was added.

    Of two restrictions of the same data the one that ends later counts. Done again, it adds only what is new.
    """
    if len(subjects) < 2:
        return []
    given: list[Given] = []
    for table in _TABLES.values():
        for row in await _rows(conn, table, table.c.subject.in_(subjects)):
            for other in subjects:
                given += await _give(conn, table, {**row, "subject": other})
    names = [str(each) for each in subjects]
    flag = protective_flag
    for row in await _rows(conn, flag, (flag.c.kind == AGGRESSOR) & flag.c.target.in_(names)):
        for name in names:
            given += await _give(conn, flag, {**row, "target": name})
    return given


async def part(conn: AsyncConnection, leaving: UUID, given: Iterable[Given]) -> None:
    """Take back what was given for being the same as somebody who turns out to be another.

    ``given`` is all that was given among the subjects that were held to be the same. What was set since stays with
    each of them: nobody knows whom it was meant for.
    """
    every = list(given)
    flag = protective_flag
    own: set[tuple[Any, ...]] = set()
    for table in _TABLES.values():
        rows = await _rows(conn, table, table.c.subject == leaving)
        own |= {_key(table, _json(row)) for row in rows}
    own -= {_key(_TABLES[each["table"]], each["row"]) for each in every}
    for each in every:
        table, row = _TABLES[each["table"]], each["row"]
        theirs = row["subject"] == str(leaving)
        # As it would stand with the one who leaves; what they brought, the others lose.
        brought = _key(table, {**row, "subject": str(leaving)}) in own
        named = table is flag and row["target"] == str(leaving)
        if theirs or brought or named:
            await _take(conn, table, row, each.get("before"))
    # Whoever is protected from the one who leaves was given the protection from the others for that alone.
    barring = await _rows(conn, flag, (flag.c.kind == AGGRESSOR) & (flag.c.target == str(leaving)))
    standing = {_key(flag, _json(row)) for row in barring}
    for each in every:
        row = each["row"]
        copied = each["table"] == flag.name and row["target"] not in ("", str(leaving))
        if copied and _key(flag, {**row, "target": str(leaving)}) in standing:
            await _take(conn, flag, row, None)


async def _rows(conn: AsyncConnection, table: Table, condition: Any) -> list[dict[str, Any]]:
    found = await conn.execute(select(table).where(condition).order_by(*table.primary_key))
    return [dict(row) for row in found.mappings()]


async def _give(conn: AsyncConnection, table: Table, row: dict[str, Any]) -> list[Given]:
    added = await conn.execute(upsert(table).values(**row).on_conflict_do_nothing().returning(table.c.since))
    if added.first() is not None:
        return [{"table": table.name, "row": _json(row)}]
    if table is not restriction:
        return []
    mine = and_(*(column == row[column.name] for column in table.primary_key))
    before = await conn.scalar(select(restriction.c.until).where(mine))
    if before is None or before >= row["until"]:
        return []
    await conn.execute(update(restriction).where(mine).values(until=row["until"]))
    return [{"table": table.name, "row": _json(row), "before": before.isoformat()}]


async def _take(conn: AsyncConnection, table: Table, row: dict[str, Any], before: str | None) -> None:
    mine = and_(*(column == _value(column.name, row[column.name]) for column in table.primary_key))
    if before is None:
        await conn.execute(delete(table).where(mine, table.c.since == datetime.fromisoformat(row["since"])))
        return
    until = date.fromisoformat(row["until"])
    put_back = update(restriction).where(mine, restriction.c.until == until)
    await conn.execute(put_back.values(until=date.fromisoformat(before)))


def _key(table: Table, row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what makes two rows the same one: their key and when it was set (JSON has both as text)."""
    return (table.name, *(row[column.name] for column in table.primary_key), row["since"])


def _value(name: str, text: str) -> Any:
    return UUID(text) if name == "subject" else text


def _json(row: dict[str, Any]) -> dict[str, Any]:
    found = dict(row)
    for name, value in row.items():
        if isinstance(value, datetime):
            found[name] = value.astimezone(UTC).isoformat()
        elif isinstance(value, date | UUID):
            found[name] = str(value)
    return found
