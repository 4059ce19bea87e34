"""Tables of guidance: threads between a person and an institution, and their messages, encrypted and never changed."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Index, Integer, LargeBinary, Table, Text, Uuid

from gateway.database import metadata

guidance_thread = Table(
    "guidance_thread",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("person_id", Uuid, ForeignKey("siis.person.id"), nullable=False, index=True),
    Column("institution", Text, nullable=False, comment="who answers"),
    Column("service", Text, comment="what it is about, if it is about one"),
    Column("referral_id", Uuid, comment="the referral it is about, if it is about one"),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    Column("waits_for", Text, nullable=False, comment="whose turn it is: institution, person, or nobody once closed"),
    Column("moved_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("waits_for IN ('institution', 'person', 'nobody')", name="guidance_thread_waits_for"),
    Index("guidance_thread_institution", "institution", "waits_for", "moved_at"),
)

guidance_message = Table(
    "guidance_message",
    metadata,
    Column("thread_id", Uuid, ForeignKey(guidance_thread.c.id), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("author", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("text", LargeBinary, comment="null once erased"),
    CheckConstraint("author IN ('institution', 'person')", name="guidance_message_author"),
)
