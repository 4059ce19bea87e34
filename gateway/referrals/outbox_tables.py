"""Table of what a recipient is told of a referral after the referral itself, which its own row stands for."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)

from gateway.database import metadata
from gateway.referrals.tables import referral

message = Table(
    "message",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("referral_id", Uuid, ForeignKey(referral.c.id), nullable=False),
    Column("number", Integer, nullable=False, comment="place among the referral's messages; the referral itself is 0"),
    Column("kind", Text, nullable=False, comment="cancel, reopen, note"),
    Column("recipient", Text, nullable=False),
    Column("event_number", Integer, nullable=False, comment="the event of the referral it tells of"),
    Column("texts", LargeBinary),
    Column("delivery", Text, nullable=False, comment="as of a referral, or needless: confirmed by the gateway"),
    Column("delivery_reason", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("concluded_at", DateTime(timezone=True)),
    UniqueConstraint("referral_id", "number"),
    Index("message_waiting", "recipient", "delivery", postgresql_where=text("delivery <> 'transmitted'")),
)
