"""Lets many waiting callers share one round trip: what they hand in is worked off by one task, group after group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from audit.errors import AuditError, AuditUnavailable

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """A bounded queue in front of ``flush``, which takes a group of items and gives one result (or error) for each.

    When ``flush`` itself raises :class:`AuditError`, every caller of that group gets it; the next group tries anew.
    """

    def __init__(
        self, flush: Callable[[list[T]], Awaitable[Sequence[R | AuditError]]], *, group: int, bound: int
    ) -> None:
        self._flush, self._group, self._bound = flush, group, bound
        self._queue: deque[tuple[Sequence[T], asyncio.Future[list[R]]]] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, items: Sequence[T]) -> list[R]:
        """Hand in items that belong together and wait for their results.

        Raises :class:`AuditUnavailable` at once when ``bound`` items wait already or after :meth:`close`.
        """
        if self._closed:
            raise AuditUnavailable("closed")
        if self._waiting >= self._bound:
            raise AuditUnavailable("queue is full")
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        future: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        self._queue.append((items, future))
        self._waiting += len(items)
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Refuse new items, finish those that wait."""
        self._closed = True
        self._wake.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            while True:
                while self._queue:
                    await self._work_off(self._take())
                if self._closed:
                    return
                self._wake.clear()
                await self._wake.wait()
        finally:
            # Reached with a full queue only when this task was cancelled or met a defect: nobody may wait for ever.
            for _, future in self._queue:
                _fail(future, AuditUnavailable("stopped"))
            self._queue.clear()
            self._waiting = 0

    def _take(self) -> list[tuple[Sequence[T], asyncio.Future[list[R]]]]:
        """Take callers until the group is full; one caller's items are never split."""
        group, size = [], 0
        while self._queue and size < self._group:
            group.append(self._queue.popleft())
            size += len(group[-1][0])
        self._waiting -= size
        return group

    async def _work_off(self, group: list[tuple[Sequence[T], asyncio.Future[list[R]]]]) -> None:
        try:
            results = await self._flush([item for items, _ in group for item in items])
        except AuditError as error:
            for _, future in group:
                _fail(future, error)
            return
        except BaseException:
            for _, future in group:
                _fail(future, AuditUnavailable("stopped"))
            raise
        at = 0
        for items, future in group:
            _settle(future, results[at : at + len(items)])
            at += len(items)


def _settle(future: asyncio.Future[list[R]], results: Sequence[R | AuditError]) -> None:
    done: list[R] = []
    for result in results:
        if isinstance(result, AuditError):
            _fail(future, result)
            return
        done.append(result)
    if not future.done():
        future.set_result(done)


def _fail(future: asyncio.Future[list[R]], error: AuditError) -> None:
    if not future.done():
        future.set_exception(error)
