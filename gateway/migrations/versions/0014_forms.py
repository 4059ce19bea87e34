"""forms, and what they and others observed of persons, households and communities."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "form",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=True, comment="which the source gave it; null once erased"),
        sa.Column("observed_on", sa.Date(), nullable=False),
        sa.Column("household_id", sa.Uuid(), nullable=True),
        sa.Column("community_id", sa.Uuid(), nullable=True),
        sa.Column("texts", sa.LargeBinary(), nullable=True, comment="address and notes; null once erased"),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('full', 'simplified', 'community')", name="form_kind"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("source", "number"),
        schema="siis",
    )
    for name in ("household_id", "community_id"):
        op.create_index(f"ix_siis_form_{name}", "form", [name], schema="siis")
    op.create_table(
        "observation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=True),
        sa.Column("household_id", sa.Uuid(), nullable=True),
        sa.Column("community_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False, comment="a code, a date, an id; nothing that names anybody"),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("instrument", sa.Text(), nullable=False),
        sa.Column("observed_on", sa.Date(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("form_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint("num_nonnulls(person_id, household_id, community_id) = 1", name="observation_has_one_unit"),
        sa.ForeignKeyConstraint(["person_id"], ["siis.person.id"]),
        sa.ForeignKeyConstraint(["household_id"], ["siis.household.id"]),
        sa.ForeignKeyConstraint(["community_id"], ["siis.community.id"]),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    for name in ("person_id", "household_id", "community_id", "form_id"):
        op.create_index(f"ix_siis_observation_{name}", "observation", [name], schema="siis")
    op.add_column(
        "register_file",
        sa.Column(
            "crossed",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="number of the last row made into facts",
        ),
        schema="siis",
    )
