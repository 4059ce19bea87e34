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
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from gateway.database import metadata

community = Table(
    "community",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("department", Text, nullable=False),
    Column("district", Text, nullable=False),
    Column("name", Text, nullable=False, comment="of the barrio or locality; names no person"),
    Column("attributes", JSONB, nullable=False, server_default="{}"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("department", "district", "name"),
)

household = Table(
    "household",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("department", Text),
    Column("district", Text),
    Column("community_id", Uuid, ForeignKey(community.c.id), index=True),
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
    Column("merged_into", Uuid, comment="the person this one was found to be; null for who stands for themselves"),
    Column("attributes", JSONB, nullable=False, server_default="{}"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("person_merged", "merged_into", postgresql_where=text("merged_into IS NOT NULL")),
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

# Insert-only: that two were found to be one person, and, in a row of its own that names the other, that they are not.
person_merge = Table(
    "person_merge",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("survivor", Uuid, ForeignKey(person.c.id), nullable=False, index=True),
    Column("absorbed", Uuid, ForeignKey(person.c.id), nullable=False, index=True),
    Column("undoes", Uuid, ForeignKey("siis.person_merge.id"), unique=True, comment="the merge that this row ends"),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("by", Text, nullable=False, comment="institution and official"),
    Column("reason", Text, nullable=False),
    Column("confirmed", Boolean, nullable=False, comment="that what is known of the two disagrees"),
    Column("original", JSONB, comment="the survivor's own row, without anybody merged; of a merge"),
    Column("given", JSONB, comment="protections that one of them had and the others were given; of a merge"),
    CheckConstraint("survivor <> absorbed", name="person_merge_of_two"),
    CheckConstraint("(undoes IS NULL) = (original IS NOT NULL)", name="person_merge_original"),
    CheckConstraint("(undoes IS NULL) = (given IS NOT NULL)", name="person_merge_given"),
)

# Who is named by somebody who may not know of them is registered once more, under the same identifier.
stand_in = Table(
    "stand_in",
    metadata,
    Column("system", Text, primary_key=True, comment="of the identifier by which it is found"),
    Column("blind_index", LargeBinary, primary_key=True),
    Column("person_id", Uuid, ForeignKey(person.c.id), nullable=False, unique=True),
    Column("subject", Uuid, ForeignKey(person.c.id), nullable=False, index=True, comment="whom the form meant"),
    Column("form_id", Uuid, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

fact = Table(
    "fact",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("person_id", Uuid, ForeignKey(person.c.id)),
    Column("household_id", Uuid, ForeignKey(household.c.id)),
    Column("community_id", Uuid, ForeignKey(community.c.id)),
    Column("service", Text, nullable=False),
    Column("protected", Boolean, nullable=False),
    Column("source", Text, nullable=False),
    Column("instrument", Text, nullable=False),
    Column("observed_on", Date, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("referral_id", Uuid),
    Column("form_id", Uuid),
    CheckConstraint("num_nonnulls(person_id, household_id, community_id) = 1", name="fact_has_one_unit"),
    Index("fact_person", "person_id", "service"),
    Index("fact_household", "household_id", "service"),
    Index("fact_community", "community_id", "service"),
)

observation = Table(
    "observation",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("person_id", Uuid, ForeignKey(person.c.id), index=True),
    Column("household_id", Uuid, ForeignKey(household.c.id), index=True),
    Column("community_id", Uuid, ForeignKey(community.c.id), index=True),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False, comment="a code, a date, an id; nothing that names anybody"),
    Column("source", Text, nullable=False),
    Column("instrument", Text, nullable=False),
    Column("observed_on", Date, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    Column("form_id", Uuid, index=True),
    CheckConstraint("num_nonnulls(person_id, household_id, community_id) = 1", name="observation_has_one_unit"),
)
