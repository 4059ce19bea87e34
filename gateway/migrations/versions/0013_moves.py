"""open referrals, duplicates, capacity, and lists of referrals by party."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_UNDER_WAY = "state NOT IN ('rejected', 'cancelled', 'completed')"


def upgrade() -> None:
    op.add_column(
        "referral",
        sa.Column(
            "candidates",
            postgresql.ARRAY(sa.Text()),
            nullable=True,
            comment="of an open one: the services of which any may claim it",
        ),
        schema="siis",
    )
    # What was sent before nobody compared: none of it is held to be alone.
    op.add_column(
        "referral",
        sa.Column(
            "additional",
            sa.Boolean(),
            server_default="true",
            nullable=False,
            comment="meant beside an equal open one",
        ),
        schema="siis",
    )
    op.alter_column("referral", "additional", server_default="false", schema="siis")
    op.create_index("referral_sent", "referral", ["requester", "id"], schema="siis")
    op.create_index("referral_got", "referral", ["recipient", "id"], schema="siis")
    op.create_index(
        "referral_alone",
        "referral",
        ["person_id", "service", "requester"],
        unique=True,
        schema="siis",
        postgresql_where=sa.text(f"{_UNDER_WAY} AND NOT additional"),
    )
    op.create_index(
        "referral_held",
        "referral",
        ["service"],
        schema="siis",
        postgresql_where=sa.text(f"{_UNDER_WAY} AND state <> 'open'"),
    )
    op.create_index("referral_claimable", "referral", ["id"], schema="siis", postgresql_where=sa.text("state = 'open'"))
