"""Tables of referrals; an event is never changed, the referral's row is the sum of its events."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Date,
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
)
from sqlalchemy.dialects.postgresql import JSONB

from gateway.database import metadata

referral = Table(
    "referral",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("person_id", Uuid, ForeignKey("siis.person.id"), nullable=False, index=True),
    Column("service", Text, ForeignKey("siis.service.code"), nullable=False),
    Column("requester", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("basis", Text, nullable=False),
    Column("agreement", Text),
    Column("caller", JSONB, nullable=False, comment="role, assurance and channel the request was decided with"),
    Column("reason_code", Text, nullable=False),
    Column("texts", LargeBinary),
    Column("priority", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("delivery", Text, nullable=False, comment="pending, transmitted, withheld, rejected, dead"),
    Column("delivery_reason", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("recipient_reference", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("due_on", Date),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("foreign_system", Text),
    Column("foreign_value", Text),
    Index("referral_foreign", "requester", "foreign_system", "foreign_value", unique=True),
    Index("referral_recipient", "recipient", "delivery"),
)

referral_event = Table(
    "referral_event",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("referral_id", Uuid, ForeignKey(referral.c.id), nullable=False),
    Column("number", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("occurred_on", Date),
    Column("state_before", Text, nullable=False),
    Column("state_after", Text, nullable=False),
    Column("synthesised", Boolean, nullable=False, server_default="false"),
    Column("message_id", Text),
    Column("facts", JSONB, nullable=False, server_default="{}", comment="codes only, nothing personal"),
    Column("texts", LargeBinary),
    Column("entry_id", Uuid, comment="the entry of the audit log that tells of this event"),
    UniqueConstraint("referral_id", "number"),
    Index("referral_event_message", "referral_id", "actor", "message_id", unique=True),
)
