"""Tables of clients, their keys, used assertions and revoked tokens."""

from __future__ import annotations

from sqlalchemy import ARRAY, Boolean, Column, DateTime, ForeignKey, Index, SmallInteger, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from gateway.database import metadata

client = Table(
    "client",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("institution", Text, ForeignKey("siis.institution.code"), nullable=False),
    Column("active", Boolean, nullable=False, server_default=text("true")),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("assurance", SmallInteger, nullable=False, server_default=text("1")),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("disabled_at", DateTime(timezone=True)),
)

# Public EC P-256 keys only; keys.read_public_key decides what gets in.
client_key = Table(
    "client_key",
    metadata,
    Column("client_id", Text, ForeignKey("siis.client.id"), primary_key=True),
    Column("kid", Text, primary_key=True),
    Column("jwk", JSONB, nullable=False),
    Column("not_after", DateTime(timezone=True)),
)

# No foreign key: this table is written on every token issued and its rows live for minutes.
assertion_jti = Table(
    "assertion_jti",
    metadata,
    Column("client_id", Text, primary_key=True),
    Column("jti", Text, primary_key=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Index("assertion_jti_expires_at", "expires_at"),
)

revoked_token = Table(
    "revoked_token",
    metadata,
    Column("jti", Text, primary_key=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
