"""communities, and what a referral's row sums up of its events."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_MOMENTS = (
    "received_at",
    "accepted_at",
    "closed_at",
    "status_changed_at",
    "reminded_at",
    "overdue_at",
    "escalated_at",
)


def upgrade() -> None:
    op.create_table(
        "community",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("department", sa.Text(), nullable=False),
        sa.Column("district", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="of the barrio or locality; names no person"),
        sa.Column("attributes", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("department", "district", "name"),
        schema="siis",
    )
    op.add_column("household", sa.Column("community_id", sa.Uuid(), nullable=True), schema="siis")
    op.create_foreign_key(
        None, "household", "community", ["community_id"], ["id"], source_schema="siis", referent_schema="siis"
    )
    op.create_index("ix_siis_household_community_id", "household", ["community_id"], schema="siis")
    op.add_column(
        "person",
        sa.Column(
            "merged_into",
            sa.Uuid(),
            nullable=True,
            comment="the person this one was found to be; null for who stands for themselves",
        ),
        schema="siis",
    )
    op.add_column("fact", sa.Column("community_id", sa.Uuid(), nullable=True), schema="siis")
    op.create_foreign_key(
        None, "fact", "community", ["community_id"], ["id"], source_schema="siis", referent_schema="siis"
    )
    op.add_column("fact", sa.Column("form_id", sa.Uuid(), nullable=True), schema="siis")
    op.drop_constraint("fact_has_one_unit", "fact", schema="siis")
    op.create_check_constraint(
        "fact_has_one_unit", "fact", "num_nonnulls(person_id, household_id, community_id) = 1", schema="siis"
    )
    op.create_index("fact_community", "fact", ["community_id", "service"], schema="siis")
    _referrals()


def _referrals() -> None:
    added: list[sa.Column[Any]] = [
        sa.Column("parent_id", sa.Uuid(), comment="the referral of which this one is a part"),
        sa.Column("case_id", sa.Uuid(), comment="the case (Canal Verde) that holds it"),
        sa.Column("department", sa.Text(), comment="where the person lived when it was made, as the two that follow"),
        sa.Column("district", sa.Text()),
        sa.Column("category", sa.Text(), comment="life-cycle category"),
        sa.Column(
            "population",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="codes of the list populations",
        ),
        sa.Column("gap_since", sa.Date(), comment="since when the service was known to be missing"),
        sa.Column("outcome", sa.Text()),
        sa.Column("end_reason", sa.Text(), comment="of a rejection, or why nothing was provided"),
        sa.Column("no_shows", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reopened", sa.Integer(), server_default="0", nullable=False),
    ]
    changed = "when the result changed the protection status"
    for name in _MOMENTS:
        comment = changed if name == "status_changed_at" else None
        added.append(sa.Column(name, sa.DateTime(timezone=True), comment=comment))
    for column in added:
        op.add_column("referral", column, schema="siis")
    op.create_index("ix_siis_referral_parent_id", "referral", ["parent_id"], schema="siis")
    op.create_index("ix_siis_referral_case_id", "referral", ["case_id"], schema="siis")
    op.create_index("referral_place", "referral", ["department", "district"], schema="siis")
