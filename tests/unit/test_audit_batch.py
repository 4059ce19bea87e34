"""The queue behind shared commits: nobody waits for ever, nobody gets another's result."""

from __future__ import annotations

import asyncio

import pytest

from audit.batch import Batcher
from audit.errors import AuditError, AuditUnavailable


class Echo:
    """A flush that answers each item with itself once the gate is open; strings of 'bad' fail alone."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.groups: list[list[str]] = []
        self.error: BaseException | None = None

    async def __call__(self, items: list[str]) -> list[str | AuditError]:
        self.groups.append(items)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [AuditError("bad") if item == "bad" else item for item in items]


async def waiting(batcher: Batcher[str, str], *groups: list[str]) -> list[asyncio.Task[list[str]]]:
    """Hand in groups from a task each and let all of them arrive."""
    tasks = [asyncio.create_task(batcher.submit(group)) for group in groups]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_those_who_come_while_one_group_is_under_way_share_the_next() -> None:
    flush = Echo()
    batcher: Batcher[str, str] = Batcher(flush, group=10, bound=100)
    tasks = await waiting(batcher, ["a"])
    tasks += await waiting(batcher, ["b"], ["c", "d"], ["e"])
    flush.gate.set()
    assert await asyncio.gather(*tasks) == [["a"], ["b"], ["c", "d"], ["e"]]
    assert flush.groups == [["a"], ["b", "c", "d", "e"]]
    await batcher.close()


async def test_a_group_ends_when_it_is_full_without_splitting_a_caller() -> None:
    flush = Echo()
    batcher: Batcher[str, str] = Batcher(flush, group=2, bound=100)
    flush.gate.set()
    tasks = await waiting(batcher, ["a", "b", "c"], ["d"], ["e"], ["f"])
    await asyncio.gather(*tasks)
    assert flush.groups == [["a", "b", "c"], ["d", "e"], ["f"]]
    await batcher.close()


async def test_a_failed_flush_fails_every_caller_of_the_group_and_the_next_group_works() -> None:
    flush = Echo()
    batcher: Batcher[str, str] = Batcher(flush, group=10, bound=100)
    flush.error = AuditUnavailable("down")
    tasks = await waiting(batcher, ["a"], ["b"])
    flush.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [AuditUnavailable, AuditUnavailable]
    flush.error = None
    assert await batcher.submit(["c"]) == ["c"]
    await batcher.close()


async def test_one_bad_item_fails_its_own_caller_only() -> None:
    flush = Echo()
    batcher: Batcher[str, str] = Batcher(flush, group=10, bound=100)
    tasks = await waiting(batcher, ["a"], ["x", "bad"], ["b"])
    flush.gate.set()
    good, bad, fine = await asyncio.gather(*tasks, return_exceptions=True)
    assert (good, fine) == (["a"], ["b"])
    assert isinstance(bad, AuditError)
    await batcher.close()


async def test_a_full_queue_refuses_at_once() -> None:
    flush = Echo()
    batcher: Batcher[str, str] = Batcher(flush, group=1, bound=2)
    tasks = await waiting(batcher, ["under way"])
    tasks += await waiting(batcher, ["b"], ["c"])
    with pytest.raises(AuditUnavailable, match="full"):
        await batcher.submit(["d"])
    flush.gate.set()
    assert await asyncio.gather(*tasks) == [["under way"], ["b"], ["c"]]
    assert await batcher.submit(["e"]) == ["e"]
    await batcher.close()


async def test_a_caller_that_goes_away_disturbs_nobody() -> None:
    flush = Echo()
    batcher: Batcher[str, str] = Batcher(flush, group=10, bound=100)
    gone, stays = await waiting(batcher, ["a"], ["b"])
    gone.cancel()
    flush.gate.set()
    assert await stays == ["b"]
    await batcher.close()


async def test_close_finishes_what_waits_and_refuses_what_comes() -> None:
    flush = Echo()
    batcher: Batcher[str, str] = Batcher(flush, group=1, bound=100)
    tasks = await waiting(batcher, ["a"], ["b"])
    flush.gate.set()
    await batcher.close()
    assert [task.result() for task in tasks] == [["a"], ["b"]]
    with pytest.raises(AuditUnavailable, match="closed"):
        await batcher.submit(["c"])


async def test_a_defect_leaves_nobody_waiting() -> None:
    flush = Echo()
    batcher: Batcher[str, str] = Batcher(flush, group=1, bound=100)
    flush.error = ZeroDivisionError()
    tasks = await waiting(batcher, ["a"], ["b"])
    flush.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [AuditUnavailable, AuditUnavailable]
    with pytest.raises(ZeroDivisionError):
        await batcher.close()
