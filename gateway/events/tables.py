"""What happened, one row each, written with it; ids and codes only, so nothing here is about a person by itself."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Identity, Index, Integer, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from gateway.database import metadata

event = Table(
    "event",
    metadata,
    Column("id", Uuid, primary_key=True, comment="the same in every repetition: whoever is told twice knows it"),
    Column("number", BigInteger, Identity(always=True), nullable=False, comment="order within one referral"),
    Column("type", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("institutions", ARRAY(Text), nullable=False, comment="who had a part in it when it happened"),
    Column("referral_id", Uuid),
    Column("sequence", Integer, comment="number of the referral's own event"),
    Column("service", Text),
    Column("department", Text),
    Column("district", Text),
    Column("facts", JSONB, nullable=False, server_default="{}", comment="codes only, nothing personal"),
    Column("pending", Boolean, nullable=False, server_default="true", comment="no subscription has been given it yet"),
    # What waits is taken from here, never "what is newer than the last": a number may be committed after a higher one.
    # Rows lie in the order of their time, so blocks of them are all that an index needs to know.
    Index("event_at", "at", postgresql_using="brin"),
    Index("event_pending", "number", postgresql_where=text("pending")),
)
