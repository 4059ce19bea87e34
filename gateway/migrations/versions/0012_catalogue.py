"""revisions of the catalogue; what a database has already becomes their first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "catalogue_revision",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("change_id", sa.Uuid(), nullable=False, comment="what was changed at once has one"),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "institution",
            sa.Text(),
            nullable=True,
            comment="whose user changed it; null: whoever runs the machine, or a release",
        ),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=True, comment="null: withdrawn"),
        sa.PrimaryKeyConstraint("kind", "code", "number"),
        schema="siis",
    )
    op.create_index("catalogue_revision_change", "catalogue_revision", ["change_id"], schema="siis")
    # Nobody could edit these before: they are what a release shipped, and the next one brings them up to date.
    op.execute(
        "INSERT INTO siis.catalogue_revision (kind, code, number, change_id, actor, document) "
        "SELECT 'institutions', code, 1, '00000000-0000-7000-8000-000000000012'::uuid, 'release', names "
        "FROM siis.institution "
        "UNION ALL "
        "SELECT 'services', code, 1, '00000000-0000-7000-8000-000000000012'::uuid, 'release', document "
        "FROM siis.service"
    )
