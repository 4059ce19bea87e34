"""the history of persons found to be one, and found not to be."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "person_merge",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("survivor", sa.Uuid(), nullable=False),
        sa.Column("absorbed", sa.Uuid(), nullable=False),
        sa.Column("undoes", sa.Uuid(), nullable=True, comment="the merge that this row ends"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.Text(), nullable=False, comment="institution and official"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("confirmed", sa.Boolean(), nullable=False, comment="that what is known of the two disagrees"),
        sa.Column(
            "original",
            postgresql.JSONB(),
            nullable=True,
            comment="the survivor's own row, without anybody merged; of a merge",
        ),
        sa.Column(
            "given",
            postgresql.JSONB(),
            nullable=True,
            comment="protections that one of them had and the others were given; of a merge",
        ),
        sa.CheckConstraint("survivor <> absorbed", name="person_merge_of_two"),
        sa.CheckConstraint("(undoes IS NULL) = (original IS NOT NULL)", name="person_merge_original"),
        sa.CheckConstraint("(undoes IS NULL) = (given IS NOT NULL)", name="person_merge_given"),
        sa.ForeignKeyConstraint(["survivor"], ["siis.person.id"]),
        sa.ForeignKeyConstraint(["absorbed"], ["siis.person.id"]),
        sa.ForeignKeyConstraint(["undoes"], ["siis.person_merge.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("undoes"),
        schema="siis",
    )
    for name in ("survivor", "absorbed"):
        op.create_index(f"ix_siis_person_merge_{name}", "person_merge", [name], schema="siis")
