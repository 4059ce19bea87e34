"""The guard of a producer: one budget, places, quick repetitions, the breaker, and health that says since when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from adapter_examples import (
    MANIFESTS,
    closed_address,
    connect,
    fetch,
    hanging,
    poll,
    send,
    server,
)
from structlog.testing import capture_logs

from adapters.errors import CallFailed, ContractBroken, PermitMismatch
from adapters.manifest import Breaker, Limits, Manifest, Retry, load_manifest
from adapters.models import Malformed, Unavailable
from adapters.resilience import Call, Guard

Attempt = Callable[[Call], Awaitable[str]]


class Clock:
    """A clock that goes on a second each time it is read."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    loaded = load_manifest(MANIFESTS / "mspbs.yaml")
    return replace(loaded, limits=Limits(10.0, 1024, 2), breaker=Breaker(100, 600.0), retry=Retry(3, 0.0001))


class Producer:
    """Fails as it is told, then answers."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked = 0

    async def __call__(self, call: Call) -> str:
        self.asked += 1
        call.sent = True
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


async def run(guard: Guard, attempt: Attempt, *, effect: bool = True, repeatable: bool = True) -> Any:
    return await guard.run(attempt, effect=effect, repeatable=repeatable)


async def test_an_idempotent_call_is_repeated_until_it_succeeds(manifest: Manifest) -> None:
    producer = Producer(CallFailed("connection lost"), CallFailed("http 503"))
    assert await run(Guard(manifest), producer) == "answer"
    assert producer.asked == 3


async def test_repetitions_end(manifest: Manifest) -> None:
    producer = Producer(*(CallFailed(f"number {number}") for number in range(9)))
    outcome = await run(Guard(manifest), producer)
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.provenance.attempts, producer.asked) == ("number 2", 3, 3)


@pytest.mark.parametrize(
    "failure",
    [CallFailed("x", again=False), CallFailed("x", retry_after_s=0.0), ContractBroken("x")],
    ids=["not worth it", "told when", "malformed"],
)
async def test_what_repeating_cannot_help_is_not_repeated(manifest: Manifest, failure: Exception) -> None:
    producer = Producer(failure)
    assert isinstance(await run(Guard(manifest), producer), Unavailable | Malformed)
    assert producer.asked == 1


async def test_what_is_not_repeatable_is_not_repeated(manifest: Manifest) -> None:
    producer = Producer(CallFailed("x"))
    assert isinstance(await run(Guard(manifest), producer, repeatable=False), Unavailable)
    assert producer.asked == 1


async def test_no_repetition_is_begun_that_would_outlast_the_budget(manifest: Manifest) -> None:
    slow = replace(manifest, limits=Limits(0.001, 1024, 2), retry=Retry(10, 10.0))
    producer = Producer(*(CallFailed("x") for _ in range(10)))
    outcome = await run(Guard(slow), producer)
    assert isinstance(outcome, Unavailable)
    assert producer.asked < 10


async def test_the_budget_ends_a_call_that_hangs(manifest: Manifest) -> None:
    async def hang(call: Call) -> str:
        call.sent = True
        await asyncio.Event().wait()
        return ""

    guard = Guard(replace(manifest, limits=Limits(0.05, 1024, 2)))
    outcome = await run(guard, hang)
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown, outcome.provenance.attempts) == ("timeout", True, 1)
    assert (guard.health.ok, guard.health.reason) == (False, "timeout")


@pytest.mark.parametrize(
    ("failures", "effect", "unknown"),
    [
        ([CallFailed("x", acted=True)], True, True),
        ([CallFailed("x", acted=True)], False, False),
        ([CallFailed("x", acted=False)], True, False),
        ([CallFailed("x", acted=True), CallFailed("x", acted=False)], True, True),
        ([CallFailed("x", acted=False), ContractBroken("x", acted=True)], True, True),
        ([ContractBroken("x", acted=False)], True, False),
    ],
)
async def test_the_effect_is_unknown_once_any_attempt_may_have_had_it(
    manifest: Manifest, failures: list[Exception], effect: bool, unknown: bool
) -> None:
    guard = Guard(replace(manifest, retry=Retry(len(failures), 0.0001)))
    outcome = await run(guard, Producer(*failures), effect=effect)
    assert isinstance(outcome, Unavailable | Malformed)
    assert outcome.effect_unknown is unknown


async def test_nothing_sent_had_no_effect(manifest: Manifest) -> None:
    async def before_sending(call: Call) -> str:
        raise CallFailed("session", acted=True)

    outcome = await run(Guard(manifest), before_sending)
    assert isinstance(outcome, Unavailable)
    assert not outcome.effect_unknown


async def test_the_breaker_opens_and_then_nobody_is_asked(manifest: Manifest) -> None:
    guard = Guard(replace(manifest, breaker=Breaker(3, 600.0)))
    producer = Producer(*(CallFailed("http 503") for _ in range(3)))
    assert isinstance(await run(guard, producer), Unavailable)
    outcome = await run(guard, producer)
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown, producer.asked) == ("breaker open", False, 3)
    assert outcome.retry_after_s is not None
    assert 0 < outcome.retry_after_s <= 600
    assert (guard.health.ok, guard.health.reason) == (False, "http 503")


async def test_the_breaker_closes_again_when_one_call_succeeds(manifest: Manifest) -> None:
    guard = Guard(replace(manifest, breaker=Breaker(1, 0.001)))
    producer = Producer(CallFailed("x", again=False))
    assert isinstance(await run(guard, producer), Unavailable)
    outcome = None
    async with asyncio.timeout(10):
        while outcome != "answer":
            outcome = await run(guard, producer)
            await asyncio.sleep(0)
    assert guard.health.ok


async def test_malformed_answers_and_callers_who_leave_do_not_open_the_breaker(manifest: Manifest) -> None:
    guard = Guard(replace(manifest, breaker=Breaker(1, 600.0)))
    for _ in range(3):
        assert isinstance(await run(guard, Producer(ContractBroken("x"))), Malformed)

    started = asyncio.Event()

    async def hang(call: Call) -> str:
        started.set()
        await asyncio.Event().wait()
        return ""

    leaving = asyncio.create_task(run(guard, hang))
    await started.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await run(guard, Producer()) == "answer"


async def test_calls_refused_by_the_breaker_leave_nothing_behind(manifest: Manifest) -> None:
    guard = Guard(replace(manifest, breaker=Breaker(1, 600.0)))
    await run(guard, Producer(CallFailed("x", again=False)))
    for _ in range(5):
        await run(guard, Producer())
    # The breaker raises one and the same object; its traceback holds the frames, and the data, of every call refused.
    opened = guard._breaker.context._state
    assert opened.name == "opened"
    assert opened.__traceback__ is None


async def test_at_most_the_agreed_number_of_calls_run_and_four_times_as_many_wait(manifest: Manifest) -> None:
    guard = Guard(manifest)
    running, most, release = 0, 0, asyncio.Event()

    async def work(call: Call) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return "answer"

    calls = [asyncio.create_task(run(guard, work)) for _ in range(10)]
    await asyncio.sleep(0)  # each of the ten begins: two run, eight wait
    refused = [await run(guard, work) for _ in range(2)]
    assert [outcome.reason for outcome in refused] == ["busy", "busy"]
    assert all(outcome.retry_after_s == 1.0 and not outcome.effect_unknown for outcome in refused)
    release.set()
    assert await asyncio.gather(*calls) == ["answer"] * 10
    assert most == 2


async def test_waiting_for_a_place_counts_against_the_budget(manifest: Manifest) -> None:
    guard = Guard(replace(manifest, limits=Limits(0.05, 1024, 1)))
    release = asyncio.Event()

    async def stubborn(call: Call) -> str:
        try:
            await release.wait()
        except asyncio.CancelledError:
            await release.wait()
            raise
        return ""

    first = asyncio.create_task(run(guard, stubborn))
    await asyncio.sleep(0)
    outcome = await run(guard, Producer())
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.provenance.attempts) == ("busy", 0)
    release.set()
    await first
    assert await run(guard, Producer()) == "answer"


async def test_health_says_since_when_and_why(manifest: Manifest) -> None:
    clock = Clock()
    guard = Guard(manifest, clock)
    assert (guard.health.ok, guard.health.reason) == (True, "not asked yet")
    await run(guard, Producer())
    well = guard.health
    assert (well.ok, well.reason) == (True, "")
    await run(guard, Producer(CallFailed("http 503", again=False)))
    ill = guard.health
    assert (ill.ok, ill.reason) == (False, "http 503")
    assert ill.since > well.since
    await run(guard, Producer(CallFailed("timeout", again=False)))
    assert (guard.health.since, guard.health.reason) == (ill.since, "timeout")
    await run(guard, Producer())
    assert guard.health.ok
    assert guard.health.since > ill.since


@pytest.mark.parametrize("fault", [KeyError("4123456"), UnicodeError("4123456"), RecursionError(), TypeError()])
async def test_what_an_adapter_did_not_foresee_is_malformed_and_told_without_content(
    manifest: Manifest, fault: Exception
) -> None:
    guard, producer = Guard(replace(manifest, breaker=Breaker(1, 600.0))), Producer(fault)
    with capture_logs() as told:
        outcome = await run(guard, producer)
    assert isinstance(outcome, Malformed)
    assert (outcome.reason, outcome.effect_unknown, producer.asked) == ("a defect of the adapter", True, 1)
    assert {"event": "adapter.defect", "adapter": "mspbs", "error": type(fault).__name__, "log_level": "error"} in told
    assert "4123456" not in repr((outcome, told))
    # An answer nobody can read is an answer: the producer goes on being asked.
    assert await run(guard, producer) == "answer"


async def test_a_fault_of_the_caller_is_not_dressed_up_as_an_outcome(manifest: Manifest) -> None:
    with pytest.raises(PermitMismatch):
        await run(Guard(manifest), Producer(PermitMismatch("ours")))  # type: ignore[arg-type]


async def test_one_producer_that_hangs_takes_no_place_from_another(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with server(hanging) as address:
        stuck = connect(tmp_path / "a", "mds", address, changes={"concurrency: 8": "concurrency: 1"})
        calls = [asyncio.create_task(poll(stuck)) for _ in range(2)]
        other = connect(tmp_path / "b", "mspbs", closed_address())
        outcome = await send(other)
        assert isinstance(outcome, Unavailable)
        assert outcome.reason == "connection failed"
        assert not any(call.done() for call in calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_the_breaker_of_a_producer_is_shared_by_its_verbs(tmp_path: Path) -> None:
    adapter = connect(tmp_path, "mds", closed_address(), changes={"failures: 5": "failures: 2"})
    assert isinstance(await poll(adapter), Unavailable)
    outcome = await send(adapter)
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown) == ("breaker open", False)
    assert not adapter.health.ok


async def test_an_unanswered_fetch_has_no_effect_to_doubt(tmp_path: Path) -> None:
    changes = {"budget_s: 3": "budget_s: 0.1"}
    async with server(hanging) as address:
        outcome = await fetch(connect(tmp_path, "identificaciones", address, changes=changes))
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown) == ("timeout", False)


async def test_attempts_beyond_the_rate_wait_and_beyond_the_budget_are_turned_away(manifest: Manifest) -> None:
    limits = Limits(0.3, 1024, 64, per_second=2.0)
    guard, producer = Guard(replace(manifest, limits=limits)), Producer()
    outcomes = await asyncio.gather(*(run(guard, producer) for _ in range(8)))
    turned = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
    assert producer.asked == len(outcomes) - len(turned)
    assert len(turned) >= 5
    assert {(outcome.reason, outcome.effect_unknown) for outcome in turned} == {("rate reached", False)}
    # Nobody was asked, so nothing was learnt of the producer.
    assert guard.health.ok


async def test_our_own_rate_says_nothing_about_the_producer(manifest: Manifest) -> None:
    limits = Limits(0.2, 1024, 2, per_second=1.0)
    guard = Guard(replace(manifest, limits=limits, breaker=Breaker(1, 600.0)))

    async def pages(call: Call) -> str:
        call.sent = True
        await guard.turn(call)
        return "all pages"

    for _ in range(2):
        outcome = await run(guard, pages, effect=False)
        assert isinstance(outcome, Unavailable)
        assert outcome.reason == "rate reached"
        assert guard.health.reason == "not asked yet"
    assert outcome.provenance.attempts == 0


async def test_a_call_the_breaker_refuses_is_no_attempt_and_takes_no_turn(manifest: Manifest) -> None:
    limits = Limits(0.2, 1024, 2, per_second=1.0)
    guard = Guard(replace(manifest, limits=limits, breaker=Breaker(1, 600.0)))
    await run(guard, Producer(CallFailed("x", again=False)))
    for _ in range(3):
        outcome = await run(guard, Producer())
        assert isinstance(outcome, Unavailable)
        assert (outcome.reason, outcome.provenance.attempts) == ("breaker open", 0)


async def test_what_happened_can_be_read_as_metrics(manifest: Manifest) -> None:
    guard = Guard(replace(manifest, name="measured"))
    await run(guard, Producer())
    await run(guard, Producer(CallFailed("http 503", again=False)))
    read = prometheus_client.REGISTRY.get_sample_value
    assert read("siis_producer_up", {"adapter": "measured"}) == 0
    assert read("siis_producer_since_seconds", {"adapter": "measured"}) == guard.health.since.timestamp()
    assert read("siis_producer_calls_total", {"adapter": "measured", "outcome": "str"}) == 1
    assert read("siis_producer_calls_total", {"adapter": "measured", "outcome": "Unavailable"}) == 1
    assert read("siis_producer_call_seconds_count", {"adapter": "measured"}) == 2
