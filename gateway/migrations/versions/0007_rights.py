"""rights of the person, and breaches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notice",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("audience_institution", sa.Text(), nullable=True),
        sa.Column("audience_role", sa.Text(), nullable=True),
        sa.Column(
            "person",
            sa.Uuid(),
            nullable=True,
            comment="the person it is addressed to, in place of a role of an institution",
        ),
        sa.Column("kind", sa.Text(), nullable=False, comment="code"),
        sa.Column("origin", sa.Text(), nullable=False, comment="the institution that did what it tells of"),
        sa.Column("reference", sa.Uuid(), nullable=False, comment="the record it tells of, by kind"),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "not_before",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="kept back until then; null: shown at once",
        ),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(person IS NULL) = (audience_role IS NOT NULL)"
            " AND (audience_role IS NULL) = (audience_institution IS NULL)",
            name="ck_notice_audience",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index("ix_notice_person", "notice", ["person", "id"], unique=False, schema="siis")
    op.create_index(
        "ix_notice_role", "notice", ["audience_institution", "audience_role", "id"], unique=False, schema="siis"
    )
    op.create_table(
        "rights_request",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("right", sa.Text(), nullable=False),
        sa.Column(
            "person_id", sa.Uuid(), nullable=True, comment="null while nobody here is known to be the one who asks"
        ),
        sa.Column("representative_id", sa.Uuid(), nullable=True, comment="the person who asks in their name"),
        sa.Column(
            "identity",
            sa.LargeBinary(),
            nullable=True,
            comment="as whom they presented themselves, until it is known who they are",
        ),
        sa.Column("dataset", sa.Text(), nullable=True, comment="null: everything"),
        sa.Column("purpose", sa.Text(), nullable=True, comment="what an opposition is about"),
        sa.Column("text", sa.LargeBinary(), nullable=True),
        sa.Column(
            "received_by",
            sa.Text(),
            nullable=True,
            comment="institution; null: the person, or whoever runs the machine",
        ),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False, comment="last day, in Paraguay"),
        sa.CheckConstraint("(person_id IS NULL) = (identity IS NOT NULL)", name="rights_request_identity"),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    for column in ("person_id", "representative_id"):
        op.create_index(
            op.f(f"ix_siis_rights_request_{column}"), "rights_request", [column], unique=False, schema="siis"
        )
    op.create_table(
        "rights_part",
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("norm", sa.Text(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True, comment="JSON: text, reference of what was delivered"),
        sa.Column("sha256", sa.LargeBinary(), nullable=True, comment="of what was delivered"),
        sa.Column("until", sa.Date(), nullable=True, comment="end of a restriction"),
        sa.Column("effective_on", sa.Date(), nullable=True, comment="of an opposition"),
        sa.Column("answered_by", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('received', 'routed', 'in-progress', 'answered', 'withdrawn')", name="rights_part_state"
        ),
        sa.CheckConstraint("(state = 'answered') = (outcome IS NOT NULL)", name="rights_part_outcome"),
        sa.ForeignKeyConstraint(["request_id"], ["siis.rights_request.id"]),
        sa.PrimaryKeyConstraint("request_id", "institution"),
        schema="siis",
    )
    op.create_index(
        "rights_part_open",
        "rights_part",
        ["institution", "request_id"],
        unique=False,
        schema="siis",
        postgresql_where=sa.text("state IN ('received', 'routed', 'in-progress')"),
    )
    op.create_table(
        "breach",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False, comment="whose officer handles it"),
        sa.Column("party", sa.Text(), nullable=True, comment="whose exchanges are concerned; null: everybody's"),
        sa.Column("client", sa.Text(), nullable=True),
        sa.Column("datasets", postgresql.ARRAY(sa.Text()), nullable=False, comment="empty: all"),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True, comment="excluded; null while it goes on"),
        sa.Column("known_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.LargeBinary(), nullable=False),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.Column(
            "drawn_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the list of persons was drawn from the log",
        ),
        sa.Column("affected", sa.Integer(), nullable=True),
        sa.Column(
            "erased",
            sa.Integer(),
            nullable=True,
            comment="persons of the list whose key was destroyed: counted, not named",
        ),
        sa.Column("notified_agency_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("notified_people_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("measures", sa.LargeBinary(), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("until > since", name="breach_period"),
        sa.CheckConstraint("(drawn_at IS NULL) = (affected IS NULL)", name="breach_drawn"),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index("breach_institution", "breach", ["institution", "id"], unique=False, schema="siis")
    op.create_table(
        "breach_person",
        sa.Column("breach_id", sa.Uuid(), nullable=False),
        sa.Column(
            "person_id",
            sa.Uuid(),
            nullable=False,
            comment="internal id; who was erased later stays in the count",
        ),
        sa.ForeignKeyConstraint(["breach_id"], ["siis.breach.id"]),
        sa.PrimaryKeyConstraint("breach_id", "person_id"),
        schema="siis",
    )


def downgrade() -> None:
    raise RuntimeError("a database is not taken back: restore a backup or write a new revision")
