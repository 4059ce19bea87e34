"""Table of signed links; neither a link nor its PIN is kept, both are made again from the row's id and our key."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Integer, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.database import metadata

link = Table(
    "link",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("referral_id", Uuid, ForeignKey("siis.referral.id"), nullable=False, index=True),
    Column("institution", Text, nullable=False, comment="the recipient in whose name the office answers"),
    Column("acts", ARRAY(Text), nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_for", Text, nullable=False, comment="the institution whose supervisor made it"),
    Column("made_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("uses", Integer, nullable=False, server_default="0"),
    Column("uses_allowed", Integer, nullable=False),
    Column("wrong_pins", Integer, nullable=False, server_default="0"),
    Column("revoked_by", Text),
    Column("revoked_at", DateTime(timezone=True)),
    CheckConstraint("uses <= uses_allowed", name="link_uses"),
)
