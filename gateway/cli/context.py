"""What commands open: the settings, and the database with its keys and log, without the rest of the runtime."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from audit.keys import Epochs
from audit.service import AuditLog
from consent.policy import PolicyStore
from gateway.database import Database, application_url
from gateway.governance.service import Governance
from gateway.settings import Settings, load_settings
from gateway.vault import Vault, load_epochs, load_kek, open_vault


@dataclass(frozen=True, slots=True)
class Context:
    """An open database with what writing to it needs."""

    settings: Settings
    database: Database
    vault: Vault
    audit: AuditLog
    epochs: Epochs


def calm_collector() -> None:
    """Leave what was made at the start out of the collector's rounds, and make them rare (docs/performance.md)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


@asynccontextmanager
async def open_context(settings: Settings | None = None) -> AsyncIterator[Context]:
    """Open the database of the settings in force."""
    chosen = settings or load_settings()
    kek = load_kek(chosen.keys_dir, create=chosen.embedded)
    epochs = load_epochs(chosen.keys_dir, create=chosen.embedded)
    async with AsyncExitStack() as stack:
        database = Database(application_url(chosen), pool_size=4)
        stack.push_async_callback(database.close)
        async with database.transaction() as connection:
            vault = await open_vault(connection, kek)
        audit = AuditLog(database.engine, epochs, chosen.recorder)
        stack.push_async_callback(audit.close)
        await audit.start()
        yield Context(chosen, database, vault, audit, epochs)


def governance_of(context: Context) -> Governance:
    """Return the one way to change what decisions rest on, for a command (``Governance.change_here``)."""
    policies = PolicyStore(context.database.engine)
    return Governance(database=context.database, audit=context.audit, policies=policies)
