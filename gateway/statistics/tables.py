"""Table of kept funnels: counts alone, so nothing in it is of a person; a row is never changed."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Index, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from gateway.database import metadata

statistics_snapshot = Table(
    "statistics_snapshot",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False, comment="baseline or follow_up"),
    Column("institution", Text, nullable=False, comment="whose referrals were counted; the coordinator's: everybody's"),
    Column("taken_by", Text, nullable=False),
    Column("taken_at", DateTime(timezone=True), nullable=False),
    Column("definition", SmallInteger, nullable=False, comment="version of the definitions"),
    Column("scope", JSONB, nullable=False),
    Column("funnel", JSONB, nullable=False, comment="counts as they are; small ones are hidden when shown"),
    Column("achievements", JSONB, nullable=False, comment="of the ten achievements: category, identified, reached"),
    Index("statistics_snapshot_institution", "institution", "id"),
)
