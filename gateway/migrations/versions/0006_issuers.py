"""issuers of others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "token_issuer",
        sa.Column("issuer", sa.Text(), nullable=False, comment="as tokens name it, to the letter"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=True, comment="empty: it vouches for citizens"),
        sa.Column("jwks_uri", sa.Text(), nullable=False),
        sa.Column("audiences", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("algorithms", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("types", sa.ARRAY(sa.Text()), nullable=False, comment="typ, in lower case; an empty text: none"),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False, comment="what its tokens give at most"),
        sa.Column(
            "claims",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="which claim says what, and what its words mean here",
        ),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(institution IS NULL) = (claims ->> 'person' IS NOT NULL)", name="token_issuer_vouches_for_one"
        ),
        sa.ForeignKeyConstraint(["institution"], ["siis.institution.code"]),
        sa.PrimaryKeyConstraint("issuer"),
        schema="siis",
    )


def downgrade() -> None:
    raise RuntimeError("a database is not taken back: restore a backup or write a new revision")
