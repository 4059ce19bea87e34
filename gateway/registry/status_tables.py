"""Tables of protection status: how it stands, how it stood before, each computation of everybody and its counts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Date, DateTime, ForeignKey, Index, Integer, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from gateway.database import metadata


def _columns(*key: str) -> list[Column[Any]]:
    columns: list[Column[Any]] = [
        Column("unit", Uuid, nullable=False, comment="person, household or community"),
        Column("kind", Text, nullable=False),
        Column("number", Integer, nullable=False, comment="of this unit's computations that changed anything, from 1"),
        Column("at", DateTime(timezone=True), nullable=False, comment="when it was computed"),
        Column("day", Date, nullable=False, comment="the day in Paraguay it was computed for"),
        Column("department", Text),
        Column("district", Text),
        Column("community_id", Uuid),
        Column("populations", ARRAY(Text), nullable=False, comment="codes of the list populations"),
        Column("categories", ARRAY(Text), nullable=False, comment="of the life cycle, that the unit is in"),
        Column("applicable", ARRAY(Text), nullable=False, comment="those in which a core service applies"),
        Column("concurrent", ARRAY(Text), nullable=False, comment="those of them in which every one is reached"),
        Column("services", JSONB, nullable=False, comment="by service: status, category, core, fact and rule"),
        Column("due_on", Date, comment="when time alone may change it"),
        Column("digest", Uuid, nullable=False, comment="of what was found, to see whether anything changed"),
        Column("because", Text, nullable=False),
    ]
    for column in columns:
        column.primary_key = column.name in key
    return columns


status = Table(
    "status",
    metadata,
    *_columns("unit"),
    Index("status_due", "due_on"),
    Index("status_place", "department", "district"),
)

# The statement that replaces a row of ``status`` copies it here; the application adds rows here and changes none.
status_past = Table("status_past", metadata, *_columns("unit", "number"))

status_run = Table(
    "status_run",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("day", Date, nullable=False, index=True),
    Column("catalogue", Text, nullable=False, comment="digest of the services it was computed with"),
    Column("changed", Integer, nullable=False, comment="units whose status is another one than before"),
)

achievement = Table(
    "achievement",
    metadata,
    Column("run_id", Uuid, ForeignKey(status_run.c.id), nullable=False, index=True),
    Column("category", Text, nullable=False),
    Column("department", Text),
    Column("district", Text),
    Column("community_id", Uuid),
    Column("population", Text, comment="code of the list populations; null: everybody"),
    Column("identified", Integer, nullable=False, comment="units in the category"),
    Column("applicable", Integer, nullable=False, comment="those to whom a core service applies"),
    Column("concurrent", Integer, nullable=False, comment="those whom every core service that applies reaches"),
)
