"""Who fails too often or asks too much must wait; nobody can make the true client wait from elsewhere."""

from __future__ import annotations

import pytest

from gateway.identity import limits
from gateway.identity.errors import TooMany
from gateway.identity.limits import BRAKE_FAILURES, LOCK_FAILURES, LOCK_SECONDS, ClientLimits

HOME, STRANGER = "10.1.2.3", "203.0.113.9"


class Monotonic:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Monotonic:
    return Monotonic()


@pytest.fixture
def guard(clock: Monotonic) -> ClientLimits:
    return ClientLimits(request_rate=10, registered=lambda client: client == "mds", monotonic=clock)


def fail(guard: ClientLimits, address: str, times: int, client: str = "mds") -> None:
    for _attempt in range(times):
        guard.admit(client, address)
        guard.failed(client, address)


def refusal(guard: ClientLimits, client: str | None, address: str) -> TooMany:
    with pytest.raises(TooMany) as caught:
        guard.admit(client, address)
    return caught.value


def test_ten_failures_lock_a_client_at_that_address_for_five_minutes(guard: ClientLimits, clock: Monotonic) -> None:
    fail(guard, STRANGER, LOCK_FAILURES)
    refused = refusal(guard, "mds", STRANGER)
    assert (refused.reason, refused.retry_after_s) == ("locked", LOCK_SECONDS)
    clock.seconds += LOCK_SECONDS - 1
    assert refusal(guard, "mds", STRANGER).retry_after_s == 1
    clock.seconds += 1
    guard.admit("mds", STRANGER)


def test_a_stranger_locks_the_client_out_nowhere_else(guard: ClientLimits) -> None:
    fail(guard, STRANGER, LOCK_FAILURES)
    refusal(guard, "mds", STRANGER)
    guard.admit("mds", HOME)
    guard.admit("other", STRANGER)


def test_failures_long_ago_and_failures_before_a_success_count_no_more(guard: ClientLimits, clock: Monotonic) -> None:
    fail(guard, HOME, LOCK_FAILURES - 1)
    clock.seconds += limits.FAILURE_WINDOW_SECONDS
    fail(guard, HOME, LOCK_FAILURES - 1)
    guard.succeeded("mds", HOME)
    fail(guard, HOME, LOCK_FAILURES - 1)
    guard.admit("mds", HOME)


def test_each_lock_names_the_client_once_and_one_of_an_invented_client_never(
    guard: ClientLimits, clock: Monotonic
) -> None:
    fail(guard, STRANGER, LOCK_FAILURES)
    fail(guard, STRANGER, LOCK_FAILURES, client="invented")
    assert [refusal(guard, "mds", STRANGER).client_id for _again in range(3)] == ["mds", None, None]
    assert refusal(guard, "invented", STRANGER).client_id is None
    clock.seconds += LOCK_SECONDS
    fail(guard, STRANGER, LOCK_FAILURES)
    assert refusal(guard, "mds", STRANGER).client_id == "mds"


def attack(guard: ClientLimits, failures: int) -> None:
    for number in range(failures):
        fail(guard, f"198.51.{number // 250}.{number % 250}", 1)


def test_an_attack_from_many_addresses_leaves_one_failure_to_each_further_one(guard: ClientLimits) -> None:
    attack(guard, BRAKE_FAILURES)
    fail(guard, STRANGER, 1)
    assert refusal(guard, "mds", STRANGER).client_id == "mds"
    fail(guard, "192.0.2.7", 1)
    # Entries of such an attack are one a minute, not one for each address.
    assert refusal(guard, "mds", "192.0.2.7").client_id is None


@pytest.mark.parametrize("known_before", [True, False])
def test_during_such_an_attack_the_true_client_is_still_let_in(guard: ClientLimits, known_before: bool) -> None:
    if known_before:
        guard.succeeded("mds", HOME)
    attack(guard, 3 * BRAKE_FAILURES)
    guard.admit("mds", HOME)
    guard.succeeded("mds", HOME)
    # Once proved there, it may also fail as often as in quiet times.
    fail(guard, HOME, LOCK_FAILURES - 1)
    guard.admit("mds", HOME)


def test_one_address_is_slowed_whoever_it_claims_to_be_and_others_are_not(
    guard: ClientLimits, clock: Monotonic
) -> None:
    for number in range(int(limits.ADDRESS_BURST)):
        guard.admit(f"client-{number}", STRANGER)
    refused = refusal(guard, None, STRANGER)
    assert (refused.reason, refused.retry_after_s, refused.client_id) == ("rate", 1, None)
    guard.admit("mds", HOME)
    clock.seconds += 1
    guard.admit("mds", STRANGER)


def test_a_client_may_ask_so_often_a_second_and_is_named_once_a_minute(guard: ClientLimits, clock: Monotonic) -> None:
    for _request in range(20):
        guard.request("mds")
    named = []
    for _request in range(3):
        with pytest.raises(TooMany) as caught:
            guard.request("mds")
        named.append((caught.value.reason, caught.value.client_id))
    assert named == [("rate", "mds"), ("rate", None), ("rate", None)]
    guard.request("other")
    clock.seconds += 0.5
    for _request in range(5):
        guard.request("mds")
    with pytest.raises(TooMany):
        guard.request("mds")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("no:address", "no:address", True),
    ],
)
def test_what_counts_as_one_address(guard: ClientLimits, one: str, other: str, same: bool) -> None:
    fail(guard, one, LOCK_FAILURES)
    if same:
        refusal(guard, "mds", other)
    else:
        guard.admit("mds", other)


def test_memory_is_bounded_and_a_lock_outlives_a_flood_of_other_names(
    guard: ClientLimits, clock: Monotonic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENTRIES", 50)
    fail(guard, STRANGER, LOCK_FAILURES)
    for number in range(500):
        clock.seconds += 0.1
        fail(guard, STRANGER, 1, client=f"invented-{number}" + "x" * 10_000)
        guard.succeeded(f"invented-{number}", STRANGER)
        guard.request(f"invented-{number}")
    refusal(guard, "mds", STRANGER)
    memories = [memory for memory in vars(guard).values() if isinstance(memory, dict)]
    assert len(memories) == 5
    assert all(len(memory) <= 50 for memory in memories)
    assert all(len(part) < 100 for memory in memories for key in memory for part in key if isinstance(part, str))
