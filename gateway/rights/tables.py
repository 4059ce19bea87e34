"""Tables of the requests of persons and of breaches; what people wrote is encrypted, data handed over is not here."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.database import metadata

rights_request = Table(
    "rights_request",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("right", Text, nullable=False),
    Column("person_id", Uuid, index=True, comment="null while nobody here is known to be the one who asks"),
    Column("representative_id", Uuid, index=True, comment="the person who asks in their name"),
    Column("identity", LargeBinary, comment="as whom they presented themselves, until it is known who they are"),
    Column("dataset", Text, comment="null: everything"),
    Column("purpose", Text, comment="what an opposition is about"),
    Column("text", LargeBinary),
    Column("received_by", Text, comment="institution; null: the person, or whoever runs the machine"),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("due_on", Date, nullable=False, comment="last day, in Paraguay"),
    CheckConstraint("(person_id IS NULL) = (identity IS NOT NULL)", name="rights_request_identity"),
)

rights_part = Table(
    "rights_part",
    metadata,
    Column("request_id", Uuid, ForeignKey(rights_request.c.id), primary_key=True),
    Column("institution", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("state_at", DateTime(timezone=True), nullable=False),
    Column("outcome", Text),
    Column("norm", Text),
    Column("answer", LargeBinary, comment="JSON: text, reference of what was delivered"),
    Column("sha256", LargeBinary, comment="of what was delivered"),
    Column("until", Date, comment="end of a restriction"),
    Column("effective_on", Date, comment="of an opposition"),
    Column("answered_by", Text),
    CheckConstraint(
        "state IN ('received', 'routed', 'in-progress', 'answered', 'withdrawn')", name="rights_part_state"
    ),
    CheckConstraint("(state = 'answered') = (outcome IS NOT NULL)", name="rights_part_outcome"),
    Index(
        "rights_part_open",
        "institution",
        "request_id",
        postgresql_where=text("state IN ('received', 'routed', 'in-progress')"),
    ),
)

breach = Table(
    "breach",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("institution", Text, nullable=False, comment="whose officer handles it"),
    Column("party", Text, comment="whose exchanges are concerned; null: everybody's"),
    Column("client", Text),
    Column("datasets", ARRAY(Text), nullable=False, comment="empty: all"),
    Column("since", DateTime(timezone=True), nullable=False),
    Column("until", DateTime(timezone=True), comment="excluded; null while it goes on"),
    Column("known_at", DateTime(timezone=True), nullable=False),
    Column("due_at", DateTime(timezone=True), nullable=False),
    Column("what", LargeBinary, nullable=False),
    Column("opened_by", Text, nullable=False),
    Column("drawn_at", DateTime(timezone=True), comment="when the list of persons was drawn from the log"),
    Column("affected", Integer),
    Column("erased", Integer, comment="persons of the list whose key was destroyed: counted, not named"),
    Column("notified_agency_at", DateTime(timezone=True)),
    Column("notified_people_at", DateTime(timezone=True)),
    Column("measures", LargeBinary),
    Column("closed_at", DateTime(timezone=True)),
    CheckConstraint("until > since", name="breach_period"),
    CheckConstraint("(drawn_at IS NULL) = (affected IS NULL)", name="breach_drawn"),
    Index("breach_institution", "institution", "id"),
)

breach_person = Table(
    "breach_person",
    metadata,
    Column("breach_id", Uuid, ForeignKey(breach.c.id), primary_key=True),
    Column("person_id", Uuid, primary_key=True, comment="internal id; who was erased later stays in the count"),
)
