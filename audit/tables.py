"""The tables of the log, and the grants and triggers that keep everybody but a database superuser from rewriting it.

Triggers and grants are hygiene; the evidence is in the hashes, which hold against the superuser too. ``log`` is the
year of a log: each year has a tree of its own, whose entry 0 holds the last checkpoint of the year before.
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
from sqlalchemy.dialects.postgresql import ARRAY

WRITER_SLOTS = 16
# One more slot for the process that numbers: what it writes comes first in a log, whatever else waits.
INTEGRATOR_SLOT = WRITER_SLOTS

metadata = MetaData(schema="audit")

# type, outcome, at, pseudonym and the writer columns repeat what the envelope says, for search; terms are codes that an
# entry can be found by (audit.terms), whose hash the envelope holds. A check of the log holds all of them to it.
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
    Column("terms", ARRAY(Text), nullable=False, server_default=text("'{}'")),
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
    Column("log", SmallInteger, primary_key=True, autoincrement=False),
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
    Column("log", SmallInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("checkpoints", BigInteger, nullable=False),
)

# The hashes of the tree as others read them (C2SP tlog-tiles): up to 256 of a level, the last tile of a level growing.
tile = Table(
    "tile",
    metadata,
    Column("log", SmallInteger, primary_key=True, autoincrement=False),
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

# What occurs among 256 numbered entries, so that a search reads few of them; no row for the block that still grows.
block = Table(
    "block",
    metadata,
    Column("log", SmallInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("first_at", DateTime(timezone=True), nullable=False),
    Column("last_at", DateTime(timezone=True), nullable=False),
    Column("terms", ARRAY(Text), nullable=False),
    Index("block_terms", "terms", postgresql_using="gin"),
)

# number counts from 0, so that a removed checkpoint shows; at is the time of the newest entry it covers, which can be
# checked; frontier lets the next signer prove that this one is a prefix without reading the whole log.
checkpoint = Table(
    "checkpoint",
    metadata,
    Column("log", SmallInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Index("checkpoint_number", "log", "number", unique=True),
)

# What witnesses said of a checkpoint: the line of its note (C2SP tlog-cosignature), the newest of each witness.
cosignature = Table(
    "cosignature",
    metadata,
    Column("log", SmallInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("witness", Text, primary_key=True),
    Column("line", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

# Time stamps of checkpoints (RFC 3161): the authority's whole answer.
time_stamp = Table(
    "time_stamp",
    metadata,
    Column("log", SmallInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("response", LargeBinary, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

# Entries below minimum were pruned when their term was over; chains is where each writer stood then (canonical JSON,
# slot: [counter, leaf hash in base64]), for what comes after.
pruned = Table(
    "pruned",
    metadata,
    Column("log", SmallInteger, primary_key=True, autoincrement=False),
    Column("minimum", BigInteger, nullable=False),
    Column("chains", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

# For a program that witnesses other logs: the newest checkpoint it has cosigned of each (C2SP tlog-witness).
witnessed = Table(
    "witnessed",
    metadata,
    Column("origin", Text, primary_key=True),
    Column("verifier_key", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# subject is the internal id of a person, or the nil UUID for the log's own key; wrapped_key is sealed under the key of
# epoch, and NULL once erased.
subject_key = Table(
    "subject_key",
    metadata,
    Column("subject", Uuid, primary_key=True),
    Column("pseudonym", Uuid, nullable=False, unique=True),
    Column("wrapped_key", LargeBinary),
    Column("epoch", SmallInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("erased_at", DateTime(timezone=True)),
    Index("subject_key_epoch", "epoch", postgresql_where=text("wrapped_key IS NOT NULL")),
    Index("subject_key_erased", "erased_at", postgresql_where=text("erased_at IS NOT NULL")),
)

# The epochs of the keys that wrap data keys. New ones are wrapped under the newest only; destroyed_at says when the
# file of an epoch's key was destroyed, after which no backup of this database opens what it wrapped.
epoch = Table(
    "epoch",
    metadata,
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("destroyed_at", DateTime(timezone=True)),
)

#: Where is announced that a data key was destroyed, or that there is a new epoch.
KEY_CHANNEL = "audit_keys"

_REFUSED = {
    "entry": "UPDATE OR TRUNCATE",
    "sequence": "UPDATE OR TRUNCATE",
    "checkpoint": "UPDATE OR DELETE OR TRUNCATE",
    "pending": "UPDATE OR TRUNCATE",
    "writer": "INSERT OR DELETE OR TRUNCATE",
    "tree": "DELETE OR TRUNCATE",
    "tile": "DELETE OR TRUNCATE",
    "block": "UPDATE OR TRUNCATE",
    "time_stamp": "UPDATE OR DELETE OR TRUNCATE",
    "witnessed": "DELETE OR TRUNCATE",
}
# What the owner may take away: rows below the number to which audit.pruned says that the log was pruned. This is no
# weaker than refusing: what is missing above that number is found by its hashes, and pruning has an entry of its own.
_PRUNABLE = {
    "entry": """
        SELECT FROM audit.sequence AS s JOIN audit.pruned AS p ON p.log = s.log AND s.index < p.minimum
        WHERE s.entry_id = gone.id
    """,
    "sequence": "SELECT FROM audit.pruned AS p WHERE p.log = gone.log AND gone.index < p.minimum",
    "block": "SELECT FROM audit.pruned AS p WHERE p.log = gone.log AND gone.number < p.minimum / 256",
}
_GRANTED = {
    "entry": "SELECT, INSERT",
    "sequence": "SELECT, INSERT",
    "checkpoint": "SELECT, INSERT",
    "subject_key": "SELECT, INSERT",
    "pending": "SELECT, INSERT, DELETE",
    "writer": "SELECT, UPDATE",
    "tree": "SELECT, INSERT, UPDATE",
    "tile": "SELECT, INSERT, UPDATE",
    "block": "SELECT, INSERT",
    "cosignature": "SELECT, INSERT, UPDATE",
    "time_stamp": "SELECT, INSERT",
    "pruned": "SELECT",
    "epoch": "SELECT",
    "witnessed": "SELECT, INSERT, UPDATE",
}


def first_rows() -> list[str]:
    """Return the SQL that fills the tables whose rows are only ever updated; to run before :func:`protection_ddl`."""
    return [
        f"""
        INSERT INTO audit.writer (slot, counter, last_leaf)
        SELECT slot, 0, decode(repeat('00', 32), 'hex') FROM generate_series(0, {INTEGRATOR_SLOT}) AS slot
        """,  # noqa: S608 — a constant of ours
        "INSERT INTO audit.epoch (number) VALUES (1)",
    ]


def functions_ddl() -> list[str]:
    """Return the SQL of ``audit.stage``: it writes an entry behind a writer's last one, in the caller's transaction.

    In the database because the hash needs the writer's row, which the caller would otherwise have to fetch first.
    """
    slot = f"""
            FROM audit.writer WHERE slot < {WRITER_SLOTS}
            ORDER BY mod(slot + pg_catalog.pg_backend_pid(), {WRITER_SLOTS}) LIMIT 1 FOR UPDATE"""
    return [
        f"""
        CREATE OR REPLACE FUNCTION audit.stage(
            entry_id uuid, opening bytea, detail bytea, type text, outcome text, at timestamptz, pseudonym uuid,
            terms text[]
        ) RETURNS bytea LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
        DECLARE
            last audit.writer;
            envelope bytea;
            leaf bytea;
        BEGIN
            -- A connection prefers a slot of its own, so that one that stages twice finds the slot it holds already.
            SELECT * INTO last {slot} SKIP LOCKED;
            IF NOT FOUND THEN
                SELECT * INTO STRICT last {slot};
            END IF;
            envelope := opening || convert_to(concat(',"writer":{{"counter":', last.counter + 1,
                ',"previous":"', encode(last.last_leaf, 'base64'), '","slot":', last.slot, '}}}}'), 'UTF8');
            leaf := sha256('\\x00'::bytea || envelope);
            INSERT INTO audit.entry VALUES (entry_id, envelope, leaf, detail, type, outcome, at, pseudonym,
                last.slot, last.counter + 1, terms);
            INSERT INTO audit.pending VALUES (entry_id);
            UPDATE audit.writer SET counter = last.counter + 1, last_leaf = leaf WHERE slot = last.slot;
            RETURN leaf;
        END
        $body$
        """  # noqa: S608 — constants of ours
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
    for table, pruned in _PRUNABLE.items():
        statements += _only_pruned(table, pruned)
    statements.append(f"GRANT USAGE ON SCHEMA audit TO {role}")
    statements += [f"GRANT {rights} ON audit.{table} TO {role}" for table, rights in _GRANTED.items()]
    return statements


def _only_pruned(table: str, pruned: str) -> list[str]:
    """Return the SQL that refuses to delete rows of a table unless all of them were pruned."""
    return [
        f"""
        CREATE OR REPLACE FUNCTION audit.keep_{table}() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
        BEGIN
            IF EXISTS (SELECT FROM gone WHERE NOT EXISTS ({pruned}))
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolsuper)
            THEN
                RAISE insufficient_privilege
                    USING MESSAGE = 'DELETE refused on audit.{table} because the log is append-only';
            END IF;
            RETURN NULL;
        END
        $body$
        """,  # noqa: S608 — constants of ours
        f"CREATE OR REPLACE TRIGGER only_pruned AFTER DELETE ON audit.{table} REFERENCING OLD TABLE AS gone"
        f" FOR EACH STATEMENT EXECUTE FUNCTION audit.keep_{table}()",
    ]
