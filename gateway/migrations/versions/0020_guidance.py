"""threads of guidance between persons and institutions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "guidance_thread",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False, comment="who answers"),
        sa.Column("service", sa.Text(), nullable=True, comment="what it is about, if it is about one"),
        sa.Column("referral_id", sa.Uuid(), nullable=True, comment="the referral it is about, if it is about one"),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "waits_for",
            sa.Text(),
            nullable=False,
            comment="whose turn it is: institution, person, or nobody once closed",
        ),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("waits_for IN ('institution', 'person', 'nobody')", name="guidance_thread_waits_for"),
        sa.ForeignKeyConstraint(["person_id"], ["siis.person.id"]),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index("ix_siis_guidance_thread_person_id", "guidance_thread", ["person_id"], schema="siis")
    op.create_index(
        "guidance_thread_institution", "guidance_thread", ["institution", "waits_for", "moved_at"], schema="siis"
    )
    op.create_table(
        "guidance_message",
        sa.Column("thread_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.LargeBinary(), nullable=True, comment="null once erased"),
        sa.CheckConstraint("author IN ('institution', 'person')", name="guidance_message_author"),
        sa.ForeignKeyConstraint(["thread_id"], ["siis.guidance_thread.id"]),
        sa.PrimaryKeyConstraint("thread_id", "number"),
        schema="siis",
    )
