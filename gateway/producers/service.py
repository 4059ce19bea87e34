"""Opens the adapters of a deployment, and writes down what each process sees of their health."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.base import ProducerAdapter
from adapters.models import Adapter, Health
from adapters.registry import SHIPPED, Adapters, load_adapters
from adapters.resilience import NOT_ASKED
from gateway.database import Database
from gateway.producers.tables import producer_health
from gateway.settings import Settings

_log = structlog.get_logger(__name__)
_INTERVAL_S = 1.0
# What has not changed is written again, so that what a process that is gone had seen can be told from it.
_REPEAT_S = 60.0
_LIVE = text("now() - interval '5 minutes'")


def open_adapters(settings: Settings, held: Callable[[ProducerAdapter], Adapter] | None = None) -> Adapters:
    """Read the shipped manifests and the deployment's own, and connect those that have a connection.

    ``held`` makes what answers for an adapter's registers once they are taken.

    Raises :class:`~adapters.errors.ManifestError` for the first thing wrong in one, or in the connections.
    """
    folders = [SHIPPED] if settings.manifests is None else [SHIPPED, settings.manifests]
    return load_adapters(folders, settings.connections_file, settings.producer_secrets_dir, held=held)


class HealthKeeper:
    """Writes every change of a producer's health that this process sees."""

    def __init__(self, database: Database, adapters: Adapters) -> None:
        self._database, self._adapters = database, adapters
        self._process = f"{socket.gethostname()}:{os.getpid()}"
        self._written: dict[str, Health] = {}
        self._repeated_at = time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Write changes, each within a second, until ``stop`` is set; a database that is away is tried again."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _INTERVAL_S)
            try:
                await self._write()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("producers.health_not_written", error=type(error).__name__)

    async def _write(self) -> None:
        seen = {
            adapter.name: adapter.health
            for adapter in self._adapters
            if adapter.connected and adapter.health.reason != NOT_ASKED
        }
        if time.monotonic() - self._repeated_at > _REPEAT_S:
            self._written, self._repeated_at = {}, time.monotonic()
        changed = {name: health for name, health in seen.items() if self._written.get(name) != health}
        if not changed:
            return
        async with self._database.transaction() as connection:
            await connection.execute(delete(producer_health).where(producer_health.c.seen_at < _LIVE))
            for name, health in changed.items():
                values = {"ok": health.ok, "reason": health.reason, "since": health.since, "seen_at": func.now()}
                statement = insert(producer_health).values(adapter=name, process=self._process, **values)
                key = [producer_health.c.adapter, producer_health.c.process]
                await connection.execute(statement.on_conflict_do_update(index_elements=key, set_=values))
        self._written |= changed


async def last_seen(connection: AsyncConnection) -> dict[str, Health]:
    """Return what was last seen of each adapter by the processes that are alive: the newest change among them."""
    newest = (
        select(producer_health)
        .ext(distinct_on(producer_health.c.adapter))
        .where(producer_health.c.seen_at >= _LIVE)
        .order_by(producer_health.c.adapter, producer_health.c.since.desc())
    )
    rows = (await connection.execute(newest)).mappings()
    return {row["adapter"]: Health(row["ok"], row["since"], row["reason"]) for row in rows}


def describe(adapters: Iterable[Adapter], seen: dict[str, Health]) -> list[dict[str, Any]]:
    """Tell of each adapter what it is, what it makes sure of, and how it was last seen; nothing secret, no address."""
    return [
        {
            "name": adapter.name,
            "institution": adapter.institution,
            "kind": adapter.kind,
            "datasets": sorted(adapter.datasets),
            "registers": sorted(adapter.registers),
            "services": sorted(adapter.services),
            "polls": adapter.polls,
            "deduplicates": adapter.deduplicates,
            "connected": adapter.connected,
            "health": _health(adapter, seen.get(adapter.name)),
            "guarantees": list(adapter.guarantees.sure),
            "unchecked": list(adapter.guarantees.unchecked),
        }
        for adapter in adapters
    ]


def _health(adapter: Adapter, seen: Health | None) -> dict[str, Any]:
    if not adapter.connected:
        return {"ok": None, "reason": "not connected", "since": None}
    if seen is None:
        return {"ok": None, "reason": NOT_ASKED, "since": None}
    return {"ok": seen.ok, "reason": seen.reason, "since": seen.since.isoformat()}
