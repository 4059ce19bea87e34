"""Tables of subscriptions and of what each of them still has to be told."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
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
)
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.database import metadata
from gateway.events.tables import event

subscription = Table(
    "subscription",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("institution", Text, nullable=False),
    Column("channel", Text, nullable=False, comment="webhook, pull"),
    Column("state", Text, nullable=False, comment="unverified (its address has not answered yet), active, disabled"),
    # Filters; an empty one lets everything through that the institution may learn at all.
    Column("types", ARRAY(Text), nullable=False),
    Column("services", ARRAY(Text), nullable=False),
    Column("departments", ARRAY(Text), nullable=False),
    Column("districts", ARRAY(Text), nullable=False),
    Column("parts", ARRAY(Text), nullable=False, comment="requester, recipient"),
    Column("url", Text),
    Column("secret", LargeBinary, comment="encrypted"),
    Column("old_secret", LargeBinary, comment="encrypted; signs as well until then"),
    Column("old_secret_until", DateTime(timezone=True)),
    Column("position", BigInteger, nullable=False, server_default="0", comment="of the last event it was given"),
    Column("failures", Integer, nullable=False, server_default="0", comment="one after the other"),
    Column("failing_since", DateTime(timezone=True)),
    Column("retry_at", DateTime(timezone=True)),
    Column("busy_until", DateTime(timezone=True), comment="a worker is calling its address"),
    Column("taken_at", DateTime(timezone=True), comment="when it last took events"),
    Column("created_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("(channel = 'webhook') = (url IS NOT NULL AND secret IS NOT NULL)", name="subscription_channel"),
    Index("subscription_institution", "institution", "id"),
)

# One row for each event that a subscription was given and has not taken yet.
waiting = Table(
    "subscription_event",
    metadata,
    Column("subscription_id", Uuid, ForeignKey(subscription.c.id, ondelete="CASCADE"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Uuid, ForeignKey(event.c.id), nullable=False, index=True),
    Column("referral_id", Uuid),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("due_at", DateTime(timezone=True), nullable=False, comment="handed out, or called in vain: again from then"),
    UniqueConstraint("subscription_id", "event_id"),
    Index("subscription_event_order", "subscription_id", "referral_id", "position"),
)
