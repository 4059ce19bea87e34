"""Tables of intake."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.database import metadata

poll_cursor = Table(
    "poll_cursor",
    metadata,
    Column("adapter", Text, primary_key=True),
    Column("cursor", Text, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

intake_reject = Table(
    "intake_reject",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("adapter", Text, nullable=False),
    Column("cursor", Text, nullable=False, comment="the page it came with"),
    Column("row", Integer, nullable=False),
    Column("column", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

population = Table(
    "population",
    metadata,
    Column("seed", Integer, primary_key=True),
    Column("persons", Integer, nullable=False),
    Column("loaded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

register_file = Table(
    "register_file",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("adapter", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, comment="the rule by which it was refused"),
    Column("fields", ARRAY(Text), nullable=False, comment="what the content of a row holds, in this order"),
    Column("sealed", Boolean, nullable=False, comment="false where all fields of the dataset are public"),
    Column("rows", Integer, nullable=False, server_default="0"),
    Column("rejected", Integer, nullable=False, server_default="0"),
    Column("done", Integer, nullable=False, server_default="0", comment="number of the last row dealt with"),
    Column("rejects_bytes", BigInteger, nullable=False, server_default="0", comment="of the file of rejects"),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    Column("crossed", Integer, nullable=False, server_default="0", comment="number of the last row made into facts"),
    UniqueConstraint("adapter", "dataset", "sha256"),
    CheckConstraint("state IN ('taking', 'taken', 'refused', 'replaced')", name="register_file_state"),
)

# Without a foreign key, whose check costs as much as the row; nobody but the intake writes here.
register_row = Table(
    "register_row",
    metadata,
    Column("file_id", Uuid, primary_key=True),
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("subject", LargeBinary, nullable=False, comment="blind index"),
    Column("content", LargeBinary, nullable=False, comment="JSON list of values, then codes as they came"),
    Index("register_row_subject", "subject"),
)

form = Table(
    "form",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("number", Text, comment="which the source gave it; null once erased"),
    Column("observed_on", Date, nullable=False),
    Column("household_id", Uuid, index=True),
    Column("community_id", Uuid, index=True),
    Column("texts", LargeBinary, comment="address and notes; null once erased"),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("source", "number"),
    CheckConstraint("kind IN ('full', 'simplified', 'community')", name="form_kind"),
)
