"""registers taken whole."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "register_file",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("adapter", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True, comment="the rule by which it was refused"),
        sa.Column(
            "fields", sa.ARRAY(sa.Text()), nullable=False, comment="what the content of a row holds, in this order"
        ),
        sa.Column("sealed", sa.Boolean(), nullable=False, comment="false where all fields of the dataset are public"),
        sa.Column("rows", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rejected", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "done", sa.Integer(), server_default="0", nullable=False, comment="number of the last row dealt with"
        ),
        sa.Column(
            "rejects_bytes", sa.BigInteger(), server_default="0", nullable=False, comment="of the file of rejects"
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('taking', 'taken', 'refused', 'replaced')", name="register_file_state"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("adapter", "dataset", "sha256"),
        schema="siis",
    )
    op.create_table(
        "register_row",
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("subject", sa.LargeBinary(), nullable=False, comment="blind index"),
        sa.Column("content", sa.LargeBinary(), nullable=False, comment="JSON list of values, then codes as they came"),
        sa.PrimaryKeyConstraint("file_id", "row"),
        schema="siis",
    )
    op.create_index("register_row_subject", "register_row", ["subject"], unique=False, schema="siis")


def downgrade() -> None:
    raise RuntimeError("a database is not taken back: restore a backup or write a new revision")
