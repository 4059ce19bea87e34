"""Every move of a referral over the real service, every other pair refused, and histories that replay to their row."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from referral_desk import Desk

from audit.search import recent
from gateway import errors
from gateway.referrals import moves, states
from gateway.referrals.models import ReferralEvent
from gateway.vault import load_epochs
from schemas.codes import code_list

EVENTS = tuple(code_list("referral-events"))
PARTY = {event: spec["actor"] for event, spec in code_list("referral-events").items()}
pytestmark = pytest.mark.asyncio(loop_scope="module")
# Of these the gateway itself is the door: nobody reports them.
OURS = frozenset({"send"})


def replayed(happened: list[ReferralEvent]) -> dict[str, Any]:
    """Sum up a history, independently of how the row was kept: state and milestones."""
    row: dict[str, Any] = dict.fromkeys(("received_at", "accepted_at", "closed_at", "outcome", "end_reason"))
    row |= {"state": happened[0].state_after, "no_shows": 0, "reopened": 0}
    for event in happened[1:]:
        assert event.state_before == row["state"]
        assert event.state_after == states.TRANSITIONS.get((row["state"], event.type), row["state"])
        row["state"] = event.state_after
        row["received_at"] = event.at if event.type in ("send", "claim") else row["received_at"]
        row["accepted_at"] = event.at if event.type in ("accept", "claim") else row["accepted_at"]
        row["no_shows"] += event.type == "no_show"
        if event.type == "reopen":
            row |= {"closed_at": None, "outcome": None, "end_reason": None, "reopened": row["reopened"] + 1}
        if row["state"] in states.TERMINAL:
            facts = event.facts
            row |= {"closed_at": event.at, "outcome": facts.get("outcome"), "end_reason": facts.get("reason")}
    return row


async def check_history(desk: Desk, referral: UUID) -> str:
    _current, happened, row = await desk.seen(referral)
    assert [event.number for event in happened] == list(range(1, len(happened) + 1))
    expected = replayed(happened)
    assert {name: row[name] for name in expected} == expected
    return str(row["state"])


@pytest.mark.parametrize("state", sorted(states.BUSINESS_STATUS))
async def test_every_pair_moves_as_the_table_says_or_is_refused_naming_what_is_legal(desk: Desk, state: str) -> None:
    still = await desk.bring(state)
    for event in EVENTS:
        way = states.path(state, event)
        if way is None:
            with pytest.raises((errors.Conflict, errors.NotFound)) as caught:
                await desk.do(still, event)
            if isinstance(caught.value, errors.Conflict) and event != "claim":
                assert caught.value.code == "out-of-order"
                assert caught.value.told == {"state": state, "legal": moves.legal_for(state, PARTY[event])}
            # Nobody is the recipient of an open referral, and nobody else learns of it.
            assert isinstance(caught.value, errors.Conflict) or state == states.OPEN or event == "claim"
            continue
        moved = await desk.bring(state)
        await desk.do(moved, event)
        after = state
        for each in way:
            after = states.TRANSITIONS[(after, each)]
        assert await check_history(desk, moved) == after
    assert await check_history(desk, still) == state


async def test_a_refused_move_is_on_record_with_state_and_reason(desk: Desk) -> None:
    referral = await desk.bring("completed")
    with pytest.raises(errors.Conflict) as closed:
        await desk.report(referral, "accept")
    with pytest.raises(errors.NotFound) as foreign:
        await desk.report(referral, "accept", by="MDS")
    async with desk.runtime.database.connection() as connection:
        epochs = load_epochs(desk.runtime.settings.keys_dir, create=False)
        entries = await recent(connection, epochs, 2, type="referral.refused")
    told = {entry.entry_id: (entry.detail or {})["exchange"] for entry in entries}
    assert closed.value.receipt is not None
    assert foreign.value.receipt is not None
    assert told[closed.value.receipt.entry_id]["state_before"] == "completed"
    assert told[foreign.value.receipt.entry_id]["reason"] == "not-found"
    assert "state_before" not in told[foreign.value.receipt.entry_id]


DOORS = st.sampled_from([*(event for event in EVENTS if event not in OURS), "note-to-recipient", "split"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(DOORS, max_size=14), is_open=st.booleans())
async def test_any_history_replays_to_the_row_it_left(desk: Desk, events: list[str], is_open: bool) -> None:
    referral = await desk.bring("open" if is_open else "created")
    for event in events:
        # What is refused leaves no trace in the history.
        with suppress(errors.Conflict, errors.NotFound):
            if event == "note-to-recipient":
                await desk.step(referral, "note")
            elif event == "split":
                await desk.split(referral, ("specialised-consultation",), by="MSPBS")
            else:
                await desk.do(referral, event)
        await check_history(desk, referral)
