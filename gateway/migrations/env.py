"""Alembic's environment: runs migrations on the connection handed over, or writes new ones from the tables."""

from __future__ import annotations

from alembic import context

import audit.tables
import consent.tables
import gateway.boards.tables
import gateway.catalogue.tables
import gateway.commands
import gateway.delivery.tables
import gateway.events.tables
import gateway.governance.tables
import gateway.guidance.tables
import gateway.identity.issuer_tables
import gateway.identity.tables
import gateway.intake.tables
import gateway.links.tables
import gateway.producers.tables
import gateway.referrals.outbox_tables
import gateway.referrals.tables
import gateway.registry.status_tables
import gateway.registry.tables
import gateway.rights.tables
import gateway.standards.govstack.tables
import gateway.statistics.tables
import gateway.subscriptions.tables
import gateway.vault  # noqa: F401
from gateway.database import metadata
from gateway.migrations import VERSION_SCHEMA, VERSION_TABLE

SCHEMAS = frozenset({"audit", "consent", "siis"})


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    return name in SCHEMAS if kind == "schema" else True


connection = context.config.attributes["connection"]
connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {VERSION_SCHEMA}")
context.configure(
    connection=connection,
    target_metadata=[audit.tables.metadata, consent.tables.metadata, metadata],
    include_schemas=True,
    include_name=_ours,
    version_table=VERSION_TABLE,
    version_table_schema=VERSION_SCHEMA,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
