"""Where the consent room keeps its data: schema ``consent``, and the SQL that makes changes known and guards them."""

from __future__ import annotations

import re

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Integer, MetaData, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

POLICY_CHANNEL = "consent_policy"
SUBJECT_CHANNEL = "consent_subject"

metadata = MetaData(
    schema="consent",
    naming_convention={"pk": "pk_%(table_name)s", "ck": "ck_%(table_name)s_%(constraint_name)s", "ix": "ix_%(label)s"},
)

# One row per version and never changed: a new text, status or validity is a new version.
agreement = Table(
    "agreement",
    metadata,
    Column("code", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("document", JSONB, nullable=False),
    Column("status", Text, nullable=False),
    Column("valid_from", DateTime(timezone=True), nullable=False),
    Column("valid_to", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("status IN ('draft', 'proposed', 'active', 'suspended', 'expired')", name="status"),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("valid_to > valid_from", name="validity"),
)

institution_state = Table(
    "institution_state",
    metadata,
    Column("code", Text, primary_key=True),
    Column("suspended_at", DateTime(timezone=True)),
    Column("reason", Text),
)

consent_record = Table(
    "consent_record",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("subject", Uuid, nullable=False),
    Column("agreement", Text, nullable=False),
    Column("purposes", ARRAY(Text), nullable=False),
    Column("fields", ARRAY(Text), nullable=False),
    Column("state", Text, nullable=False),
    Column("text_version", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("proof_reference", Text, nullable=False),
    Column("given_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("withdrawn_at", DateTime(timezone=True)),
    CheckConstraint("state IN ('given', 'withdrawn', 'refused', 'expired')", name="state"),
    CheckConstraint("(state = 'withdrawn') = (withdrawn_at IS NOT NULL)", name="withdrawal"),
    CheckConstraint("expires_at > given_at", name="expiry"),
    Index("ix_consent_record_subject", "subject", "agreement", "given_at"),
)

protective_flag = Table(
    "protective_flag",
    metadata,
    Column("subject", Uuid, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("since", DateTime(timezone=True), nullable=False),
)

objection = Table(
    "objection",
    metadata,
    Column("subject", Uuid, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("since", DateTime(timezone=True), nullable=False),
)

_NOTIFY_FUNCTIONS = (
    f"""CREATE OR REPLACE FUNCTION consent.notify_policy() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('{POLICY_CHANNEL}', '');
    RETURN NULL;
END
$$""",
    f"""CREATE OR REPLACE FUNCTION consent.notify_subject() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('{SUBJECT_CHANNEL}', coalesce(NEW.subject, OLD.subject)::text);
    RETURN NULL;
END
$$""",
)
_ROLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")


def notify_ddl() -> list[str]:
    """Return the SQL that announces committed changes: ``consent_policy`` without payload for agreements and
    institutions, ``consent_subject`` with the subject's id for consents, protective flags and objections.
    """
    policy = [
        f"CREATE OR REPLACE TRIGGER notify_policy AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON consent.{table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION consent.notify_policy()"
        for table in (agreement.name, institution_state.name)
    ]
    subject = [
        f"CREATE OR REPLACE TRIGGER notify_subject AFTER INSERT OR UPDATE OR DELETE ON consent.{table} "
        "FOR EACH ROW EXECUTE FUNCTION consent.notify_subject()"
        for table in (consent_record.name, protective_flag.name, objection.name)
    ]
    return [*_NOTIFY_FUNCTIONS, *policy, *subject]


def grants_ddl(app_role: str) -> list[str]:
    """Return the SQL that lets the application role do its work and no more: versions of agreements and what was
    consented to cannot be rewritten. Raises :class:`ValueError` for a name that is not a plain lower-case identifier.
    """
    if not _ROLE_NAME.match(app_role):
        raise ValueError("role name must be a plain lower-case identifier")
    return [
        f"GRANT USAGE ON SCHEMA consent TO {app_role}",
        f"GRANT SELECT, INSERT ON consent.agreement TO {app_role}",
        f"GRANT SELECT, INSERT, UPDATE ON consent.institution_state TO {app_role}",
        f"GRANT SELECT, INSERT, UPDATE (state, withdrawn_at) ON consent.consent_record TO {app_role}",
        f"GRANT SELECT, INSERT, DELETE ON consent.protective_flag, consent.objection TO {app_role}",
    ]
