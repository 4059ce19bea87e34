"""How often agreements with a daily volume were used: counted in memory, added up in the database every second.

An instance may let through what others did in the same second beyond the volume; after that all of them refuse.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone

import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from consent import tables
from consent.errors import PolicyUnavailable
from consent.models import Decision
from consent.policy import PolicyStore

EVERY_S = 1.0
_PARAGUAY = timezone(timedelta(hours=-3))
_log = structlog.get_logger(__name__)


class Volume:
    """The uses of today, in Paraguay, of agreements that have a volume."""

    def __init__(self, engine: AsyncEngine, policies: PolicyStore, now: Callable[[], datetime]) -> None:
        """``now`` gives instants with their offset."""
        self._engine, self._policies, self._now = engine, policies, now
        self._day = self._today()
        self._known: dict[str, int] = {}
        self._fresh: Counter[str] = Counter()

    @property
    def used(self) -> Mapping[str, int]:
        """Uses by agreement code: those the database knew a second ago and our own since."""
        if self._today() != self._day:
            return {}
        return {code: self._known.get(code, 0) + self._fresh[code] for code in self._known.keys() | self._fresh.keys()}

    def count(self, decision: Decision) -> None:
        """Count a permit against its agreement, if that has a volume."""
        if decision.permit is None or decision.agreement is None:
            return
        agreement = self._policies.current.agreements.get(decision.agreement.code)
        if agreement is not None and agreement.volume_per_day is not None:
            self._fresh[agreement.code] += 1

    async def add_up(self) -> None:
        """Write our own uses and read everybody's."""
        today = self._today()
        counted, self._fresh = self._fresh, Counter()
        table = tables.agreement_use
        try:
            async with self._engine.begin() as conn:
                for code, count in sorted(counted.items()):
                    added = insert(table).values(code=code, day=self._day, count=count)
                    await conn.execute(
                        added.on_conflict_do_update(
                            index_elements=["code", "day"], set_={"count": table.c.count + added.excluded["count"]}
                        )
                    )
                rows = await conn.execute(
                    select(table.c.code, table.c.count.label("count_")).where(table.c.day == today)
                )
                self._known = {row.code: row.count_ for row in rows}
        except (SQLAlchemyError, OSError):
            # Kept for the next round: nothing is forgotten, and our own uses go on counting here.
            self._fresh += counted
            raise
        self._day = today

    async def run(self, stop: asyncio.Event) -> None:
        """Add up every second until ``stop``, and once more at the end."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), EVERY_S)
            try:
                if self._fresh or self._limited():
                    await self.add_up()
            except (SQLAlchemyError, OSError, PolicyUnavailable) as error:
                _log.warning("volume_not_added_up", error=type(error).__name__)

    def _limited(self) -> bool:
        return any(each.volume_per_day is not None for each in self._policies.current.agreements.values())

    def _today(self) -> date:
        return self._now().astimezone(_PARAGUAY).date()
