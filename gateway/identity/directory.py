"""What every process knows about clients, in memory: read at start, again at each change, at least once a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from gateway.database import Database
from gateway.identity import service
from gateway.identity.errors import DirectoryUnavailable
from gateway.identity.models import Client

POLL_SECONDS = 60
RETRY_SECONDS = 2
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
        """Keep up with changes until ``stop``: listens, reads at least once a minute, reconnects when cut off."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                try:
                    await self._follow(stopped)
                except (psycopg.Error, SQLAlchemyError, OSError) as error:
                    _log.warning("client_directory_cut_off", error=type(error).__name__)
                    await asyncio.wait((stopped,), timeout=RETRY_SECONDS)
        finally:
            stopped.cancel()

    async def _follow(self, stopped: asyncio.Task[bool]) -> None:
        # A connection of its own: a listening one must never go back to the pool.
        async with await psycopg.AsyncConnection.connect(
            self._database.url, autocommit=True, connect_timeout=5
        ) as listener:
            while not stopped.done():
                # Listening again shows a dead connection; reading comes after it, so that no change is missed.
                await listener.execute(f"LISTEN {service.CHANNEL}")
                await self.load()
                async with self._database.transaction() as connection:
                    await service.purge_expired(connection, self._now())
                change = asyncio.create_task(_next_change(listener))
                try:
                    await asyncio.wait((change, stopped), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not change.done():
                        change.cancel()
                        await asyncio.wait((change,))
                if not change.cancelled():
                    change.result()

    def _same_or(self, fresh: Client) -> Client:
        known = self._clients.get(fresh.id)
        return known if known == fresh else fresh


async def _next_change(listener: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    async for _ in listener.notifies(timeout=POLL_SECONDS, stop_after=1):
        pass
