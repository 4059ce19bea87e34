"""erasure, restriction, and the epochs of keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epoch",
        sa.Column("number", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("destroyed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        schema="audit",
    )
    op.execute("INSERT INTO audit.epoch (number) SELECT coalesce(max(epoch), 1) FROM audit.subject_key")
    op.create_index(
        "subject_key_epoch",
        "subject_key",
        ["epoch"],
        unique=False,
        schema="audit",
        postgresql_where=sa.text("wrapped_key IS NOT NULL"),
    )
    op.create_index(
        "subject_key_erased",
        "subject_key",
        ["erased_at"],
        unique=False,
        schema="audit",
        postgresql_where=sa.text("erased_at IS NOT NULL"),
    )
    op.create_table(
        "restriction",
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("holder", sa.Text(), server_default="", nullable=False, comment="whose data; empty: everybody's"),
        sa.Column("dataset", sa.Text(), server_default="", nullable=False, comment="empty: all"),
        sa.Column("norm", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False, comment="the order, or the request that it answers"),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.Date(), nullable=False, comment="last day, in Paraguay"),
        sa.PrimaryKeyConstraint("subject", "holder", "dataset", name=op.f("pk_restriction")),
        schema="consent",
    )
    op.create_index(op.f("ix_restriction_until"), "restriction", ["until"], unique=False, schema="consent")
    op.alter_column("person", "names", nullable=True, comment="null once erased", schema="siis")
