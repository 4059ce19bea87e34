"""Tables of what the Consent building block says beyond our own records: revisions, signatures, webhooks."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from gateway.database import metadata

# Each state of an object, frozen word by word when it is first shown; never changed, each names the one before.
revision = Table(
    "govstack_revision",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("schema_name", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("snapshot", Text, nullable=False, comment="canonical JSON"),
    Column("sha256", LargeBinary, nullable=False, comment="of the snapshot"),
    Column("predecessor_sha256", LargeBinary),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("authorised_by", Text, comment="INSTITUTION/user"),
    Column("individual", Uuid, comment="the person whose answer it is"),
    UniqueConstraint("schema_name", "object_id", "number", name="govstack_revision_once"),
    CheckConstraint("(number = 1) = (predecessor_sha256 IS NULL)", name="govstack_revision_chain"),
)

# A policy's content is in its revisions.
policy = Table(
    "govstack_policy",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("institution", Text, nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    Index("govstack_policy_institution", "institution", "id"),
)

# What an agreement lacks of a DataAgreement; the newest row counts, and none is changed.
agreement = Table(
    "govstack_agreement",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("code", Text, nullable=False),
    Column("dpia", Text, nullable=False, comment="where the impact assessment is"),
    Column("policy_revision", Uuid, ForeignKey(revision.c.id)),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("by", Text, nullable=False),
    Index("govstack_agreement_code", "code", "id"),
)

# Which institution presented which person: an Individual is nobody's but theirs, and holds no identifier.
individual = Table(
    "govstack_individual",
    metadata,
    Column("institution", Text, primary_key=True),
    Column("person_id", Uuid, primary_key=True),
    Column("system", Text, nullable=False, comment="of the identifier it was presented by"),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

# A signature over a consent record; "record" is what was asked or answered, "answer" the record that rests on it.
signature = Table(
    "govstack_signature",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("record", Uuid, nullable=False),
    Column("answer", Uuid, comment="null while it is not signed"),
    Column("document", LargeBinary, nullable=False, comment="the Signature object"),
    Column("sha256", LargeBinary, comment="of the signed object, which counts once; null while it is not signed"),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Index("govstack_signature_record", "record", unique=True),
    Index("govstack_signature_answer", "answer"),
    Index("govstack_signature_once", "sha256", unique=True),
)

webhook = Table(
    "govstack_webhook",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("institution", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Index("govstack_webhook_institution", "institution", "id"),
)
