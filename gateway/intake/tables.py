"""Tables of intake."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Integer, Table, Text, Uuid, func

from gateway.database import metadata

poll_cursor = Table(
    "poll_cursor",
    metadata,
    Column("adapter", Text, primary_key=True),
    Column("cursor", Text, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

intake_reject = Table(
    "intake_reject",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("adapter", Text, nullable=False),
    Column("cursor", Text, nullable=False, comment="the page it came with"),
    Column("row", Integer, nullable=False),
    Column("column", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

population = Table(
    "population",
    metadata,
    Column("seed", Integer, primary_key=True),
    Column("persons", Integer, nullable=False),
    Column("loaded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
