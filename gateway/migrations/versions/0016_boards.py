"""boards, their cases, and signed links."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _boards()
    _cases()
    op.create_table(
        "link",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("referral_id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False, comment="the recipient in whose name the office answers"),
        sa.Column("acts", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_for", sa.Text(), nullable=False, comment="the institution whose supervisor made it"),
        sa.Column("made_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("uses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("uses_allowed", sa.Integer(), nullable=False),
        sa.Column("wrong_pins", sa.Integer(), server_default="0", nullable=False),
        sa.Column("revoked_by", sa.Text(), nullable=True),
        sa.Column("revoked_at", _MOMENT, nullable=True),
        sa.CheckConstraint("uses <= uses_allowed", name="link_uses"),
        sa.ForeignKeyConstraint(["referral_id"], ["siis.referral.id"]),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index("ix_siis_link_referral_id", "link", ["referral_id"], schema="siis")
    # What the keeper of deadlines looks through every minute: referrals still open, by their last day.
    op.create_index(
        "referral_due", "referral", ["due_on"], schema="siis", postgresql_where=sa.text("closed_at IS NULL")
    )


def _boards() -> None:
    op.create_table(
        "board",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("names", postgresql.JSONB(), nullable=False),
        sa.Column("department", sa.Text(), nullable=False),
        sa.Column("district", sa.Text(), nullable=True, comment="null: the board of the whole department"),
        sa.Column("institution", sa.Text(), nullable=False, comment="acts for the board"),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["institution"], ["siis.institution.code"]),
        sa.PrimaryKeyConstraint("code"),
        schema="siis",
    )
    op.create_index("board_place", "board", ["department", "district"], schema="siis")
    op.create_table(
        "board_member",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False, comment="where the member works"),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("added_by", sa.Text(), nullable=False),
        sa.Column("added_at", _MOMENT, nullable=False),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["board"], ["siis.board.code"]),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index(
        "board_member_once",
        "board_member",
        ["institution", "user", "board"],
        unique=True,
        schema="siis",
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def _cases() -> None:
    op.create_table(
        "case_file",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False, comment="keeps the case"),
        sa.Column("state", sa.Text(), nullable=False, comment="code of case-states"),
        sa.Column(
            "texts",
            sa.LargeBinary(),
            nullable=True,
            comment="null once the person was erased, or where nothing was written",
        ),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.Column("opened_at", _MOMENT, nullable=False),
        sa.Column("closed_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["board"], ["siis.board.code"]),
        sa.ForeignKeyConstraint(["person_id"], ["siis.person.id"]),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index("ix_siis_case_file_person_id", "case_file", ["person_id"], schema="siis")
    op.create_index("case_board", "case_file", ["board", "id"], schema="siis")
    op.create_index("case_institution", "case_file", ["institution", "id"], schema="siis")
    _of_a_case(
        "case_task",
        sa.Column("institution", sa.Text(), nullable=False, comment="who shall do it"),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("what", sa.LargeBinary(), nullable=True, comment="null once the person was erased"),
        sa.Column("added_by", sa.Text(), nullable=False),
        sa.Column("added_at", _MOMENT, nullable=False),
        sa.Column("done_by", sa.Text(), nullable=True),
        sa.Column("done_at", _MOMENT, nullable=True),
    )
    _of_a_case(
        "case_barrier",
        sa.Column("barrier", sa.Text(), nullable=False, comment="code of barriers"),
        sa.Column("referral_id", sa.Uuid(), sa.ForeignKey("siis.referral.id"), nullable=True),
        sa.Column("added_by", sa.Text(), nullable=False),
        sa.Column("added_at", _MOMENT, nullable=False),
        sa.Column("overcome_by", sa.Text(), nullable=True),
        sa.Column("overcome_at", _MOMENT, nullable=True),
        sa.CheckConstraint("(overcome_by IS NULL) = (overcome_at IS NULL)", name="case_barrier_overcome"),
    )
    _of_a_case(
        "case_note",
        sa.Column("text", sa.LargeBinary(), nullable=True, comment="null once the person was erased"),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
    )


def _of_a_case(name: str, *columns: Any) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        *columns,
        sa.ForeignKeyConstraint(["case_id"], ["siis.case_file.id"]),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index(f"ix_siis_{name}_case_id", name, ["case_id"], schema="siis")
