"""Whoever may do anything to the database, and alters one value or removes one row of the log, is found out.

Each case changes one thing as a superuser, checks, and puts the rows back. The log under attack has numbered entries
of three writers, several checkpoints, and entries that wait.
"""

# ruff: noqa: S608 — the SQL of attacks is put together from constants of these tests

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest
import pytest_asyncio
from audit_examples import check, fill, run_sql
from sqlalchemy import text

from audit.models import Report
from tests.integration.audit_database import AuditDatabase, fresh_audit_database

# One log serves all cases, each of which puts back what it changed.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PLACES = ("first", "middle", "last")
# For each table: its order, and for each column an SQL expression with another value, as small a change as there is.
FLIP = "set_byte({0}, length({0}) / 2, get_byte({0}, length({0}) / 2) # 1)"
ALTERED = {
    "entry": {
        "id": "gen_random_uuid()",
        "envelope": FLIP.format("envelope"),
        "leaf_hash": FLIP.format("leaf_hash"),
        "detail": FLIP.format("detail"),
        "type": "overlay(type placing 'x' from 1)",
        "outcome": "'deny'",
        "at": "at + interval '1 microsecond'",
        "pseudonym": "gen_random_uuid()",
        "writer_slot": "mod(writer_slot + 1, 16)",
        "writer_counter": "writer_counter + 1000",
    },
    "sequence": {
        "index": "index + 1000",
        "entry_id": "gen_random_uuid()",
        "leaf_hash": FLIP.format("leaf_hash"),
    },
    "pending": {"entry_id": "gen_random_uuid()"},
    "checkpoint": {
        "size": "size + 1000",
        "number": "number + 1000",
        "note": "overlay(note placing chr(ascii(substr(note, length(note) / 2, 1)) # 1) from length(note) / 2)",
        "root": FLIP.format("root"),
        "frontier": FLIP.format("frontier"),
        "at": "at + interval '1 microsecond'",
    },
    "writer": {"slot": "slot + 1000", "counter": "counter + 1", "last_leaf": FLIP.format("last_leaf")},
    "tree": {"size": "size + 1", "frontier": FLIP.format("frontier"), "checkpoints": "checkpoints + 1"},
}
ORDER = {
    "entry": "writer_counter",
    "sequence": "index",
    "pending": "entry_id",
    "checkpoint": "size",
    "writer": "slot",
    "tree": "size",
}
MORE = [
    ("entry", "at", "'infinity'"),
    ("entry", "at", "at + interval '1 hour'"),
    ("entry", "at", "make_timestamptz(-2026, 10, 13, 14, 0, 0, 'UTC')"),
    ("entry", "pseudonym", "NULL"),
    ("entry", "envelope", "''"),
    ("entry", "envelope", "envelope || ' '"),
    ("entry", "detail", "''"),
    ("entry", "writer_slot", "99"),
    ("entry", "writer_counter", "0"),
    ("sequence", "index", "-index - 1"),
    ("sequence", "index", "9223372036854775807"),
    ("sequence", "leaf_hash", "''"),
    ("checkpoint", "at", "'-infinity'"),
    ("checkpoint", "size", "-size"),
    ("checkpoint", "note", "''"),
    ("checkpoint", "note", "note || ' '"),
    ("checkpoint", "note", "note || E'— x AAAA\\n'"),
    ("checkpoint", "frontier", "''"),
    ("writer", "counter", "counter - 1"),
    ("writer", "last_leaf", "''"),
    ("tree", "size", "size - 1"),
    ("tree", "size", "-1"),
    ("tree", "frontier", "''"),
    ("tree", "checkpoints", "0"),
]


@dataclass(frozen=True)
class Target:
    """The row a case is about: where it is, and which entry it speaks of (none for state rows)."""

    ctid: str
    entry_id: UUID | None
    index: int | None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def db() -> AsyncIterator[AuditDatabase]:
    async with fresh_audit_database() as database:
        await fill(database)
        yield database


async def target(db: AuditDatabase, table: str, place: str) -> Target:
    """Choose a row of a table by its place in the table's order."""
    entry = {"entry": "t.id", "sequence": "t.entry_id", "pending": "t.entry_id"}.get(table, "NULL::uuid")
    query = f"""
        SELECT t.ctid::text, {entry}, s.index, row_number() OVER (ORDER BY t.{ORDER[table]})
        FROM audit.{table} AS t LEFT JOIN audit.sequence AS s ON s.entry_id = {entry}
        {"WHERE counter > 0" if table == "writer" else ""} ORDER BY 4
    """
    async with db.admin.connect() as conn:
        rows = (await conn.execute(text(query))).all()
    row = rows[{"first": 0, "middle": len(rows) // 2, "last": len(rows) - 1}[place]]
    return Target(row[0], row[1], row[2])


async def attack(db: AuditDatabase, table: str, statement: str) -> Report:
    """Run one statement, check, and put the table's rows back."""
    keep = f"CREATE TABLE public.kept AS TABLE audit.{table}"
    await run_sql(db.admin, keep, statement)
    try:
        return await check(db.admin)
    finally:
        await run_sql(
            db.admin,
            f"TRUNCATE audit.{table}",
            f"INSERT INTO audit.{table} TABLE public.kept",
            "DROP TABLE public.kept",
        )


def assert_names(report: Report, wanted: Target) -> None:
    """The report must not be ok, and its first problem must name the entry, with its number if it has one."""
    assert not report.ok
    first = report.problems[0]
    if wanted.entry_id is not None:
        assert (first.index, first.entry_id) == (wanted.index, wanted.entry_id), report.problems
    assert first.what


CASES = [(table, column, value) for table, columns in ALTERED.items() for column, value in columns.items()]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("table", "column", "value"), [*CASES, *MORE])
async def test_one_altered_value_anywhere_is_found_and_its_entry_named(
    db: AuditDatabase, table: str, column: str, value: str, place: str
) -> None:
    wanted = await target(db, table, place)
    report = await attack(db, table, f"UPDATE audit.{table} SET {column} = {value} WHERE ctid = '{wanted.ctid}'")
    print([(p.kind, p.index, p.what) for p in report.problems])
    assert_names(report, wanted)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("table", ALTERED)
async def test_one_removed_row_anywhere_is_found_and_its_entry_named(db: AuditDatabase, table: str, place: str) -> None:
    wanted = await target(db, table, place)
    report = await attack(db, table, f"DELETE FROM audit.{table} WHERE ctid = '{wanted.ctid}'")
    print([(p.kind, p.index, p.what) for p in report.problems])
    assert_names(report, wanted)
    assert report.problems[0].kind == "missing"
