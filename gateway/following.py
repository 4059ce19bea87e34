"""Keeps what a process holds in memory fresh: hears of changes from PostgreSQL, and reads at least once a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

POLL_SECONDS = 60
RETRY_SECONDS = 2

_log = structlog.get_logger(__name__)


async def follow(url: str, channel: str, read: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Call ``read`` now, at each notice on ``channel`` and at least once a minute, until ``stop``.

    Uses a connection of its own to ``url`` (libpq form), and another one when that is cut off.
    """
    stopped = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            try:
                await _listen(url, channel, read, stopped)
            except (psycopg.Error, SQLAlchemyError, OSError) as error:
                _log.warning("following.cut_off", channel=channel, error=type(error).__name__)
                await asyncio.wait((stopped,), timeout=RETRY_SECONDS)
    finally:
        stopped.cancel()


async def _listen(url: str, channel: str, read: Callable[[], Awaitable[None]], stopped: asyncio.Task[bool]) -> None:
    # A connection of its own: a listening one must never go back to the pool.
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as listener:
        while not stopped.done():
            # Listening again shows a dead connection; reading comes after it, so that no change is missed.
            await listener.execute(f"LISTEN {channel}")
            await read()
            change = asyncio.create_task(_next_change(listener))
            try:
                await asyncio.wait((change, stopped), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not change.done():
                    change.cancel()
                    await asyncio.wait((change,))
            if not change.cancelled():
                change.result()


async def _next_change(listener: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    async for _ in listener.notifies(timeout=POLL_SECONDS, stop_after=1):
        pass
