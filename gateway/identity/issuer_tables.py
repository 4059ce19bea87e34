"""Table of the outside issuers whose tokens are accepted."""

from __future__ import annotations

from sqlalchemy import ARRAY, CheckConstraint, Column, DateTime, ForeignKey, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from gateway.database import metadata

# issuers.Registration decides what gets in and says what each means.
token_issuer = Table(
    "token_issuer",
    metadata,
    Column("issuer", Text, primary_key=True, comment="as tokens name it, to the letter"),
    Column("name", Text, nullable=False),
    Column("institution", Text, ForeignKey("siis.institution.code"), comment="empty: it vouches for citizens"),
    Column("jwks_uri", Text, nullable=False),
    Column("audiences", ARRAY(Text), nullable=False),
    Column("algorithms", ARRAY(Text), nullable=False),
    Column("types", ARRAY(Text), nullable=False, comment="typ, in lower case; an empty text: none"),
    Column("scopes", ARRAY(Text), nullable=False, comment="what its tokens give at most"),
    Column("claims", JSONB, nullable=False, comment="which claim says what, and what its words mean here"),
    Column("valid_to", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("disabled_at", DateTime(timezone=True)),
    # Whoever says which citizen comes gives nobody a role in an institution.
    CheckConstraint("(institution IS NULL) = (claims ->> 'person' IS NOT NULL)", name="token_issuer_vouches_for_one"),
)
