"""Table of notices: who must be told of something that was done with somebody's data."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Table, Text, Uuid

from gateway.database import metadata

notice = Table(
    "notice",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("audience_institution", Text),
    Column("audience_role", Text),
    Column("person", Uuid, comment="the person it is addressed to, in place of a role of an institution"),
    Column("kind", Text, nullable=False, comment="code"),
    Column("origin", Text, nullable=False, comment="the institution that did what it tells of"),
    Column("reference", Uuid, nullable=False, comment="the record it tells of, by kind"),
    Column("entry_id", Uuid, nullable=False),
    Column("subject", Uuid),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("not_before", DateTime(timezone=True), comment="kept back until then; null: shown at once"),
    Column("seen_at", DateTime(timezone=True)),
    CheckConstraint(
        "(person IS NULL) = (audience_role IS NOT NULL) AND (audience_role IS NULL) = (audience_institution IS NULL)",
        name="ck_notice_audience",
    ),
    Index("ix_notice_role", "audience_institution", "audience_role", "id"),
    Index("ix_notice_person", "person", "id"),
)
