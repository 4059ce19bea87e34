"""Decides when a caller must wait: too many requests at once, or too many failed authentications.

Whoever only claims to be a client must not be able to shut the true one out. So a lock holds for one client at one
address; many failures from everywhere together only lower what an address may fail where the client has not proved
itself of late; and a client's own rate is counted only once a token proved who it is. All in the memory of one process
and bounded: with several processes each counts its share.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from math import ceil
from typing import Generic, NoReturn, TypeVar

import prometheus_client

from gateway.identity.errors import TooMany

#: Failed authentications of one client at one address within the window that lock it there, and for how long.
LOCK_FAILURES = 10
FAILURE_WINDOW_SECONDS = 300.0
LOCK_SECONDS = 300.0
#: Failed authentications of one client from everywhere within the window after which the first failure at an
#: unfamiliar address locks there: guessing from many addresses is slow, and the true client needs one attempt only.
BRAKE_FAILURES = 100
#: How long an address stays familiar to a client that proved itself there.
FAMILIAR_SECONDS = 24 * 3600.0
#: Authentications per second from one address, and how many at once: many institutions may share one way out.
ADDRESS_RATE, ADDRESS_BURST = 50.0, 200.0
#: A refused client is named at most this often; in between its refusals are counted with the noise (DESIGN 9.13).
NAMED_SECONDS = 60.0
#: Of each kind of thing remembered; the one untouched for longest is forgotten first.
ENTRIES = 20_000

_refused = prometheus_client.Counter(
    "siis_client_limits_total", "Requests refused because a limit or a lock was reached", ["limit"]
)

Key = TypeVar("Key")
Value = TypeVar("Value")


class _Recent(OrderedDict[Key, Value], Generic[Key, Value]):
    """A bounded memory that forgets what was touched longest ago."""

    def touch(self, key: Key, value: Value) -> None:
        """Remember a value as the newest."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > ENTRIES:
            self.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Failures:
    """Failures counted since an instant of the monotonic clock."""

    since: float
    count: int


class _Buckets:
    """Token buckets, one per key: ``rate`` tokens come back per second, ``burst`` is what a full one holds."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._levels: _Recent[str, tuple[float, float]] = _Recent()

    def take(self, key: str, now: float) -> float:
        """Take a token: return 0, or the seconds until there will be one."""
        level, at = self._levels.get(key, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        if level < 1.0:
            return (1.0 - level) / self._rate
        self._levels.touch(key, (level - 1.0, now))
        return 0.0


class ClientLimits:
    """The limits of one process; called in its event loop, never from a thread."""

    def __init__(
        self,
        *,
        request_rate: float,
        registered: Callable[[str], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``request_rate`` is what one client may ask per second (twice that at once); ``monotonic`` gives seconds.

        ``registered`` says whether a client has this id: what a stranger made up is never named.
        """
        self._registered, self._monotonic = registered, monotonic
        self._requests = _Buckets(request_rate, 2 * request_rate)
        self._addresses = _Buckets(ADDRESS_RATE, ADDRESS_BURST)
        self._here: _Recent[tuple[str, str], _Failures] = _Recent()
        self._everywhere: _Recent[str, _Failures] = _Recent()
        self._locked_until: _Recent[tuple[str, str], float] = _Recent()
        self._familiar: _Recent[tuple[str, str], float] = _Recent()
        self._named: _Recent[tuple[str, str, str], float] = _Recent()

    def admit(self, client_id: str | None, address: str) -> None:
        """Let an authentication be tried, or raise :class:`TooMany` (``rate`` or ``locked``) before any work is done.

        ``client_id`` is whom the caller claims to be, None where it names nobody; ``address`` its network address. The
        error names a registered client once per lock, so that each lock is one entry of the log.
        """
        now, place = self._monotonic(), _place(address)
        wait = self._addresses.take(place, now)
        if wait:
            self._refuse("rate", "address", wait)
        if client_id is None:
            return
        pair = _pair(client_id, place)
        wait = self._locked_until.get(pair, now) - now
        if wait > 0:
            # Locks of an attack from many addresses are one entry a minute, a single lock is one as long as it holds.
            braked, named = self._braked(pair, now), client_id if self._registered(client_id) else None
            self._refuse("locked", "lock", wait, named, "" if braked else place, NAMED_SECONDS if braked else wait)

    def failed(self, client_id: str | None, address: str) -> None:
        """Count a failed authentication under the id that the caller claimed."""
        if client_id is None:
            return
        now, pair = self._monotonic(), _pair(client_id, _place(address))
        allowed = 1 if self._braked(pair, now) else LOCK_FAILURES
        if _count(self._here, pair, now) >= allowed:
            del self._here[pair]
            self._locked_until.touch(pair, now + LOCK_SECONDS)
        _count(self._everywhere, pair[0], now)

    def succeeded(self, client_id: str | None, address: str) -> None:
        """Forget the failures of a client at an address where it has proved who it is."""
        if client_id is None:
            return
        pair = _pair(client_id, _place(address))
        self._here.pop(pair, None)
        self._familiar.touch(pair, self._monotonic() + FAMILIAR_SECONDS)

    def request(self, client_id: str) -> None:
        """Let a client whose token stands ask once more, or raise :class:`TooMany` (``rate``)."""
        wait = self._requests.take(client_id, self._monotonic())
        if wait:
            self._refuse("rate", "client", wait, client_id)

    def _braked(self, pair: tuple[str, str], now: float) -> bool:
        total = self._everywhere.get(pair[0])
        if total is None or total.count < BRAKE_FAILURES or now >= total.since + FAILURE_WINDOW_SECONDS:
            return False
        return now >= self._familiar.get(pair, now)

    def _refuse(
        self,
        reason: str,
        limit: str,
        wait: float,
        client_id: str | None = None,
        place: str = "",
        named_s: float = NAMED_SECONDS,
    ) -> NoReturn:
        _refused.labels(limit).inc()
        retry_after = max(1, ceil(wait))
        if client_id is None:
            raise TooMany(reason, retry_after)
        now, key = self._monotonic(), (limit, *_pair(client_id, place))
        if now < self._named.get(key, now):
            raise TooMany(reason, retry_after)
        self._named.touch(key, now + named_s)
        raise TooMany(reason, retry_after, client_id)


def _count(memory: _Recent[Key, _Failures], key: Key, now: float) -> int:
    known = memory.get(key)
    fresh = known is None or now >= known.since + FAILURE_WINDOW_SECONDS
    failures = _Failures(now, 1) if fresh or known is None else _Failures(known.since, known.count + 1)
    memory.touch(key, failures)
    return failures.count


def _pair(client_id: str, place: str) -> tuple[str, str]:
    # Ids of clients are shorter; what a stranger sends may be anything.
    return client_id[:64], place


def _place(address: str) -> str:
    # Who has one IPv6 address has its whole /64, so that is what counts.
    if ":" not in address:
        return address
    try:
        number = IPv6Address(address.partition("%")[0])
    except AddressValueError:
        return address
    mapped: IPv4Address | None = number.ipv4_mapped
    return str(mapped) if mapped else str(IPv6Address(int(number) >> 64 << 64))
