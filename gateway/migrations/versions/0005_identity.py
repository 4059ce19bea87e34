"""clients by certificate, secret and network."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "client", sa.Column("pilot", sa.Boolean(), server_default=sa.text("false"), nullable=False), schema="siis"
    )
    op.add_column(
        "client",
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=True, comment="of 256 random bits that we made"),
        schema="siis",
    )
    op.add_column("client", sa.Column("valid_from", sa.DateTime(timezone=True), nullable=True), schema="siis")
    op.add_column("client", sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True), schema="siis")
    op.add_column(
        "client",
        sa.Column(
            "networks",
            sa.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="CIDR; empty: any address",
        ),
        schema="siis",
    )
    op.create_check_constraint("client_secret_of_pilot", "client", "pilot OR secret_sha256 IS NULL", schema="siis")
    op.create_table(
        "client_certificate",
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("thumbprint", sa.Text(), nullable=False, comment="x5t#S256 (RFC 8705)"),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["client_id"], ["siis.client.id"]),
        sa.PrimaryKeyConstraint("client_id", "thumbprint"),
        schema="siis",
    )
    op.create_table(
        "used_proof",
        sa.Column("jkt", sa.Text(), nullable=False),
        sa.Column("jti", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("jkt", "jti"),
        schema="siis",
    )
    op.create_index("used_proof_expires_at", "used_proof", ["expires_at"], unique=False, schema="siis")


def downgrade() -> None:
    raise RuntimeError("a database is not taken back: restore a backup or write a new revision")
