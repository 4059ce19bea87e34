"""what each process last saw of a producer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "producer_health",
        sa.Column("adapter", sa.Text(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False, comment="who saw it: serve or worker, and where"),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("adapter", "process"),
        schema="siis",
    )


def downgrade() -> None:
    raise RuntimeError("a database is not taken back: restore a backup or write a new revision")
