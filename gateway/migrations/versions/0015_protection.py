"""protection status as it stands and as it stood, and the counts of the ten achievements."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "person_merged",
        "person",
        ["merged_into"],
        schema="siis",
        postgresql_where=sa.text("merged_into IS NOT NULL"),
    )
    op.create_table("status", *_status(), sa.PrimaryKeyConstraint("unit"), schema="siis")
    op.create_index("status_due", "status", ["due_on"], schema="siis")
    op.create_index("status_place", "status", ["department", "district"], schema="siis")
    op.create_table("status_past", *_status(), sa.PrimaryKeyConstraint("unit", "number"), schema="siis")
    op.create_table(
        "status_run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("catalogue", sa.Text(), nullable=False, comment="digest of the services it was computed with"),
        sa.Column("changed", sa.Integer(), nullable=False, comment="units whose status is another one than before"),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index("ix_siis_status_run_day", "status_run", ["day"], schema="siis")
    op.create_table(
        "achievement",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("department", sa.Text()),
        sa.Column("district", sa.Text()),
        sa.Column("community_id", sa.Uuid()),
        sa.Column("population", sa.Text(), comment="code of the list populations; null: everybody"),
        sa.Column("identified", sa.Integer(), nullable=False, comment="units in the category"),
        sa.Column("applicable", sa.Integer(), nullable=False, comment="those to whom a core service applies"),
        sa.Column(
            "concurrent", sa.Integer(), nullable=False, comment="those whom every core service that applies reaches"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["siis.status_run.id"]),
        schema="siis",
    )
    op.create_index("ix_siis_achievement_run_id", "achievement", ["run_id"], schema="siis")


def _status() -> list[sa.Column[Any]]:
    texts = postgresql.ARRAY(sa.Text())
    return [
        sa.Column("unit", sa.Uuid(), nullable=False, comment="person, household or community"),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column(
            "number",
            sa.Integer(),
            nullable=False,
            autoincrement=False,
            comment="of this unit's computations that changed anything, from 1",
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, comment="when it was computed"),
        sa.Column("day", sa.Date(), nullable=False, comment="the day in Paraguay it was computed for"),
        sa.Column("department", sa.Text()),
        sa.Column("district", sa.Text()),
        sa.Column("community_id", sa.Uuid()),
        sa.Column("populations", texts, nullable=False, comment="codes of the list populations"),
        sa.Column("categories", texts, nullable=False, comment="of the life cycle, that the unit is in"),
        sa.Column("applicable", texts, nullable=False, comment="those in which a core service applies"),
        sa.Column("concurrent", texts, nullable=False, comment="those of them in which every one is reached"),
        sa.Column(
            "services", postgresql.JSONB(), nullable=False, comment="by service: status, category, core, fact and rule"
        ),
        sa.Column("due_on", sa.Date(), comment="when time alone may change it"),
        sa.Column("digest", sa.Uuid(), nullable=False, comment="of what was found, to see whether anything changed"),
        sa.Column("because", sa.Text(), nullable=False),
    ]
