"""What every process knows about clients, in memory: read at start, again at each change, at least once a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

import structlog

from gateway.database import Database
from gateway.following import follow
from gateway.identity import service
from gateway.identity.errors import DirectoryUnavailable
from gateway.identity.models import Client

# Beyond this age a disabled client might still be let in, so nobody is.
MAX_AGE_SECONDS = 180

_log = structlog.get_logger(__name__)


class ClientDirectory:
    """Clients by id and revoked tokens; answers without waiting, or raises when it knows too little."""

    def __init__(
        self, database: Database, *, now: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """``now`` gives UTC instants; ``monotonic`` gives seconds for the age of what is known."""
        self._database, self._now, self._monotonic = database, now, monotonic
        self._clients: dict[str, Client] = {}
        self._revoked: frozenset[str] = frozenset()
        self._stale_at = float("-inf")
        self._loading = asyncio.Lock()

    def find(self, client_id: str) -> Client | None:
        """Return a client, disabled ones too, or None; the same object as long as nothing about it changed.

        Raises :class:`DirectoryUnavailable` when the last reading is older than three minutes.
        """
        if self._monotonic() > self._stale_at:
            raise DirectoryUnavailable("client directory is stale")
        return self._clients.get(client_id)

    def revoked(self, token_id: str) -> bool:
        """Return whether an access token was revoked."""
        return token_id in self._revoked

    async def claim_proof(self, jkt: str, jti: str, expires_at: datetime) -> bool:
        """Mark a DPoP proof as used in every process; return False if it had been used before."""
        async with self._database.transaction() as connection:
            return await service.claim_proof(connection, jkt, jti, expires_at)

    async def load(self) -> None:
        """Read everything now."""
        async with self._loading:
            started = self._monotonic()
            async with self._database.connection() as connection:
                fresh = await service.list_clients(connection)
                self._revoked = await service.revoked_tokens(connection)
            self._clients = {client.id: self._same_or(client) for client in fresh}
            self._stale_at = started + MAX_AGE_SECONDS

    async def run(self, stop: asyncio.Event) -> None:
        """Keep up with changes until ``stop``."""
        await follow(self._database.url, service.CHANNEL, self._read, stop)

    async def _read(self) -> None:
        await self.load()
        async with self._database.transaction() as connection:
            await service.purge_expired(connection, self._now())

    def _same_or(self, fresh: Client) -> Client:
        known = self._clients.get(fresh.id)
        return known if known == fresh else fresh
