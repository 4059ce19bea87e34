"""Decides how often, how long and how many at once one producer is asked, and turns every failure into an outcome.

One time budget covers a whole call: waiting for a place, every attempt and the pauses between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from aiolimiter import AsyncLimiter
from prometheus_client import Counter, Gauge, Histogram
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_any,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from adapters.errors import CallFailed, ContractBroken, OurLimit, PermitMismatch
from adapters.manifest import Manifest
from adapters.models import EntryReceipt, Health, Malformed, Provenance, Unavailable
from schemas.canonical import sha256

T = TypeVar("T")

_log = structlog.get_logger(__name__)

#: The reason in the health of a producer nobody has asked.
NOT_ASKED = "not asked yet"
#: The reason of an outcome in whose place an adapter raised something unforeseen.
DEFECT = "a defect of the adapter"
_WAITING_PER_PLACE = 4

# Labels name adapters and kinds of outcome, never a person or an address.
_up = Gauge("siis_producer_up", "Whether the last attempt at a producer got a usable answer", ["adapter"])
_since = Gauge("siis_producer_since_seconds", "When that last changed, in Unix time", ["adapter"])
_calls = Counter("siis_producer_calls_total", "Calls of a verb", ["adapter", "outcome"])
_times = Histogram("siis_producer_call_seconds", "Time of a call, waiting and repetitions included", ["adapter"])


def utc_now() -> datetime:
    """Return the present instant in UTC."""
    return datetime.now(UTC)


class Call:
    """One call of a verb: what is left of its time, its attempts, and whether it may have had an effect.

    ``receipt`` is what the producer is to get of our log's entry about it.
    """

    __slots__ = (
        "_guard",
        "_started",
        "attempts",
        "deadline",
        "in_turn",
        "maybe_acted",
        "message_id",
        "raw_sha256",
        "receipt",
        "sent",
        "signature",
    )

    def __init__(self, guard: Guard, budget_s: float | None = None, receipt: EntryReceipt | None = None) -> None:
        self._guard = guard
        self._started = time.monotonic()
        self.deadline = asyncio.get_running_loop().time() + (budget_s or guard.budget_s)
        self.attempts = 0
        self.raw_sha256: bytes | None = None
        self.receipt = receipt
        #: Of our own last message, where the protocol has such things: its id, and the SHA-256 of its signature.
        self.message_id = ""
        self.signature: bytes | None = None
        #: The message of this attempt may have left; set by the adapter just before it hands it over.
        self.sent = False
        #: Some attempt so far may have been acted on.
        self.maybe_acted = False
        #: It waits for its turn within the rate.
        self.in_turn = False

    @property
    def left_s(self) -> float:
        """Seconds left of the budget."""
        return self.deadline - asyncio.get_running_loop().time()

    def took(self, raw: bytes) -> None:
        """Note the raw answer."""
        self.raw_sha256 = sha256(raw)

    def provenance(self) -> Provenance:
        """Say where the outcome comes from, as of now."""
        return Provenance(
            adapter=self._guard.name,
            institution=self._guard.institution,
            at=self._guard.now(),
            raw_sha256=self.raw_sha256,
            duration_ms=round((time.monotonic() - self._started) * 1000),
            attempts=self.attempts,
            message_id=self.message_id,
            signature=self.signature,
        )


class Guard:
    """Stands between a producer and its callers: budget, places, rate, breaker, quick repetitions, health."""

    def __init__(self, manifest: Manifest, now: Callable[[], datetime] = utc_now) -> None:
        self.name, self.institution, self.now = manifest.name, manifest.institution, now
        self.budget_s = manifest.limits.budget_s
        self._places = manifest.limits.concurrency
        self._semaphore = asyncio.Semaphore(self._places)
        self._waiting = 0
        self._breaker_settings = manifest.breaker
        self._breaker: Any = None
        self._attempts = manifest.retry.attempts
        self._retrying = AsyncRetrying(
            retry=retry_if_exception(_worth_repeating),
            wait=wait_random_exponential(multiplier=manifest.retry.first_wait_s, max=self.budget_s),
            reraise=True,
        )
        self._rate = _limiter(manifest.limits.per_second)
        self.health = Health(True, now(), NOT_ASKED)
        self._under_way = 0
        #: Set while no call is under way, not even one that waits for a place.
        self.idle = asyncio.Event()
        self.idle.set()
        self._time = _times.labels(self.name)

    async def run(
        self,
        attempt: Callable[[Call], Awaitable[T]],
        *,
        effect: bool,
        repeatable: bool,
        budget_s: float | None = None,
        receipt: EntryReceipt | None = None,
    ) -> T | Unavailable | Malformed:
        """Make a call. ``effect``: it changes something there; ``repeatable``: a second attempt changes nothing more.

        ``budget_s`` stands in for the manifest's budget where a verb has its own; ``receipt`` goes with the call.

        Returns what ``attempt`` returns, or the failure as an outcome; only cancellation and a caller's faults leave.
        """
        call = Call(self, budget_s, receipt)
        self._under_way += 1
        self.idle.clear()
        try:
            with self._time.time():
                outcome = await self._outcome(call, attempt, effect, repeatable)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self.idle.set()
        # Each kind of adapter has its own class of register.
        told = "Register" if hasattr(outcome, "rows") else type(outcome).__name__
        _calls.labels(self.name, told).inc()
        return outcome

    async def _outcome(
        self, call: Call, attempt: Callable[[Call], Awaitable[T]], effect: bool, repeatable: bool
    ) -> T | Unavailable | Malformed:
        try:
            async with self._place(call):
                return await self._tries(call, attempt, repeatable)
        except CallFailed as failure:
            unknown = effect and call.maybe_acted
            return Unavailable(failure.reason, call.provenance(), failure.retry_after_s, effect_unknown=unknown)
        except ContractBroken as problem:
            return Malformed(problem.reason, call.provenance(), effect_unknown=effect and call.maybe_acted)

    @asynccontextmanager
    async def _place(self, call: Call) -> AsyncIterator[None]:
        """Hold one of the places; refuse at once when enough wait already."""
        if self._semaphore.locked():
            if self._waiting >= self._places * _WAITING_PER_PLACE:
                raise CallFailed("busy", retry_after_s=1.0)
            self._waiting += 1
            try:
                async with asyncio.timeout_at(call.deadline):
                    await self._semaphore.acquire()
            except TimeoutError:
                raise CallFailed("busy", retry_after_s=1.0) from None
            finally:
                self._waiting -= 1
        else:
            await self._semaphore.acquire()
        try:
            yield
        finally:
            self._semaphore.release()

    async def _tries(self, call: Call, attempt: Callable[[Call], Awaitable[T]], repeatable: bool) -> T:
        try:
            return await self._once(call, attempt)
        except CallFailed as failure:
            if not repeatable or not _worth_repeating(failure):
                raise
            failed = [failure]

        async def again() -> T:
            # The failure in hand is the first attempt; so the usual call, which succeeds, pays nothing for repetitions.
            if failed:
                raise failed.pop()
            return await self._once(call, attempt)

        stop = stop_any(stop_after_attempt(self._attempts), _OutOfTime(call))
        return await self._retrying.copy(stop=stop)(again)

    async def _once(self, call: Call, attempt: Callable[[Call], Awaitable[T]]) -> T:
        circuit = await self._circuit()
        # Looked at first: a call that will be refused takes no turn from another.
        opened_at = circuit.context.opened_at
        if opened_at is not None and self._closed_for_s(opened_at) > 0:
            raise self._refusal(opened_at)
        await self.turn(call)
        try:
            async with circuit:
                call.attempts += 1
                call.sent = False
                result = await self._in_time(call, attempt)
        except OpenedState as opened:
            # One exception object is raised for every refused call: its traceback would grow and keep their frames.
            opened.__traceback__ = None
            raise self._refusal(opened.opened_at) from None
        except OurLimit:
            raise
        except (CallFailed, ContractBroken) as failure:
            call.maybe_acted = call.maybe_acted or (call.sent and failure.acted)
            self._mark(False, failure.reason)
            raise
        self._mark(True, "")
        return result

    def _closed_for_s(self, opened_at: float) -> float:
        return max(opened_at + self._breaker_settings.reset_s - time.time(), 0.0)

    def _refusal(self, opened_at: float) -> CallFailed:
        wait_s = self._closed_for_s(opened_at)
        return CallFailed("breaker open", acted=False, again=False, retry_after_s=wait_s)

    async def turn(self, call: Call) -> None:
        """Wait until another question is within the rate: each attempt, and each page behind its first."""
        if self._rate is None:
            return
        call.in_turn = True
        try:
            async with asyncio.timeout_at(call.deadline):
                await self._rate.acquire()
        except TimeoutError:
            raise OurLimit from None
        call.in_turn = False

    async def _in_time(self, call: Call, attempt: Callable[[Call], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout_at(call.deadline):
                return await attempt(call)
        except TimeoutError:
            # Inside an attempt its own clock may ring before that of the turn.
            raise OurLimit if call.in_turn else CallFailed("timeout", again=False) from None
        except (CallFailed, ContractBroken, PermitMismatch):
            raise
        except Exception as error:  # noqa: BLE001
            # Whatever a library raises at an answer nobody thought of; its text and its frames hold content.
            _log.error("adapter.defect", adapter=self.name, error=type(error).__name__)
            raise ContractBroken(DEFECT) from None

    async def _circuit(self) -> Any:
        if self._breaker is None:
            settings = self._breaker_settings
            # A malformed answer is an answer; our own rate, and a caller who went away, say nothing about the producer.
            self._breaker = await AsyncCircuitBreakerFactory().get_breaker(
                self.name,
                threshold=settings.failures,
                ttl=settings.reset_s,
                exclude=[ContractBroken, OurLimit, asyncio.CancelledError],
            )
        return self._breaker

    def forget(self) -> None:
        """Take the producer's health out of the metrics: its adapter is gone."""
        _up.remove(self.name)
        _since.remove(self.name)

    def _mark(self, ok: bool, reason: str) -> None:
        if (self.health.ok, self.health.reason) == (ok, reason):
            return
        changed = self.health.ok != ok
        self.health = Health(ok, self.now() if changed else self.health.since, reason)
        _up.labels(self.name).set(ok)
        _since.labels(self.name).set(self.health.since.timestamp())
        if changed:
            _log.warning("adapter.health", adapter=self.name, ok=ok, reason=reason)


def _limiter(per_second: float | None) -> AsyncLimiter | None:
    if per_second is None:
        return None
    # At most one second's worth at once; below one a second, one at a time.
    return AsyncLimiter(per_second, 1.0) if per_second >= 1 else AsyncLimiter(1, 1 / per_second)


class _OutOfTime(stop_base):
    """Stops repetitions whose pause would outlast the budget."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, retry_state: RetryCallState) -> bool:
        return retry_state.upcoming_sleep >= self._call.left_s


def _worth_repeating(error: BaseException) -> bool:
    # A producer that says when to come back is not asked before.
    return isinstance(error, CallFailed) and error.again and error.retry_after_s is None
