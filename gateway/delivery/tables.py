"""Table of the lanes: one row for each institution that messages go to, shared by all workers."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Float, Integer, Table, Text

from gateway.database import metadata

lane = Table(
    "delivery_lane",
    metadata,
    Column("institution", Text, primary_key=True),
    Column("paused", Boolean, nullable=False, server_default="false"),
    Column("paused_at", DateTime(timezone=True)),
    Column("paused_by", Text, comment="institution of who paused it"),
    Column("failures", Integer, nullable=False, server_default="0", comment="in a row, without an answer"),
    Column("closings", Integer, nullable=False, server_default="0", comment="times closed since its last answer"),
    Column("closed_until", DateTime(timezone=True), comment="nothing is sent before; then one message to try"),
    Column("reopened_at", DateTime(timezone=True), comment="its rate grows from here, so that nobody is flooded"),
    Column("stock", Float, comment="messages it may get at once under its rate"),
    Column("stocked_at", DateTime(timezone=True)),
    Column("taken_at", DateTime(timezone=True), comment="when a worker last took messages for it"),
    Column("transmitted", BigInteger, nullable=False, server_default="0"),
    Column("retried", BigInteger, nullable=False, server_default="0"),
)
