"""who may see what, and why."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agreement_signature",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("text_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("signatory", sa.Text(), nullable=False, comment="a user of the party"),
        sa.Column("proof_reference", sa.Text(), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("code", "text_sha256", "party", name="pk_agreement_signature"),
        schema="consent",
    )
    op.create_table(
        "agreement_use",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="in Paraguay"),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("code", "day", name="pk_agreement_use"),
        schema="consent",
    )
    op.create_table(
        "break_glass",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("fields", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="code"),
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("noticed_at", sa.DateTime(timezone=True), nullable=True, comment="when the officer was told"),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("reviewed_by", sa.Text(), nullable=True),
        sa.Column("reviewed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("expires_at <= opened_at + interval '24 hours'", name="ck_break_glass_day"),
        sa.CheckConstraint("verdict IN ('justified', 'not-justified')", name="ck_break_glass_verdict"),
        sa.CheckConstraint("(verdict IS NULL) = (reviewed_at IS NULL)", name="ck_break_glass_review"),
        sa.PrimaryKeyConstraint("id", name="pk_break_glass"),
        sa.UniqueConstraint("institution", "user", "subject", "dataset", "incident"),
        schema="consent",
    )
    op.create_index("ix_break_glass_subject", "break_glass", ["subject"], unique=False, schema="consent")
    op.create_index(
        "ix_break_glass_unreviewed",
        "break_glass",
        ["institution", "opened_at"],
        unique=False,
        schema="consent",
        postgresql_where=sa.text("reviewed_at IS NULL"),
    )
    op.create_table(
        "compartment_grant",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("compartment", sa.Text(), nullable=False),
        sa.Column("granted_by", sa.Text(), nullable=False),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_by", sa.Text(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(revoked_at IS NULL) = (revoked_by IS NULL)", name="ck_compartment_grant_revocation"),
        sa.PrimaryKeyConstraint("id", name="pk_compartment_grant"),
        schema="consent",
    )
    op.create_index(
        "ix_compartment_grant_held",
        "compartment_grant",
        ["institution", "role", "compartment"],
        unique=True,
        schema="consent",
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_table(
        "consent_text",
        sa.Column("agreement", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("agreement", "version", "language", name="pk_consent_text"),
        schema="consent",
    )
    op.create_table(
        "representation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("representative", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("proof_reference", sa.Text(), nullable=False),
        sa.Column("recorded_by", sa.Text(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=True, comment="code: ended, conflict-of-interest, court-order"),
        sa.CheckConstraint("kind IN ('parent', 'guardian', 'curator', 'proxy')", name="ck_representation_kind"),
        sa.CheckConstraint("(ended_at IS NULL) = (end_reason IS NULL)", name="ck_representation_end"),
        sa.CheckConstraint("subject <> representative", name="ck_representation_another"),
        sa.CheckConstraint("valid_to > valid_from", name="ck_representation_validity"),
        sa.PrimaryKeyConstraint("id", name="pk_representation"),
        schema="consent",
    )
    op.create_index(
        "ix_representation_representative", "representation", ["representative"], unique=False, schema="consent"
    )
    op.create_index("ix_representation_subject", "representation", ["subject"], unique=False, schema="consent")
    op.create_table(
        "role_assignment",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("granted_by", sa.Text(), nullable=False),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_by", sa.Text(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(revoked_at IS NULL) = (revoked_by IS NULL)", name="ck_role_assignment_revocation"),
        sa.CheckConstraint("valid_to > granted_at", name="ck_role_assignment_validity"),
        sa.PrimaryKeyConstraint("id", name="pk_role_assignment"),
        schema="consent",
    )
    op.create_index(
        "ix_role_assignment_held",
        "role_assignment",
        ["institution", "user", "role"],
        unique=True,
        schema="consent",
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.add_column("agreement", sa.Column("created_by", sa.Text(), nullable=True), schema="consent")
    op.add_column("consent_record", sa.Column("agreement_version", sa.Integer(), nullable=True), schema="consent")
    op.add_column(
        "consent_record",
        sa.Column(
            "scope_sha256", sa.LargeBinary(), nullable=True, comment="of what the agreement asked for when it was given"
        ),
        schema="consent",
    )
    op.add_column(
        "consent_record",
        sa.Column(
            "labels",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="sensitive classes expressly named",
        ),
        schema="consent",
    )
    op.add_column(
        "consent_record",
        sa.Column(
            "representation", sa.Uuid(), nullable=True, comment="by which somebody else gave it; null: the person"
        ),
        schema="consent",
    )
    op.add_column("consent_record", sa.Column("recorded_by", sa.Text(), nullable=True), schema="consent")
    op.add_column("consent_record", sa.Column("end_reason", sa.Text(), nullable=True, comment="code"), schema="consent")
    op.add_column(
        "protective_flag", sa.Column("target", sa.Text(), server_default="", nullable=False), schema="consent"
    )
    op.add_column(
        "protective_flag",
        sa.Column(
            "set_by",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="institution; empty: who runs the gateway",
        ),
        schema="consent",
    )
    op.add_column(
        "protective_flag",
        sa.Column("reference", sa.Text(), nullable=True, comment="the act that orders it"),
        schema="consent",
    )
    _check("agreement", "status", "status IN ('draft', 'proposed', 'signed', 'active', 'suspended', 'expired')")
    _check(
        "consent_record",
        "state",
        "state IN ('requested', 'given', 'refused', 'withdrawn', 'revoked', 'invalidated', 'expired')",
    )
    _check(
        "consent_record",
        "withdrawal",
        "(state IN ('withdrawn', 'revoked', 'invalidated')) = (withdrawn_at IS NOT NULL)",
    )
    op.create_check_constraint(
        "ck_protective_flag_kind",
        "protective_flag",
        "kind IN ('sealed', 'aggressor', 'court-order', 'export-ban')",
        schema="consent",
    )
    op.create_check_constraint(
        "ck_protective_flag_target", "protective_flag", "(kind = 'aggressor') = (target <> '')", schema="consent"
    )
    op.drop_constraint("pk_protective_flag", "protective_flag", schema="consent")
    op.create_primary_key(
        "pk_protective_flag", "protective_flag", ["subject", "kind", "target", "set_by"], schema="consent"
    )


def _check(table: str, name: str, condition: str) -> None:
    full = f"ck_{table}_{name}"
    op.drop_constraint(full, table, schema="consent")
    op.create_check_constraint(full, table, condition, schema="consent")


def downgrade() -> None:
    raise RuntimeError("a database is not taken back: restore a backup or write a new revision")
