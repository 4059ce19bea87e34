"""Tables of the boards (Mesas): who sits on one, and the cases of the priority track with what was agreed in them."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from gateway.database import metadata

board = Table(
    "board",
    metadata,
    Column("code", Text, primary_key=True),
    Column("names", JSONB, nullable=False),
    Column("department", Text, nullable=False),
    Column("district", Text, comment="null: the board of the whole department"),
    Column("institution", Text, ForeignKey("siis.institution.code"), nullable=False, comment="acts for the board"),
    Column("since", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Index("board_place", "department", "district"),
)

board_member = Table(
    "board_member",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("board", Text, ForeignKey(board.c.code), nullable=False),
    Column("institution", Text, nullable=False, comment="where the member works"),
    Column("user", Text, nullable=False),
    Column("added_by", Text, nullable=False),
    Column("added_at", DateTime(timezone=True), nullable=False),
    Column("ended_by", Text),
    Column("ended_at", DateTime(timezone=True)),
    Index("board_member_once", "institution", "user", "board", unique=True, postgresql_where=text("ended_at IS NULL")),
)

case_file = Table(
    "case_file",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("person_id", Uuid, ForeignKey("siis.person.id"), nullable=False, index=True),
    Column("board", Text, ForeignKey(board.c.code), nullable=False),
    Column("institution", Text, nullable=False, comment="keeps the case"),
    Column("state", Text, nullable=False, comment="code of case-states"),
    Column("texts", LargeBinary, comment="null once the person was erased, or where nothing was written"),
    Column("opened_by", Text, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    Column("closed_at", DateTime(timezone=True)),
    Index("case_board", "board", "id"),
    Index("case_institution", "institution", "id"),
)

case_task = Table(
    "case_task",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("case_id", Uuid, ForeignKey(case_file.c.id), nullable=False, index=True),
    Column("institution", Text, nullable=False, comment="who shall do it"),
    Column("due_on", Date, nullable=False),
    Column("what", LargeBinary, comment="null once the person was erased"),
    Column("added_by", Text, nullable=False),
    Column("added_at", DateTime(timezone=True), nullable=False),
    Column("done_by", Text),
    Column("done_at", DateTime(timezone=True)),
)

case_barrier = Table(
    "case_barrier",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("case_id", Uuid, ForeignKey(case_file.c.id), nullable=False, index=True),
    Column("barrier", Text, nullable=False, comment="code of barriers"),
    Column("referral_id", Uuid, ForeignKey("siis.referral.id")),
    Column("added_by", Text, nullable=False),
    Column("added_at", DateTime(timezone=True), nullable=False),
    Column("overcome_by", Text),
    Column("overcome_at", DateTime(timezone=True)),
    CheckConstraint("(overcome_by IS NULL) = (overcome_at IS NULL)", name="case_barrier_overcome"),
)

case_note = Table(
    "case_note",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("case_id", Uuid, ForeignKey(case_file.c.id), nullable=False, index=True),
    Column("text", LargeBinary, comment="null once the person was erased"),
    Column("by", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)
