"""events for others, and who subscribes to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "event",
        sa.Column(
            "id",
            sa.Uuid(),
            nullable=False,
            comment="the same in every repetition: whoever is told twice knows it",
        ),
        sa.Column(
            "number",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="order within one referral",
        ),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "institutions",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="who had a part in it when it happened",
        ),
        sa.Column("referral_id", sa.Uuid(), nullable=True),
        sa.Column("sequence", sa.Integer(), nullable=True, comment="number of the referral's own event"),
        sa.Column("service", sa.Text(), nullable=True),
        sa.Column("department", sa.Text(), nullable=True),
        sa.Column("district", sa.Text(), nullable=True),
        sa.Column(
            "facts",
            postgresql.JSONB(),
            server_default="{}",
            nullable=False,
            comment="codes only, nothing personal",
        ),
        sa.Column(
            "pending",
            sa.Boolean(),
            server_default="true",
            nullable=False,
            comment="no subscription has been given it yet",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index(
        "event_pending", "event", ["number"], unique=False, schema="siis", postgresql_where=sa.text("pending")
    )
    # Rows lie in the order of their time, so blocks of them are all that an index needs to know.
    op.create_index("event_at", "event", ["at"], unique=False, schema="siis", postgresql_using="brin")
    op.create_table(
        "subscription",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False, comment="webhook, pull"),
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            comment="unverified (its address has not answered yet), active, disabled",
        ),
        sa.Column("types", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("services", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("departments", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("districts", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("parts", postgresql.ARRAY(sa.Text()), nullable=False, comment="requester, recipient"),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=True, comment="encrypted"),
        sa.Column("old_secret", sa.LargeBinary(), nullable=True, comment="encrypted; signs as well until then"),
        sa.Column("old_secret_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "position",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="of the last event it was given",
        ),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False, comment="one after the other"),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("busy_until", sa.DateTime(timezone=True), nullable=True, comment="a worker is calling its address"),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=True, comment="when it last took events"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(channel = 'webhook') = (url IS NOT NULL AND secret IS NOT NULL)", name="subscription_channel"
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index("subscription_institution", "subscription", ["institution", "id"], unique=False, schema="siis")
    op.create_table(
        "subscription_event",
        sa.Column("subscription_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("referral_id", sa.Uuid(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="handed out, or called in vain: again from then",
        ),
        sa.ForeignKeyConstraint(["event_id"], ["siis.event.id"]),
        sa.ForeignKeyConstraint(["subscription_id"], ["siis.subscription.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("subscription_id", "position"),
        sa.UniqueConstraint("subscription_id", "event_id"),
        schema="siis",
    )
    op.create_index(
        "ix_siis_subscription_event_event_id", "subscription_event", ["event_id"], unique=False, schema="siis"
    )
    op.create_index(
        "subscription_event_order",
        "subscription_event",
        ["subscription_id", "referral_id", "position"],
        unique=False,
        schema="siis",
    )
