"""Table of what each process last saw of a producer; commands and other processes read it."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, Table, Text, func

from gateway.database import metadata

producer_health = Table(
    "producer_health",
    metadata,
    Column("adapter", Text, primary_key=True),
    Column("process", Text, primary_key=True, comment="who saw it: serve or worker, and where"),
    Column("ok", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", DateTime(timezone=True), nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
