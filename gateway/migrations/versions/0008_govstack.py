"""the GovStack face."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "govstack_revision",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("schema_name", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("snapshot", sa.Text(), nullable=False, comment="canonical JSON"),
        sa.Column("sha256", sa.LargeBinary(), nullable=False, comment="of the snapshot"),
        sa.Column("predecessor_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("authorised_by", sa.Text(), nullable=True, comment="INSTITUTION/user"),
        sa.Column("individual", sa.Uuid(), nullable=True, comment="the person whose answer it is"),
        sa.CheckConstraint("(number = 1) = (predecessor_sha256 IS NULL)", name="govstack_revision_chain"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("schema_name", "object_id", "number", name="govstack_revision_once"),
        schema="siis",
    )
    op.create_table(
        "govstack_policy",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_table(
        "govstack_agreement",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("dpia", sa.Text(), nullable=False, comment="where the impact assessment is"),
        sa.Column("policy_revision", sa.Uuid(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["policy_revision"], ["siis.govstack_revision.id"]),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_table(
        "govstack_individual",
        sa.Column("institution", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("system", sa.Text(), nullable=False, comment="of the identifier it was presented by"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("institution", "person_id"),
        schema="siis",
    )
    op.create_table(
        "govstack_signature",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("record", sa.Uuid(), nullable=False),
        sa.Column("answer", sa.Uuid(), nullable=True, comment="null while it is not signed"),
        sa.Column("document", sa.LargeBinary(), nullable=False, comment="the Signature object"),
        sa.Column(
            "sha256",
            sa.LargeBinary(),
            nullable=True,
            comment="of the signed object, which counts once; null while it is not signed",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_table(
        "govstack_webhook",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    for name, table, columns in (
        ("govstack_policy_institution", "govstack_policy", ["institution", "id"]),
        ("govstack_agreement_code", "govstack_agreement", ["code", "id"]),
        ("govstack_signature_answer", "govstack_signature", ["answer"]),
        ("govstack_webhook_institution", "govstack_webhook", ["institution", "id"]),
    ):
        op.create_index(name, table, columns, unique=False, schema="siis")
    for name, column in (("govstack_signature_record", "record"), ("govstack_signature_once", "sha256")):
        op.create_index(name, "govstack_signature", [column], unique=True, schema="siis")


def downgrade() -> None:
    raise RuntimeError("a database is not taken back: restore a backup or write a new revision")
