"""Works through the adapters in rounds, each at its own pace, as they come and go with their manifests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from audit.errors import AuditError
from consent.errors import PolicyUnavailable

_log = structlog.get_logger(__name__)


class Named(Protocol):
    """What has a name: an adapter."""

    name: str


A = TypeVar("A", bound=Named)


async def in_rounds(
    present: Callable[[], Iterable[A]], work: Callable[[A], Awaitable[bool]], interval_s: float, stop: asyncio.Event
) -> None:
    """Do a round of work on every adapter there is, each every ``interval_s`` seconds, until ``stop`` is set.

    A round that says there is more is followed by the next at once. An adapter that a new manifest brings is worked on
    from the next round on; one adapter's round delays no other's.
    """
    followed: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as tasks:
        while not stop.is_set():
            for adapter in present():
                if adapter.name not in followed or followed[adapter.name].done():
                    followed[adapter.name] = tasks.create_task(_follow(adapter.name, present, work, interval_s, stop))
            await _pause(stop, interval_s)


async def _follow(
    name: str,
    present: Callable[[], Iterable[A]],
    work: Callable[[A], Awaitable[bool]],
    interval_s: float,
    stop: asyncio.Event,
) -> None:
    while not stop.is_set():
        # Looked up in each round: it may have been replaced, or be gone.
        adapter = next((each for each in present() if each.name == name), None)
        if adapter is None:
            return
        try:
            more = await work(adapter)
        except (SQLAlchemyError, psycopg.Error, AuditError, PolicyUnavailable, OSError) as error:
            # What was not committed comes again.
            _log.error("intake.round_failed", adapter=name, error=type(error).__name__)
            more = False
        if not more:
            await _pause(stop, interval_s)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
