"""The tables of the log, and the grants and triggers that keep everybody but a database superuser from rewriting it.

Triggers and grants are hygiene; the evidence is in the hashes, which hold against the superuser too.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)

WRITER_SLOTS = 16

metadata = MetaData(schema="audit")

# type, outcome, at, pseudonym and the writer columns repeat what the envelope says, for search; a check of the log
# holds them to the envelope.
entry = Table(
    "entry",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("envelope", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("detail", LargeBinary, nullable=False),
    Column("type", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("pseudonym", Uuid),
    Column("writer_slot", Integer, nullable=False),
    Column("writer_counter", BigInteger, nullable=False),
    # Rows arrive in the order of their time, so a block-range index finds a period at next to no cost of writing.
    Index("entry_at", "at", postgresql_using="brin"),
    Index("entry_type", "type", "id"),
    Index("entry_pseudonym", "pseudonym", "id", postgresql_where=text("pseudonym IS NOT NULL")),
)

pending = Table("pending", metadata, Column("entry_id", Uuid, primary_key=True))

# No foreign key to entry, here or in pending: evidence has to show that a row was removed, not forbid it; and a
# constraint that a superuser can drop proves nothing.
sequence = Table(
    "sequence",
    metadata,
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("entry_id", Uuid, nullable=False, unique=True),
    Column("leaf_hash", LargeBinary, nullable=False),
)

# Rows are rewritten at every commit: room on the page lets PostgreSQL do that in place.
writer = Table(
    "writer",
    metadata,
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("counter", BigInteger, nullable=False),
    Column("last_leaf", LargeBinary, nullable=False),
    postgresql_with={"fillfactor": "20"},
)

tree = Table(
    "tree",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("checkpoints", BigInteger, nullable=False),
    Index("tree_one_row", text("(true)"), unique=True),
)

# number counts from 0, so that a removed checkpoint shows; at is the time of the newest entry it covers, which can be
# checked; frontier lets the next signer prove that this one is a prefix without reading the whole log.
checkpoint = Table(
    "checkpoint",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False, unique=True),
    Column("note", Text, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

# subject is the internal id of a person, or the nil UUID for the log's own key; wrapped_key is NULL once erased.
subject_key = Table(
    "subject_key",
    metadata,
    Column("subject", Uuid, primary_key=True),
    Column("pseudonym", Uuid, nullable=False, unique=True),
    Column("wrapped_key", LargeBinary),
    Column("epoch", SmallInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("erased_at", DateTime(timezone=True)),
)

_REFUSED = {
    "entry": "UPDATE OR DELETE OR TRUNCATE",
    "sequence": "UPDATE OR DELETE OR TRUNCATE",
    "checkpoint": "UPDATE OR DELETE OR TRUNCATE",
    "pending": "UPDATE OR TRUNCATE",
    "writer": "INSERT OR DELETE OR TRUNCATE",
    "tree": "INSERT OR DELETE OR TRUNCATE",
}
_GRANTED = {
    "entry": "SELECT, INSERT",
    "sequence": "SELECT, INSERT",
    "checkpoint": "SELECT, INSERT",
    "subject_key": "SELECT, INSERT",
    "pending": "SELECT, INSERT, DELETE",
    "writer": "SELECT, UPDATE",
    "tree": "SELECT, UPDATE",
}


def first_rows() -> list[str]:
    """Return the SQL that fills the tables whose rows are only ever updated; to run before :func:`protection_ddl`."""
    return [
        f"""
        INSERT INTO audit.writer (slot, counter, last_leaf)
        SELECT slot, 0, decode(repeat('00', 32), 'hex') FROM generate_series(0, {WRITER_SLOTS - 1}) AS slot
        """,  # noqa: S608 — a constant of ours
        "INSERT INTO audit.tree (size, frontier, checkpoints) VALUES (0, decode('', 'hex'), 0)",
    ]


def protection_ddl(app_role: str) -> list[str]:
    """Return the SQL that makes the log append-only, for the tables' owner as well, and grants ``app_role`` its use.

    Statement triggers refuse what the log never does; only a superuser passes. The role must exist.
    """
    role = '"' + app_role.replace('"', '""') + '"'
    statements = [
        """
        CREATE OR REPLACE FUNCTION audit.refuse() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolsuper) THEN
                RAISE insufficient_privilege
                    USING MESSAGE = TG_OP || ' refused on ' || TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME
                        || ' because the log is append-only';
            END IF;
            RETURN NULL;
        END
        $body$
        """
    ]
    statements += [
        f"CREATE OR REPLACE TRIGGER append_only BEFORE {events} ON audit.{table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse()"
        for table, events in _REFUSED.items()
    ]
    statements.append(f"GRANT USAGE ON SCHEMA audit TO {role}")
    statements += [f"GRANT {rights} ON audit.{table} TO {role}" for table, rights in _GRANTED.items()]
    return statements
