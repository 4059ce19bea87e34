"""Tables of the catalogue."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Table, Text
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
