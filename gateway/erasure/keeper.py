"""Keeps a process's memory like the database: forgets keys of persons who were erased, and of epochs that were closed.

An entry about an erased person is refused once the key is forgotten, some milliseconds after the erasure commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from audit.erasure import epochs_in_use, erased_since
from audit.keys import Epochs
from audit.service import AuditLog
from audit.tables import KEY_CHANNEL
from gateway.clock import utc_now
from gateway.database import Database
from gateway.following import follow

# An erasure is known by when it began, and may commit later; clocks of machines differ, too.
_LOOK_BACK = timedelta(hours=1)


class KeyKeeper:
    """Follows what becomes of the log's keys."""

    def __init__(
        self, database: Database, audit: AuditLog, epochs: Epochs, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._database, self._audit, self._epochs, self._now = database, audit, epochs, now

    async def read(self) -> None:
        """Forget what was destroyed lately, and take the keys of epochs there are now."""
        async with self._database.connection() as connection:
            erased = await erased_since(connection, self._now() - _LOOK_BACK)
            in_use = await epochs_in_use(connection)
        self._audit.forget(erased)
        if in_use and set(in_use) != set(self._epochs.keys):
            self._epochs.renew()

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until ``stop``."""
        await follow(self._database.url, KEY_CHANNEL, self.read, stop)
