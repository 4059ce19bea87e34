"""What a reader without nominal access can add and subtract of a funnel, or of two, never gives a small count."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.registry.suppression import THRESHOLD
from gateway.statistics.definitions import STEPS
from gateway.statistics.hiding import ROUNDED_TO, hide, hide_gaps

TIMES = ("median_hours", "p90_hours", "median_days", "p90_days")
_COUNT = st.one_of(st.integers(0, 12), st.integers(0, 400))


@st.composite
def funnels(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a funnel whose counts add up."""
    unreferred = draw(st.none() | st.dictionaries(st.sampled_from(["a", "b", "c"]), _COUNT, min_size=1))
    endings: dict[str, dict[str, int]] = {
        "gap_found": {} if unreferred is None else {"unreferred": sum(unreferred.values())},
        "referred": {"waiting": draw(_COUNT), "withheld": draw(_COUNT)},
        "received": {"rejected": draw(_COUNT), "waiting": draw(_COUNT)},
        "accepted": {"rejected": draw(_COUNT), "not_provided": draw(_COUNT), "waiting": draw(_COUNT)},
        "delivered": {"unchanged": draw(_COUNT)},
        "status_changed": {"changed": draw(_COUNT)},
    }
    reached = {code: sum(sum(endings[later].values()) for later in STEPS[index:]) for index, code in enumerate(STEPS)}
    everything = reached["referred"]
    door = draw(st.integers(0, everything))
    declined = endings["received"]["rejected"] + endings["accepted"]["rejected"]
    reason = draw(st.integers(0, declined))
    few = draw(st.integers(0, everything))
    return {
        "steps": [
            {
                "step": c,
                "reached": reached[c] if c != "gap_found" or unreferred is not None else None,
                "endings": endings[c],
            }
            for c in STEPS
        ],
        "times": [{"span": "referral_to_receipt", "referrals": reached["received"], **dict.fromkeys(TIMES, 1.0)}],
        "unreferred": unreferred,
        "reasons": [
            {"ending": "rejected", "reason": "no-capacity", "referrals": reason},
            {"ending": "rejected", "reason": "other", "referrals": declined - reason},
        ],
        "doors": [
            {"channel": "api", "requester": "MDS", "referrals": door},
            {"channel": "file", "requester": "MDS", "referrals": everything - door},
        ],
        **{name: {"referrals": few, "times": few} for name in ("no_shows", "reopened")},
        "repeated": {"referrals": few, "pairs": few},
    }


def sums(
    told: dict[str, Any], exact: dict[str, Any]
) -> list[tuple[list[tuple[int | None, int]], tuple[int | None, int]]]:
    """Return what adds up: parts and total, each as it is told and as it is."""
    found = []
    for place, step in enumerate(told["steps"]):
        as_it_is = exact["steps"][place]
        parts = [(step["endings"][code], count) for code, count in as_it_is["endings"].items()]
        if place + 1 < len(STEPS):
            parts.append((told["steps"][place + 1]["reached"], exact["steps"][place + 1]["reached"]))
        if as_it_is["reached"] is not None:
            found.append((parts, (step["reached"], as_it_is["reached"])))
    referred = (told["steps"][1]["reached"], exact["steps"][1]["reached"])
    doors = [(line["referrals"], exact["doors"][index]["referrals"]) for index, line in enumerate(told["doors"])]
    found.append((doors, referred))
    # Whoever sees every ending of a kind knows what its reasons add up to.
    rejected = [
        (step["endings"]["rejected"], exact["steps"][place]["endings"]["rejected"])
        for place, step in enumerate(told["steps"])
        if "rejected" in step["endings"]
    ]
    reasons = [(line["referrals"], exact["reasons"][index]["referrals"]) for index, line in enumerate(told["reasons"])]
    found.append((reasons, (summed(rejected), sum(count for _told, count in rejected))))
    if summed(reasons) is not None:
        found.append((rejected, (summed(reasons), sum(count for _told, count in reasons))))
    if exact["unreferred"] is not None:
        services = [(told["unreferred"][code], count) for code, count in exact["unreferred"].items()]
        total = exact["steps"][0]["endings"]["unreferred"]
        found.append((services, (told["steps"][0]["endings"]["unreferred"], total)))
    return found


def summed(parts: list[tuple[int | None, int]]) -> int | None:
    known = [told for told, _count in parts if told is not None]
    return sum(known) if len(known) == len(parts) else None


def near(count: int) -> range:
    """Return what a count may be told as."""
    return range(count - ROUNDED_TO // 2, count + ROUNDED_TO // 2 + 1)


def counts(document: Any) -> list[int]:
    """Return every count in a funnel, wherever it stands."""
    if isinstance(document, dict):
        return list(chain.from_iterable(map(counts, document.values())))
    if isinstance(document, list):
        return list(chain.from_iterable(map(counts, document)))
    return [document] if isinstance(document, int) else []


def funnel(referrals: int, hours: float = 1.0) -> dict[str, Any]:
    """Return a funnel in which so many were delivered, all alike."""
    endings: dict[str, dict[str, int]] = {code: {} for code in STEPS} | {"delivered": {"unchanged": referrals}}
    reached = dict.fromkeys(STEPS, referrals) | {"status_changed": 0}
    return {
        "steps": [{"step": code, "reached": reached[code], "endings": endings[code]} for code in STEPS],
        "times": [
            {
                "span": "referral_to_delivery",
                "referrals": referrals,
                "median_hours": hours,
                "p90_hours": hours,
                "median_days": round(hours / 24, 1),
                "p90_days": round(hours / 24, 1),
            }
        ],
        "unreferred": {"health-control": referrals},
        "reasons": [{"ending": "rejected", "reason": "other", "referrals": referrals}],
        "doors": [{"channel": "api", "requester": "MDS", "referrals": referrals}],
        **{name: {"referrals": referrals, "times": referrals} for name in ("no_shows", "reopened")},
        "repeated": {"referrals": referrals, "pairs": referrals},
    }


@pytest.mark.parametrize("few", range(1, THRESHOLD))
@pytest.mark.parametrize("many", [*range(THRESHOLD, 3 * ROUNDED_TO), 1003])
def test_two_overlapping_questions_do_not_tell_by_how_few_they_differ(many: int, few: int) -> None:
    one, two = hide(funnel(many)), hide(funnel(many + few))
    assert one["rounded_to"] == two["rounded_to"] == ROUNDED_TO
    # The marks of the answer are multiples as well.
    assert {count % ROUNDED_TO for count in (*counts(one), *counts(two))} == {0}
    told = one["steps"][4]["reached"], two["steps"][4]["reached"]
    # Another difference, and none or another small one, would have been told in the same way.
    alike = {
        other - first
        for first in near(told[0])
        for other in near(told[1])
        if THRESHOLD <= first <= other
        and (hide(funnel(first))["steps"][4]["reached"], told[1])
        == (told[0], hide(funnel(other))["steps"][4]["reached"])
    }
    assert few in alike
    assert len(alike) > 1


def test_times_are_told_in_whole_hours_and_not_again_more_finely_in_days() -> None:
    [told] = hide(funnel(5, hours=30.4))["times"]
    assert (told["median_hours"], told["p90_hours"]) == (30.0, 30.0)
    assert (told["median_days"], told["p90_days"]) == (1.2, 1.2)


@given(funnels())
def test_no_small_count_is_shown_or_can_be_worked_out(exact: dict[str, Any]) -> None:
    told = hide(exact)
    for parts, (total, as_it_is) in sums(told, exact):
        assert all(shown is None or (shown in near(count) and not 0 < count < THRESHOLD) for shown, count in parts)
        behind = [count for shown, count in parts if shown is None]
        if total is not None:
            assert not behind or len(behind) > 1
            assert not behind or sum(behind) >= THRESHOLD
        elif as_it_is:
            assert behind, "the parts of a hidden total add up to it"
    for name in ("no_shows", "reopened", "repeated"):
        rest = exact["steps"][1]["reached"] - exact[name]["referrals"]
        if 0 < exact[name]["referrals"] < THRESHOLD or 0 < rest < THRESHOLD:
            assert set(told[name].values()) == {None}


@given(funnels())
def test_an_institution_sees_its_referrals_as_they_are_and_no_few_gaps_of_others(exact: dict[str, Any]) -> None:
    told = hide_gaps(exact)
    assert [step["reached"] for step in told["steps"][1:]] == [step["reached"] for step in exact["steps"][1:]]
    if exact["unreferred"] is None:
        return
    total, few = sum(exact["unreferred"].values()), told["steps"][0]
    assert (few["reached"] is None) == (few["endings"]["unreferred"] is None)
    # Gaps are of persons it has nothing to do with: these counts are rounded, and its own referrals are not.
    assert few["reached"] is None or few["reached"] - told["steps"][1]["reached"] in near(total)
    assert all(count is None or count % ROUNDED_TO == 0 for count in told["unreferred"].values())
    assert few["reached"] is None or not 0 < total < THRESHOLD
    behind = [count for code, count in exact["unreferred"].items() if told["unreferred"][code] is None]
    assert few["reached"] is None or not behind or (len(behind) > 1 and sum(behind) >= THRESHOLD)
