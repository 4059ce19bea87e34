"""Tables of clients, their keys and certificates, used assertions and proofs, and revoked tokens."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
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
    Column("pilot", Boolean, nullable=False, server_default=text("false")),
    Column("secret_sha256", LargeBinary, comment="of 256 random bits that we made"),
    Column("valid_from", DateTime(timezone=True)),
    Column("valid_to", DateTime(timezone=True)),
    Column("networks", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="CIDR; empty: any address"),
    CheckConstraint("pilot OR secret_sha256 IS NULL", name="client_secret_of_pilot"),
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

# Known by their hash alone; the certificate itself is shown at each connection.
client_certificate = Table(
    "client_certificate",
    metadata,
    Column("client_id", Text, ForeignKey("siis.client.id"), primary_key=True),
    Column("thumbprint", Text, primary_key=True, comment="x5t#S256 (RFC 8705)"),
    Column("subject", Text, nullable=False),
    Column("not_before", DateTime(timezone=True), nullable=False),
    Column("not_after", DateTime(timezone=True), nullable=False),
    Column("added_at", DateTime(timezone=True), nullable=False),
    Column("removed_at", DateTime(timezone=True)),
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

# DPoP proofs (RFC 9449 section 11.1), by the key that signed them.
used_proof = Table(
    "used_proof",
    metadata,
    Column("jkt", Text, primary_key=True),
    Column("jti", Text, primary_key=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Index("used_proof_expires_at", "expires_at"),
)

revoked_token = Table(
    "revoked_token",
    metadata,
    Column("jti", Text, primary_key=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
