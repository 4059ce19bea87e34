"""tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for schema in ("audit", "consent", "jobs"):
        op.execute(f"CREATE SCHEMA {schema}")
    op.create_table(
        "checkpoint",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("size"),
        sa.UniqueConstraint("number"),
        schema="audit",
    )
    op.create_table(
        "entry",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("detail", sa.LargeBinary(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("pseudonym", sa.Uuid(), nullable=True),
        sa.Column("writer_slot", sa.Integer(), nullable=False),
        sa.Column("writer_counter", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema="audit",
    )
    op.create_index("entry_at", "entry", ["at"], unique=False, schema="audit", postgresql_using="brin")
    op.create_index(
        "entry_pseudonym",
        "entry",
        ["pseudonym", "id"],
        unique=False,
        schema="audit",
        postgresql_where=sa.text("pseudonym IS NOT NULL"),
    )
    op.create_index("entry_type", "entry", ["type", "id"], unique=False, schema="audit")
    op.create_table(
        "pending", sa.Column("entry_id", sa.Uuid(), nullable=False), sa.PrimaryKeyConstraint("entry_id"), schema="audit"
    )
    op.create_table(
        "sequence",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("index"),
        sa.UniqueConstraint("entry_id"),
        schema="audit",
    )
    op.create_table(
        "subject_key",
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("pseudonym", sa.Uuid(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=True),
        sa.Column("epoch", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("subject"),
        sa.UniqueConstraint("pseudonym"),
        schema="audit",
    )
    op.create_table(
        "tree",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("checkpoints", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("size"),
        schema="audit",
    )
    op.create_index("tree_one_row", "tree", [sa.literal_column("(true)")], unique=True, schema="audit")
    op.create_table(
        "writer",
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("last_leaf", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("slot"),
        schema="audit",
        postgresql_with={"fillfactor": "20"},
    )
    op.create_table(
        "agreement",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("document", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('draft', 'proposed', 'active', 'suspended', 'expired')", name=op.f("ck_agreement_status")
        ),
        sa.CheckConstraint("valid_to > valid_from", name=op.f("ck_agreement_validity")),
        sa.CheckConstraint("version > 0", name=op.f("ck_agreement_version")),
        sa.PrimaryKeyConstraint("code", "version", name=op.f("pk_agreement")),
        schema="consent",
    )
    op.create_table(
        "consent_record",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("agreement", sa.Text(), nullable=False),
        sa.Column("purposes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("fields", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("text_version", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("proof_reference", sa.Text(), nullable=False),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'withdrawn') = (withdrawn_at IS NOT NULL)", name=op.f("ck_consent_record_withdrawal")
        ),
        sa.CheckConstraint(
            "state IN ('given', 'withdrawn', 'refused', 'expired')", name=op.f("ck_consent_record_state")
        ),
        sa.CheckConstraint("expires_at > given_at", name=op.f("ck_consent_record_expiry")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent_record")),
        schema="consent",
    )
    op.create_index(
        "ix_consent_record_subject",
        "consent_record",
        ["subject", "agreement", "given_at"],
        unique=False,
        schema="consent",
    )
    op.create_table(
        "institution_state",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_institution_state")),
        schema="consent",
    )
    op.create_table(
        "objection",
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("subject", "purpose", name=op.f("pk_objection")),
        schema="consent",
    )
    op.create_table(
        "protective_flag",
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("subject", "kind", name=op.f("pk_protective_flag")),
        schema="consent",
    )
    op.create_table(
        "assertion_jti",
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("jti", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("client_id", "jti"),
        schema="siis",
    )
    op.create_index("assertion_jti_expires_at", "assertion_jti", ["expires_at"], unique=False, schema="siis")
    op.create_table(
        "data_key",
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("purpose", "id"),
        schema="siis",
    )
    op.create_table(
        "household",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("department", sa.Text(), nullable=True),
        sa.Column("district", sa.Text(), nullable=True),
        sa.Column("attributes", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_table(
        "idempotency",
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="ids and receipts only"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("client_id", "key"),
        schema="siis",
    )
    op.create_table(
        "institution",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("names", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("code"),
        schema="siis",
    )
    op.create_table(
        "intake_reject",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("adapter", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False, comment="the page it came with"),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("column", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_table(
        "poll_cursor",
        sa.Column("adapter", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("adapter"),
        schema="siis",
    )
    op.create_table(
        "population",
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("persons", sa.Integer(), nullable=False),
        sa.Column("loaded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("seed"),
        schema="siis",
    )
    op.create_table(
        "revoked_token",
        sa.Column("jti", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("jti"),
        schema="siis",
    )
    op.create_table(
        "client",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("assurance", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["institution"],
            ["siis.institution.code"],
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_table(
        "person",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("household_id", sa.Uuid(), nullable=True),
        sa.Column("names", sa.LargeBinary(), nullable=False),
        sa.Column("birth_date", sa.Date(), nullable=True),
        sa.Column("sex", sa.Text(), nullable=True),
        sa.Column("department", sa.Text(), nullable=True),
        sa.Column("district", sa.Text(), nullable=True),
        sa.Column("deceased_on", sa.Date(), nullable=True),
        sa.Column("guardian_id", sa.Uuid(), nullable=True),
        sa.Column("attributes", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["household_id"],
            ["siis.household.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index(op.f("ix_siis_person_household_id"), "person", ["household_id"], unique=False, schema="siis")
    op.create_table(
        "service",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("institution", sa.Text(), nullable=False),
        sa.Column("document", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("active", sa.Boolean(), server_default="true", nullable=False),
        sa.ForeignKeyConstraint(
            ["institution"],
            ["siis.institution.code"],
        ),
        sa.PrimaryKeyConstraint("code"),
        schema="siis",
    )
    op.create_table(
        "client_key",
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("kid", sa.Text(), nullable=False),
        sa.Column("jwk", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["siis.client.id"],
        ),
        sa.PrimaryKeyConstraint("client_id", "kid"),
        schema="siis",
    )
    op.create_table(
        "fact",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=True),
        sa.Column("household_id", sa.Uuid(), nullable=True),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("protected", sa.Boolean(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("instrument", sa.Text(), nullable=False),
        sa.Column("observed_on", sa.Date(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("referral_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint("(person_id IS NULL) <> (household_id IS NULL)", name="fact_has_one_unit"),
        sa.ForeignKeyConstraint(
            ["household_id"],
            ["siis.household.id"],
        ),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["siis.person.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index("fact_household", "fact", ["household_id", "service"], unique=False, schema="siis")
    op.create_index("fact_person", "fact", ["person_id", "service"], unique=False, schema="siis")
    op.create_table(
        "person_identifier",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("system", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("blind_index", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["siis.person.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("system", "blind_index"),
        schema="siis",
    )
    op.create_index(
        op.f("ix_siis_person_identifier_person_id"), "person_identifier", ["person_id"], unique=False, schema="siis"
    )
    op.create_table(
        "referral",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("basis", sa.Text(), nullable=False),
        sa.Column("agreement", sa.Text(), nullable=True),
        sa.Column(
            "caller",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="role, assurance and channel the request was decided with",
        ),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("texts", sa.LargeBinary(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("delivery", sa.Text(), nullable=False, comment="pending, transmitted, withheld, rejected, dead"),
        sa.Column("delivery_reason", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("recipient_reference", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("foreign_system", sa.Text(), nullable=True),
        sa.Column("foreign_value", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["siis.person.id"],
        ),
        sa.ForeignKeyConstraint(
            ["service"],
            ["siis.service.code"],
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="siis",
    )
    op.create_index(op.f("ix_siis_referral_person_id"), "referral", ["person_id"], unique=False, schema="siis")
    op.create_index(
        "referral_foreign", "referral", ["requester", "foreign_system", "foreign_value"], unique=True, schema="siis"
    )
    op.create_index("referral_recipient", "referral", ["recipient", "delivery"], unique=False, schema="siis")
    op.create_table(
        "referral_event",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("referral_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("occurred_on", sa.Date(), nullable=True),
        sa.Column("state_before", sa.Text(), nullable=False),
        sa.Column("state_after", sa.Text(), nullable=False),
        sa.Column("synthesised", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column(
            "facts",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="codes only, nothing personal",
        ),
        sa.Column("texts", sa.LargeBinary(), nullable=True),
        sa.Column("entry_id", sa.Uuid(), nullable=True, comment="the entry of the audit log that tells of this event"),
        sa.ForeignKeyConstraint(
            ["referral_id"],
            ["siis.referral.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("referral_id", "number"),
        schema="siis",
    )
    op.create_index(
        "referral_event_message", "referral_event", ["referral_id", "actor", "message_id"], unique=True, schema="siis"
    )
    slots = ", ".join(f"({slot}, 0, decode(repeat('00', 32), 'hex'))" for slot in range(16))
    op.execute(f"INSERT INTO audit.writer (slot, counter, last_leaf) VALUES {slots}")
    op.execute("INSERT INTO audit.tree (size, frontier, checkpoints) VALUES (0, decode('', 'hex'), 0)")
    op.execute("SET LOCAL search_path TO jobs")
    # The job library's tables as the pinned version ships them; a later version comes with a revision of its own.
    op.get_bind().connection.cursor().execute(SchemaManager.get_schema())
    # Every fetch asks whether an earlier job waits with the same lock; without this index it reads the whole queue.
    op.execute(
        "CREATE INDEX siis_jobs_lock_waiting ON jobs.procrastinate_jobs (lock) WHERE status IN ('todo', 'doing')"
    )
    op.execute("SET LOCAL search_path TO DEFAULT")


def downgrade() -> None:
    raise RuntimeError("a database is not taken back: restore a backup or write a new revision")
