"""Migrations of the three schemas ``audit``, ``consent`` and ``siis``, and of the job library's schema ``jobs``."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, pool

import audit.tables
import consent.tables
from gateway.database import sqlalchemy_url
from gateway.embedded import APPLICATION

VERSION_TABLE = "alembic_version"
VERSION_SCHEMA = "siis"


def config() -> Config:
    """Return Alembic's configuration for the scripts beside this module."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    return made


def upgrade(url: str, revision: str = "head") -> None:
    """Bring a database (libpq address of the owner role) to a revision."""
    engine = create_engine(sqlalchemy_url(url), poolclass=pool.NullPool)
    with engine.begin() as connection:
        # Two processes may start at once: the second waits here and finds nothing left to do.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(5110)")
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, revision)
        if revision == "head":
            _protect(connection)


def _protect(connection: Connection) -> None:
    """Apply functions and notifications, then triggers and grants where the application has a role of its own."""
    for statement in [*audit.tables.functions_ddl(), *consent.tables.notify_ddl()]:
        connection.exec_driver_sql(statement)
    if connection.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname = 'siis_app'").scalar() is None:
        return
    statements = [
        *audit.tables.protection_ddl(APPLICATION),
        *consent.tables.grants_ddl(APPLICATION),
        f"GRANT USAGE ON SCHEMA siis, jobs TO {APPLICATION}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA siis, jobs TO {APPLICATION}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA siis, jobs TO {APPLICATION}",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA jobs TO {APPLICATION}",
        # What happened to a referral is told once; what is known of a person is added to, never rewritten.
        f"REVOKE UPDATE, DELETE ON siis.referral_event, siis.fact, siis.observation, siis.form, siis.idempotency, "
        f"siis.govstack_revision, siis.govstack_agreement, siis.catalogue_revision FROM {APPLICATION}",
        f"REVOKE DELETE ON siis.rights_request, siis.rights_part, siis.breach, siis.breach_person FROM {APPLICATION}",
        f"REVOKE UPDATE, DELETE ON siis.notice, siis.case_note, siis.guidance_message FROM {APPLICATION}",
        f"REVOKE UPDATE, DELETE ON siis.status_past, siis.status_run, siis.achievement FROM {APPLICATION}",
        f"REVOKE UPDATE, DELETE ON siis.statistics_snapshot, siis.person_merge FROM {APPLICATION}",
        f"REVOKE DELETE ON siis.status FROM {APPLICATION}",
        f"REVOKE DELETE ON siis.board, siis.board_member, siis.case_file, siis.case_task, siis.case_barrier, "
        f"siis.link FROM {APPLICATION}",
        f"GRANT UPDATE (seen_at) ON siis.notice TO {APPLICATION}",
    ]
    for statement in statements:
        connection.exec_driver_sql(statement)


def head() -> str:
    """Return the newest revision this code knows."""
    found = ScriptDirectory.from_config(config()).get_current_head()
    if found is None:
        raise LookupError("no migrations")
    return found


def known(revision: str | None) -> bool:
    """Say whether a database's revision is at least the newest this code knows: its own, or one it has never heard of.

    A revision unknown here was made by a newer release; migrations are written so that the previous release runs on.
    """
    if revision is None:
        return False
    scripts = ScriptDirectory.from_config(config())
    older = {script.revision for script in scripts.walk_revisions()} - {head()}
    return revision not in older


def current(connection: Connection) -> str | None:
    """Return the revision a database is at, or None."""
    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE, "version_table_schema": VERSION_SCHEMA}
    )
    return context.get_current_revision()
