"""who stands in for a person of whom those who name them may not know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stand_in",
        sa.Column("system", sa.Text(), nullable=False, comment="of the identifier by which it is found"),
        sa.Column("blind_index", sa.LargeBinary(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False, comment="whom the form meant"),
        sa.Column("form_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["siis.person.id"]),
        sa.ForeignKeyConstraint(["subject"], ["siis.person.id"]),
        sa.PrimaryKeyConstraint("system", "blind_index"),
        sa.UniqueConstraint("person_id"),
        schema="siis",
    )
    op.create_index("ix_siis_stand_in_subject", "stand_in", ["subject"], schema="siis")
