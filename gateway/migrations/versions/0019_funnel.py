"""kept funnels, and what finds the referrals of a period quickly."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "statistics_snapshot",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="baseline or follow_up"),
        sa.Column(
            "institution",
            sa.Text(),
            nullable=False,
            comment="whose referrals were counted; the coordinator's: everybody's",
        ),
        sa.Column("taken_by", sa.Text(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("definition", sa.SmallInteger(), nullable=False, comment="version of the definitions"),
        sa.Column("scope", postgresql.JSONB(), nullable=False),
        sa.Column(
            "funnel", postgresql.JSONB(), nullable=False, comment="counts as they are; small ones are hidden when shown"
        ),
        sa.Column(
            "achievements",
            postgresql.JSONB(),
            nullable=False,
            comment="of the ten achievements: category, identified, reached",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index("statistics_snapshot_institution", "statistics_snapshot", ["institution", "id"], schema="siis")
    op.create_index("referral_made", "referral", ["created_at"], schema="siis")
    # The groups of the funnel's count (gateway/statistics/counting.py): without this the planner sorts every referral.
    op.execute(
        "CREATE STATISTICS siis.referral_funnel (ndistinct) ON state, delivery, outcome, end_reason, requester, "
        "(caller ->> 'channel'), (num_nonnulls(coalesce(received_at, accepted_at), accepted_at)), "
        "(status_changed_at IS NOT NULL) FROM siis.referral"
    )
