"""Tables of the catalogue: every revision of every entry, and of institutions and services what holds now."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, ForeignKey, Index, Integer, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB

from gateway.database import metadata

institution = Table(
    "institution",
    metadata,
    Column("code", Text, primary_key=True),
    Column("names", JSONB, nullable=False),
)

service = Table(
    "service",
    metadata,
    Column("code", Text, primary_key=True),
    Column("institution", Text, ForeignKey(institution.c.code), nullable=False),
    Column("document", JSONB, nullable=False),
    Column("active", Boolean, nullable=False, server_default="true"),
)

catalogue_revision = Table(
    "catalogue_revision",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("change_id", Uuid, nullable=False, comment="what was changed at once has one"),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("institution", Text, comment="whose user changed it; null: whoever runs the machine, or a release"),
    Column("actor", Text, nullable=False),
    Column("document", JSONB(none_as_null=True), comment="null: withdrawn"),
    Index("catalogue_revision_change", "change_id"),
)
