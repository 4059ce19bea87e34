"""The state table of referrals: every legal move of BSeR and ours, and every other pair refused."""

from __future__ import annotations

import itertools

import pytest

from gateway.referrals import states
from schemas.codes import code_list

# BSeR 2.0.0-ballot, harmonised transitions, written out a second time from the published drawing: (from, event) → to.
BSER = {
    ("created", "send"): "received",
    ("received", "accept"): "accepted",
    ("received", "decline"): "rejected",
    ("received", "request_cancel"): "cancel_requested",
    ("accepted", "decline"): "rejected",
    ("accepted", "schedule"): "scheduled",
    ("accepted", "request_cancel"): "cancel_requested",
    ("accepted", "note"): "event_done",
    ("accepted", "outcome"): "completed",
    ("scheduled", "decline"): "rejected",
    ("scheduled", "reschedule"): "scheduled",
    ("scheduled", "no_show"): "unattended",
    ("scheduled", "appointment_cancelled"): "appointment_cancelled",
    ("scheduled", "request_cancel"): "cancel_requested",
    ("scheduled", "note"): "event_done",
    ("scheduled", "outcome"): "completed",
    ("unattended", "decline"): "rejected",
    ("unattended", "reschedule"): "scheduled",
    ("unattended", "appointment_cancelled"): "appointment_cancelled",
    ("unattended", "request_cancel"): "cancel_requested",
    ("appointment_cancelled", "schedule"): "scheduled",
    ("appointment_cancelled", "request_cancel"): "cancel_requested",
    ("event_done", "decline"): "rejected",
    ("event_done", "schedule"): "scheduled",
    ("event_done", "appointment_cancelled"): "appointment_cancelled",
    ("event_done", "request_cancel"): "cancel_requested",
    ("event_done", "note"): "event_done",
    ("event_done", "outcome"): "completed",
    ("cancel_requested", "confirm_cancel"): "cancelled",
    ("cancel_requested", "outcome"): "completed",
    ("active", "decline"): "rejected",
    ("active", "request_cancel"): "cancel_requested",
}
# What Gravity SDOH Clinical Care 3.0.0 and our users need beside it.
OURS = {
    ("open", "claim"): "accepted",
    ("open", "withdraw"): "cancelled",
    ("created", "request_cancel"): "cancel_requested",
    # Rows 31 and 32 of the drawing: accepted, then under way without more being known.
    ("accepted", "start"): "active",
    ("accepted", "hold"): "on_hold",
    ("active", "schedule"): "scheduled",
    ("active", "note"): "event_done",
    ("active", "hold"): "on_hold",
    ("active", "outcome"): "completed",
    ("scheduled", "hold"): "on_hold",
    ("event_done", "hold"): "on_hold",
    ("on_hold", "resume"): "active",
    ("on_hold", "decline"): "rejected",
    ("on_hold", "request_cancel"): "cancel_requested",
    ("on_hold", "outcome"): "completed",
    ("cancel_requested", "decline"): "rejected",
    ("rejected", "reopen"): "received",
    ("completed", "reopen"): "received",
}
LEGAL = BSER | OURS


def test_the_table_has_exactly_the_legal_moves() -> None:
    # Rows 31 and 32 stand in it once more, as moves of which the detail is not known.
    assert len(BSER) + 2 == 34
    assert states.TRANSITIONS == LEGAL


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(states.BUSINESS_STATUS, code_list("referral-events")))
)
def test_a_path_ends_with_its_event_and_every_step_is_legal(state: str, event: str) -> None:
    steps = states.path(state, event)
    if steps is None:
        assert (state, event) not in LEGAL
        return
    assert steps[-1] == event
    for step in steps:
        assert (state, step) in LEGAL
        state = LEGAL[(state, step)]


def test_a_result_without_acceptance_gets_it_synthesised() -> None:
    assert states.path("received", "outcome") == ("accept", "outcome")
    assert states.path("created", "outcome") == ("send", "accept", "outcome")


@pytest.mark.parametrize("state", sorted(states.TERMINAL))
@pytest.mark.parametrize("event", sorted(code_list("referral-events")))
def test_nothing_but_reopening_moves_a_closed_referral(state: str, event: str) -> None:
    reopens = event == "reopen" and state != "cancelled"
    assert states.path(state, event) == (("reopen",) if reopens else None)


def test_every_state_and_event_of_the_table_is_named() -> None:
    assert {state for state, _ in LEGAL} | set(LEGAL.values()) == set(states.BUSINESS_STATUS)
    assert {event for _, event in LEGAL} == set(code_list("referral-events"))
