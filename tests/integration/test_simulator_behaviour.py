"""What the simulated recipients decide: fates in known proportions, moves a referral can make, reasons we know."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from adapters.simulator.behaviour import plan
from adapters.simulator.callbacks import _OUTCOMES, _REASONS
from schemas.codes import code_list


def test_fates_are_the_same_for_the_same_seed_and_follow_the_proportions() -> None:
    ids = [f"00000000-0000-7000-8000-{number:012d}" for number in range(4000)]
    plans = [plan("mds", 7, referral_id) for referral_id in ids]
    assert plans == [plan("mds", 7, referral_id) for referral_id in ids]
    assert plans != [plan("mds", 8, referral_id) for referral_id in ids]
    last = Counter(steps[-1].outcome or steps[-1].event for steps in plans)
    share = {name: count / len(ids) for name, count in last.items()}
    assert 0.82 < share["PRESTADO"] < 0.90
    assert 0.05 < share["RECHAZADA"] < 0.09
    assert share["PARCIAL"] > 0.02
    assert share["NO_PRESTADO"] > 0.01
    events = Counter(step.event for steps in plans for step in steps)
    assert events["AGENDADA"] > 400
    assert events["NO_ACUDIO"] > 20
    assert len({step.message_id for steps in plans for step in steps}) == sum(map(len, plans))


def test_fates_are_moves_a_referral_can_make() -> None:
    follows = {
        "": {"ACEPTADA", "RECHAZADA"},
        "ACEPTADA": {"AGENDADA", "EN_PROCESO", "RESULTADO"},
        "AGENDADA": {"NO_ACUDIO", "EN_PROCESO", "RESULTADO"},
        "NO_ACUDIO": {"RECHAZADA"},
        "EN_PROCESO": {"RESULTADO"},
    }
    for number in range(2000):
        events = ["", *(step.event for step in plan("mspbs", 1, str(number)))]
        assert all(later in follows[earlier] for earlier, later in pairwise(events))


def test_reasons_are_codes_of_the_gateway_for_that_event() -> None:
    reasons = code_list("reasons")
    assert set(_OUTCOMES.values()) <= set(code_list("outcomes"))
    for number in range(4000):
        for step in plan("mspbs", 1, str(number)):
            use = "decline" if step.event == "RECHAZADA" else "not_provided"
            assert bool(step.reason) == (step.event == "RECHAZADA" or step.outcome == "NO_PRESTADO")
            assert not step.reason or use in reasons[_REASONS[step.reason]]["use"]
