"""Where the consent room keeps its data: schema ``consent``, and the SQL that makes changes known and guards them."""

from __future__ import annotations

import re

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
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
    Column("created_by", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("status IN ('draft', 'proposed', 'signed', 'active', 'suspended', 'expired')", name="status"),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("valid_to > valid_from", name="validity"),
)

# A signature is on a text: it counts for every version of the code that has the same text and validity.
agreement_signature = Table(
    "agreement_signature",
    metadata,
    Column("code", Text, primary_key=True),
    Column("text_sha256", LargeBinary, primary_key=True),
    Column("party", Text, primary_key=True),
    Column("signatory", Text, nullable=False, comment="a user of the party"),
    Column("proof_reference", Text, nullable=False),
    Column("signed_at", DateTime(timezone=True), nullable=False),
)

# Counted in memory by every instance and added here each second (consent/volume.py).
agreement_use = Table(
    "agreement_use",
    metadata,
    Column("code", Text, primary_key=True),
    Column("day", Date, primary_key=True, comment="in Paraguay"),
    Column("count", BigInteger, nullable=False),
)

# Who holds a role that nobody can claim; "user" is client:ID where a system holds it.
role_assignment = Table(
    "role_assignment",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("institution", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("granted_by", Text, nullable=False),
    Column("granted_at", DateTime(timezone=True), nullable=False),
    Column("valid_to", DateTime(timezone=True)),
    Column("revoked_by", Text),
    Column("revoked_at", DateTime(timezone=True)),
    CheckConstraint("valid_to > granted_at", name="validity"),
    CheckConstraint("(revoked_at IS NULL) = (revoked_by IS NULL)", name="revocation"),
    Index(
        "ix_role_assignment_held",
        "institution",
        "user",
        "role",
        unique=True,
        postgresql_where=text("revoked_at IS NULL"),
    ),
)

# Which roles of an institution hold a compartment of sensitive fields.
compartment_grant = Table(
    "compartment_grant",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("institution", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("compartment", Text, nullable=False),
    Column("granted_by", Text, nullable=False),
    Column("granted_at", DateTime(timezone=True), nullable=False),
    Column("revoked_by", Text),
    Column("revoked_at", DateTime(timezone=True)),
    CheckConstraint("(revoked_at IS NULL) = (revoked_by IS NULL)", name="revocation"),
    Index(
        "ix_compartment_grant_held",
        "institution",
        "role",
        "compartment",
        unique=True,
        postgresql_where=text("revoked_at IS NULL"),
    ),
)

institution_state = Table(
    "institution_state",
    metadata,
    Column("code", Text, primary_key=True),
    Column("suspended_at", DateTime(timezone=True)),
    Column("reason", Text),
)

# What a person is asked to agree to, word by word; a published version never changes (Ley 7593/2025 art. 6).
consent_text = Table(
    "consent_text",
    metadata,
    Column("agreement", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("language", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("text_sha256", LargeBinary, nullable=False),
    Column("published_at", DateTime(timezone=True), nullable=False),
)

consent_record = Table(
    "consent_record",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("subject", Uuid, nullable=False),
    Column("agreement", Text, nullable=False),
    Column("agreement_version", Integer),
    Column("scope_sha256", LargeBinary, comment="of what the agreement asked for when it was given"),
    Column("purposes", ARRAY(Text), nullable=False),
    Column("fields", ARRAY(Text), nullable=False),
    Column("labels", ARRAY(Text), nullable=False, server_default="{}", comment="sensitive classes expressly named"),
    Column("state", Text, nullable=False),
    Column("text_version", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("proof_reference", Text, nullable=False),
    Column("representation", Uuid, comment="by which somebody else gave it; null: the person"),
    Column("recorded_by", Text),
    Column("given_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("withdrawn_at", DateTime(timezone=True)),
    Column("end_reason", Text, comment="code"),
    CheckConstraint(
        "state IN ('requested', 'given', 'refused', 'withdrawn', 'revoked', 'invalidated', 'expired')", name="state"
    ),
    CheckConstraint(
        "(state IN ('withdrawn', 'revoked', 'invalidated')) = (withdrawn_at IS NOT NULL)", name="withdrawal"
    ),
    CheckConstraint("expires_at > given_at", name="expiry"),
    Index("ix_consent_record_subject", "subject", "agreement", "given_at"),
)

# Who may act for a person: a guardian until majority, a curator, somebody holding a power of attorney.
representation = Table(
    "representation",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("subject", Uuid, nullable=False),
    Column("representative", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("proof_reference", Text, nullable=False),
    Column("recorded_by", Text, nullable=False),
    Column("valid_from", DateTime(timezone=True), nullable=False),
    Column("valid_to", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    Column("end_reason", Text, comment="code: ended, conflict-of-interest, court-order"),
    CheckConstraint("kind IN ('parent', 'guardian', 'curator', 'proxy')", name="kind"),
    CheckConstraint("valid_to > valid_from", name="validity"),
    CheckConstraint("subject <> representative", name="another"),
    CheckConstraint("(ended_at IS NULL) = (end_reason IS NULL)", name="end"),
    Index("ix_representation_subject", "subject"),
    Index("ix_representation_representative", "representative"),
)

# What nobody overrides. target: for an aggressor the barred person's id or institution's code, else empty.
protective_flag = Table(
    "protective_flag",
    metadata,
    Column("subject", Uuid, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("target", Text, primary_key=True, server_default=""),
    # Each institution keeps its own, so that none lifts what another set.
    Column("set_by", Text, primary_key=True, server_default="", comment="institution; empty: who runs the gateway"),
    Column("reference", Text, comment="the act that orders it"),
    Column("since", DateTime(timezone=True), nullable=False),
    CheckConstraint("kind IN ('sealed', 'aggressor', 'court-order', 'export-ban')", name="kind"),
    CheckConstraint("(kind = 'aggressor') = (target <> '')", name="target"),
)

objection = Table(
    "objection",
    metadata,
    Column("subject", Uuid, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("since", DateTime(timezone=True), nullable=False),
)

# Whose data stay as they are and are told to nobody until a day (in place of a deletion): all of it, or what one
# institution holds, or one dataset of theirs.
restriction = Table(
    "restriction",
    metadata,
    Column("subject", Uuid, primary_key=True),
    Column("holder", Text, primary_key=True, server_default="", comment="whose data; empty: everybody's"),
    Column("dataset", Text, primary_key=True, server_default="", comment="empty: all"),
    Column("norm", Text, nullable=False),
    Column("reference", Text, nullable=False, comment="the order, or the request that it answers"),
    Column("since", DateTime(timezone=True), nullable=False),
    Column("until", Date, nullable=False, comment="last day, in Paraguay"),
    Index("ix_restriction_until", "until"),
)

# One emergency access: one user, one person, one dataset, one incident, a day at most; reviewed by somebody else.
break_glass = Table(
    "break_glass",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("institution", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("subject", Uuid, nullable=False),
    Column("holder", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("fields", ARRAY(Text), nullable=False),
    Column("reason", Text, nullable=False, comment="code"),
    Column("incident", Text, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("noticed_at", DateTime(timezone=True), comment="when the officer was told"),
    Column("verdict", Text),
    Column("reviewed_by", Text),
    Column("reviewed_at", DateTime(timezone=True)),
    CheckConstraint("verdict IN ('justified', 'not-justified')", name="verdict"),
    CheckConstraint("(verdict IS NULL) = (reviewed_at IS NULL)", name="review"),
    CheckConstraint("expires_at <= opened_at + interval '24 hours'", name="day"),
    UniqueConstraint("institution", "user", "subject", "dataset", "incident"),
    Index("ix_break_glass_subject", "subject"),
    Index("ix_break_glass_unreviewed", "institution", "opened_at", postgresql_where=text("reviewed_at IS NULL")),
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
    """Return the SQL that announces committed changes: ``consent_policy`` without payload for agreements,
    institutions, roles and emergencies, ``consent_subject`` with the subject's id for consents, representatives,
    protective flags, objections and restrictions.
    """
    policy = [
        f"CREATE OR REPLACE TRIGGER notify_policy AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON consent.{table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION consent.notify_policy()"
        for table in (
            agreement.name,
            institution_state.name,
            role_assignment.name,
            compartment_grant.name,
            break_glass.name,
        )
    ]
    subject = [
        f"CREATE OR REPLACE TRIGGER notify_subject AFTER INSERT OR UPDATE OR DELETE ON consent.{table} "
        "FOR EACH ROW EXECUTE FUNCTION consent.notify_subject()"
        for table in (consent_record.name, representation.name, protective_flag.name, objection.name, restriction.name)
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
        f"GRANT SELECT, INSERT ON consent.agreement, consent.agreement_signature, consent.consent_text TO {app_role}",
        f"GRANT SELECT, INSERT, UPDATE ON consent.institution_state, consent.agreement_use TO {app_role}",
        f"GRANT SELECT, INSERT, UPDATE (revoked_by, revoked_at) ON consent.role_assignment TO {app_role}",
        f"GRANT SELECT, INSERT, UPDATE (revoked_by, revoked_at) ON consent.compartment_grant TO {app_role}",
        f"GRANT SELECT, INSERT, UPDATE (state, withdrawn_at, end_reason) ON consent.consent_record TO {app_role}",
        f"GRANT SELECT, INSERT, UPDATE (ended_at, end_reason) ON consent.representation TO {app_role}",
        f"GRANT SELECT, INSERT, UPDATE (fields, noticed_at, verdict, reviewed_by, reviewed_at) ON consent.break_glass "
        f"TO {app_role}",
        f"GRANT SELECT, INSERT, DELETE ON consent.protective_flag, consent.objection TO {app_role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON consent.restriction TO {app_role}",
    ]
