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
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from gateway.database import metadata

_CLOSED = "('rejected', 'cancelled', 'completed')"
# Referrals under way, and among them those that fill a service: an open one is nobody's yet.
UNDER_WAY = f"state NOT IN {_CLOSED}"
HELD = f"{UNDER_WAY} AND state <> 'open'"
ALONE = f"{UNDER_WAY} AND NOT additional"

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
    Column("parent_id", Uuid, index=True, comment="the referral of which this one is a part"),
    Column("case_id", Uuid, index=True, comment="the case (Canal Verde) that holds it"),
    Column("department", Text, comment="where the person lived when it was made, as the two that follow"),
    Column("district", Text),
    Column("category", Text, comment="life-cycle category"),
    Column("population", ARRAY(Text), nullable=False, server_default="{}", comment="codes of the list populations"),
    Column("gap_since", Date, comment="since when the service was known to be missing"),
    # The milestones of its events, for reports and statistics: the row is the sum of them.
    Column("received_at", DateTime(timezone=True)),
    Column("accepted_at", DateTime(timezone=True)),
    Column("closed_at", DateTime(timezone=True)),
    Column("outcome", Text),
    Column("end_reason", Text, comment="of a rejection, or why nothing was provided"),
    Column("no_shows", Integer, nullable=False, server_default="0"),
    Column("reopened", Integer, nullable=False, server_default="0"),
    Column("status_changed_at", DateTime(timezone=True), comment="when the result changed the protection status"),
    Column("reminded_at", DateTime(timezone=True)),
    Column("overdue_at", DateTime(timezone=True)),
    Column("escalated_at", DateTime(timezone=True)),
    Column("candidates", ARRAY(Text), comment="of an open one: the services of which any may claim it"),
    Column("additional", Boolean, nullable=False, server_default="false", comment="meant beside an equal open one"),
    Index("referral_foreign", "requester", "foreign_system", "foreign_value", unique=True),
    Index("referral_recipient", "recipient", "delivery"),
    Index("referral_place", "department", "district"),
    Index("referral_made", "created_at"),
    Index("referral_due", "due_on", postgresql_where=text("closed_at IS NULL")),
    Index("referral_sent", "requester", "id"),
    Index("referral_got", "recipient", "id"),
    # One referral at a time of one requester for one person and service: two at once cannot both pass.
    Index("referral_alone", "person_id", "service", "requester", unique=True, postgresql_where=text(ALONE)),
    Index("referral_held", "service", postgresql_where=text(HELD)),
    Index("referral_claimable", "id", postgresql_where=text("state = 'open'")),
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
