"""Tables of the registry: identifiers and names encrypted, coded facts in clear under internal ids."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

from gateway.database import metadata

household = Table(
    "household",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("department", Text),
    Column("district", Text),
    Column("attributes", JSONB, nullable=False, server_default="{}"),
)

person = Table(
    "person",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("household_id", Uuid, ForeignKey(household.c.id), index=True),
    Column("names", LargeBinary, comment="null once erased"),
    Column("birth_date", Date),
    Column("sex", Text),
    Column("department", Text),
    Column("district", Text),
    Column("deceased_on", Date),
    Column("guardian_id", Uuid),
    Column("attributes", JSONB, nullable=False, server_default="{}"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

person_identifier = Table(
    "person_identifier",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("person_id", Uuid, ForeignKey(person.c.id), nullable=False, index=True),
    Column("system", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("blind_index", LargeBinary, nullable=False),
    UniqueConstraint("system", "blind_index"),
)

fact = Table(
    "fact",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("person_id", Uuid, ForeignKey(person.c.id)),
    Column("household_id", Uuid, ForeignKey(household.c.id)),
    Column("service", Text, nullable=False),
    Column("protected", Boolean, nullable=False),
    Column("source", Text, nullable=False),
    Column("instrument", Text, nullable=False),
    Column("observed_on", Date, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("referral_id", Uuid),
    CheckConstraint("(person_id IS NULL) <> (household_id IS NULL)", name="fact_has_one_unit"),
    Index("fact_person", "person_id", "service"),
    Index("fact_household", "household_id", "service"),
)
