"""Events: told if and only if true, in order, to the parties alone; pulled, confirmed, and never lost silently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from events_desk import ALL, ASKS, ASUNCION, ELSE, GIVES, Desk, kinds, make_desk, system
from rights_office import Office
from sqlalchemy import select

from consent.agreements import list_histories
from consent.models import Actor
from gateway import errors
from gateway.boards import store as boards
from gateway.catalogue.service import services
from gateway.events.service import publish
from gateway.events.tables import event
from gateway.governance.agreements import step
from gateway.referrals import states
from gateway.subscriptions.tables import subscription, waiting
from schemas.codes import code_list
from schemas.ids import uuid7


@pytest_asyncio.fixture
async def desk(office: Office) -> AsyncIterator[Desk]:
    async with office.context.database.connection() as connection:
        await office.policies.load(connection)
        service = next(each.code for each in (await services(connection)).values() if each.institution == GIVES)
    opened = make_desk(office, service)
    await opened.clear()
    yield opened


def test_every_event_of_the_state_table_has_a_type_to_subscribe_to() -> None:
    named = {f"referral.{event}" for _state, event in states.TRANSITIONS} | {
        f"referral.{event}" for event in code_list("referral-events")
    }
    assert named <= set(code_list("event-types"))


async def test_an_event_is_published_with_what_it_tells_of_or_not_at_all(desk: Desk) -> None:
    number = await desk.refer()
    async with desk.office.context.database.connection() as connection:
        await desk.add(connection, number, "send")
        await connection.rollback()
    async with desk.office.context.database.connection() as connection:
        rows = (await connection.execute(select(event))).all()
    assert [(row.type, row.sequence, row.pending) for row in rows] == [("referral.create", 1, True)]
    row = rows[0]
    assert set(row.institutions) == {ASKS, GIVES}
    assert (row.department, row.district, row.service) == (*ASUNCION, desk.service)
    assert row.facts == {"state": "created", "priority": "routine"}, "codes only"


async def test_what_commits_late_is_told_though_its_number_is_lower(desk: Desk) -> None:
    early, late = await desk.refer(), await desk.refer()
    mine, _ = await desk.subscribe(ALL)
    async with desk.office.context.database.transaction() as connection:
        await desk.add(connection, early, "send")
        await desk.move(late, "send")
        told = kinds(await desk.pull(ALL, mine), early)
        assert told == ["referral.create"]
    assert kinds(await desk.pull(ALL, mine), early) == [], "an earlier one of the referral is handed out still"
    desk.office.at += timedelta(minutes=2)
    assert kinds(await desk.pull(ALL, mine), early) == ["referral.create", "referral.send"]


async def test_two_workers_give_each_event_once_and_in_order(desk: Desk) -> None:
    mine, _ = await desk.subscribe(ASKS)
    number = await desk.refer()
    await desk.move(number, "send", "accept", "schedule", "no_show", "reschedule", "note", "outcome")
    for _round in range(4):
        await asyncio.gather(desk.push.hand_on(), desk.push.hand_on(), desk.push.hand_on())
    messages = await desk.pull(ASKS, mine)
    assert [each["data"]["sequence"] for each in messages] == list(range(1, 9))
    assert [each["data"]["position"] for each in messages] == list(range(1, 9))
    assert len({each["id"] for each in messages}) == 8


async def test_an_institution_that_is_no_party_learns_nothing_and_the_recipient_nothing_of_the_sending(
    desk: Desk,
) -> None:
    of = {code: (await desk.subscribe(code))[0] for code in (ASKS, GIVES, ELSE, ALL)}
    number = await desk.refer()
    await desk.move(number, "attempt_failed", "send", "accept", actor=GIVES)
    told = {code: kinds(await desk.pull(code, which)) for code, which in of.items()}
    whole = ["referral.create", "referral.attempt_failed", "referral.send", "referral.accept"]
    assert told == {ASKS: whole, ALL: whole, GIVES: ["referral.send", "referral.accept"], ELSE: []}
    seen = await desk.state(ELSE, of[ELSE])
    assert (seen.waiting, seen.position) == (0, 0)


async def test_a_recipient_learns_nothing_of_a_referral_that_it_does_not_have(desk: Desk) -> None:
    asks, gives = (await desk.subscribe(ASKS))[0], (await desk.subscribe(GIVES))[0]
    await desk.move(await desk.refer(), "reminder", "request_cancel", "confirm_cancel", actor=ASKS)
    assert len(await desk.pull(ASKS, asks)) == 4
    assert await desk.pull(GIVES, gives) == []


async def test_a_subscription_of_somebody_else_is_as_one_that_is_not_there(desk: Desk) -> None:
    theirs, _ = await desk.subscribe(ASKS)
    await desk.refer()
    [message] = await desk.pull(ASKS, theirs)
    stranger, lease = system(ELSE), timedelta(seconds=60)
    for which in (theirs, uuid7()):
        for refused in (
            desk.subscriptions.read(stranger, which),
            desk.subscriptions.next(stranger, which, limit=1, lease=lease),
            desk.subscriptions.confirm(stranger, which, [UUID(message["id"])]),
            desk.subscriptions.change(stranger, desk.subscriptions.removing(which)),
        ):
            with pytest.raises(errors.NotFound):
                await refused
    assert await desk.subscriptions.page(stranger, after=None, limit=50) == []
    assert await desk.count(waiting) == 1


async def test_whoever_is_no_party_any_more_when_it_is_delivered_learns_nothing(desk: Desk) -> None:
    before, after = (await desk.subscribe(GIVES))[0], (await desk.subscribe(ELSE))[0]
    number = await desk.refer()
    await desk.move(number, "send")
    await desk.push.hand_on()
    assert (await desk.state(GIVES, before)).waiting == 1
    await desk.change(number, recipient=ELSE)
    await desk.move(number, "accept", actor=ELSE)
    assert await desk.pull(GIVES, before) == []
    assert (await desk.state(GIVES, before)).waiting == 0
    assert kinds(await desk.pull(ELSE, after)) == ["referral.accept"]


async def test_nobody_is_told_of_a_referral_whose_person_is_erased(desk: Desk) -> None:
    of = {code: (await desk.subscribe(code))[0] for code in (ASKS, ALL)}
    number = await desk.refer()
    await desk.push.hand_on()
    await desk.change(number, texts=None)
    assert [await desk.pull(code, which) for code, which in of.items()] == [[], []]


async def test_who_acts_for_the_board_of_a_place_learns_of_its_priority_track_alone(desk: Desk) -> None:
    mine, _ = await desk.subscribe(ELSE)
    row = {"code": "MESA-CAPITAL", "names": {"es": "M", "en": "B"}, "institution": ELSE}
    async with desk.office.context.database.transaction() as connection:
        await boards.add(connection, {**row, "department": ASUNCION[0], "district": None}, desk.office.at)
    await desk.refer()
    urgent = await desk.refer(priority="priority_track")
    await desk.move(urgent, "attempt_failed", "send")
    assert kinds(await desk.pull(ELSE, mine), urgent) == ["referral.create", "referral.send"]
    async with desk.office.context.database.transaction() as connection:
        await boards.end(connection, "MESA-CAPITAL", desk.office.at)
    await desk.move(urgent, "accept")
    desk.office.at += timedelta(minutes=2)
    assert await desk.pull(ELSE, mine) == []


async def test_who_could_claim_an_open_referral_learns_of_it_until_somebody_has(desk: Desk) -> None:
    async with desk.office.context.database.connection() as connection:
        offered = (await services(connection)).values()
    theirs = next(each.code for each in offered if each.institution == ELSE)
    of = {
        "whole": (await desk.subscribe(ELSE))[0],
        "own": (await desk.subscribe(ELSE, services=[theirs], parts=["candidate"]))[0],
        "foreign": (await desk.subscribe(ELSE, services=[desk.service]))[0],
    }
    bystander, _ = await desk.subscribe("INDI")
    number = await desk.refer(recipient=ALL)
    await desk.change(number, state="open", candidates=[desk.service, theirs])
    for name, expected in (("whole", 1), ("own", 1), ("foreign", 0)):
        told = await desk.pull(ELSE, of[name])
        assert [(each["type"], each["data"]["service"]) for each in told] == [("referral.create", theirs)] * expected
    assert await desk.pull("INDI", bystander) == []
    await desk.change(number, state="accepted", recipient=GIVES)
    await desk.move(number, "note")
    desk.office.at += timedelta(minutes=2)
    assert await desk.pull(ELSE, of["whole"]) == [], "not even what it was told before, and did not confirm"


async def test_the_parties_of_an_agreement_learn_that_it_is_suspended_and_resumed(desk: Desk) -> None:
    async with desk.office.context.database.connection() as connection:
        agreement = next(iter(await list_histories(connection, status="active", limit=1)))
    code, parties = agreement.versions[0].agreement.code, agreement.parties
    stranger = next(each for each in (ASKS, GIVES, ELSE) if each not in parties)
    of = {institution: (await desk.subscribe(institution))[0] for institution in (*parties, stranger)}
    machine = Actor(user="uid:0", institution=None)
    for name in ("suspend", "resume"):
        async with desk.office.context.database.transaction() as connection:
            await step(connection, code, name, actor=machine, party=min(parties), at=desk.office.at)
    told = {institution: await desk.pull(institution, which) for institution, which in of.items()}
    both = [("agreement.suspended", code, "suspended"), ("agreement.resumed", code, "active")]
    assert {
        institution: [(each["type"], each["data"]["agreement"], each["data"]["status"]) for each in messages]
        for institution, messages in told.items()
    } == {**dict.fromkeys(parties, both), stranger: []}


async def test_other_events_go_to_those_they_name(desk: Desk) -> None:
    of = {code: (await desk.subscribe(code))[0] for code in (ASKS, ELSE)}
    number = await desk.refer()
    async with desk.office.context.database.transaction() as connection:
        common: dict[str, Any] = {"type": "status.changed", "at": desk.office.at, "referral_id": number}
        await publish(connection, institutions=[ASKS, GIVES, ELSE], service=desk.service, **common)
    assert kinds(await desk.pull(ASKS, of[ASKS])) == ["referral.create", "status.changed"]
    assert await desk.pull(ELSE, of[ELSE]) == [], "named, but no party to the referral"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"types": ["referral.accept"]}, ["referral.accept"]),
        ({"parts": ["requester"]}, []),
        ({"parts": ["recipient"]}, ["referral.send", "referral.accept"]),
        ({"departments": ["00"]}, ["referral.send", "referral.accept"]),
        ({"departments": ["01"]}, []),
        ({"departments": ["01"], "districts": ["0000"]}, ["referral.send", "referral.accept"]),
        ({"districts": ["0101"]}, []),
    ],
)
async def test_a_filter_lets_through_what_was_asked_for(
    desk: Desk, wanted: dict[str, list[str]], told: list[str]
) -> None:
    mine, _ = await desk.subscribe(GIVES, **wanted)
    await desk.move(await desk.refer(), "send", "accept")
    assert kinds(await desk.pull(GIVES, mine)) == told


@pytest.mark.parametrize(
    ("wanted", "pointer", "among"),
    [
        ({"types": ["referral.sent"]}, "/types", "referral.send"),
        ({"types": ["subscription.gap"]}, "/types", "referral.send"),
        ({"services": ["no-hay"]}, "/services", None),
        ({"departments": ["18"]}, "/departments", "00"),
        ({"districts": ["0199"]}, "/districts", "0101"),
        ({"districts": ["101"]}, "/districts", "1001"),
        ({"parts": ["holder"]}, "/parts", "requester"),
    ],
)
async def test_a_code_that_does_not_exist_is_refused_with_those_that_do(
    desk: Desk, wanted: dict[str, list[str]], pointer: str, among: str | None
) -> None:
    with pytest.raises(errors.BadRequest) as refused:
        await desk.subscribe(ASKS, **wanted)
    assert (refused.value.code, refused.value.pointer) == ("unknown-code", pointer)
    assert (among or desk.service) in refused.value.allowed
    assert await desk.count(subscription) == 0


async def test_what_is_not_confirmed_comes_again_in_order_and_what_is_does_not(desk: Desk) -> None:
    mine, _ = await desk.subscribe(ASKS)
    one = await desk.refer()
    await desk.move(one, "send")
    two = await desk.refer()
    first = await desk.pull(ASKS, mine, limit=1)
    assert kinds(first, one) == ["referral.create"]
    assert kinds(await desk.pull(ASKS, mine), two) == ["referral.create"], "another referral does not wait for it"
    assert await desk.pull(ASKS, mine) == []
    ids = [UUID(first[0]["id"])]
    assert await desk.subscriptions.confirm(system(ASKS), mine, ids) == 1
    assert await desk.subscriptions.confirm(system(ASKS), mine, ids) == 0, "again is harmless"
    assert kinds(await desk.pull(ASKS, mine), one) == ["referral.send"]
    desk.office.at += timedelta(minutes=2)
    again = await desk.pull(ASKS, mine)
    assert [(each["type"], each["data"]["referral"]) for each in again] == [
        ("referral.send", str(one)),
        ("referral.create", str(two)),
    ]


async def test_what_was_dropped_as_too_old_leaves_a_gap_that_is_told(desk: Desk) -> None:
    mine, _ = await desk.subscribe(ASKS)
    late, _ = await desk.subscribe(GIVES)
    old = await desk.refer()
    await desk.move(old, "send")
    await desk.push.hand_on()
    desk.office.at += timedelta(days=20)
    await desk.move(old, "accept")
    await desk.push.hand_on()
    desk.office.at += timedelta(days=20)
    await desk.drop_old(30)
    gap, accepted = await desk.pull(ASKS, mine)
    assert (gap["type"], gap["data"]["dropped"]) == ("subscription.gap", 2)
    assert accepted["type"] == "referral.accept"
    assert [each["data"].get("dropped") for each in await desk.pull(GIVES, late)] == [1, None]
    # Not taken either, the gap grows.
    desk.office.at += timedelta(days=20)
    await desk.drop_old(30)
    [gap] = await desk.pull(ASKS, mine)
    assert (gap["type"], gap["data"]["dropped"]) == ("subscription.gap", 3)
    await desk.subscriptions.confirm(system(ASKS), mine, [UUID(gap["id"])])
    assert (await desk.state(ASKS, mine)).waiting == 0


async def test_events_that_nobody_waits_for_are_dropped_when_old_and_pending_ones_never(desk: Desk) -> None:
    await desk.refer()
    desk.office.at += timedelta(days=40)
    await desk.drop_old(30)
    assert await desk.count(event) == 1, "nobody was given it yet"
    await desk.push.hand_on()
    await desk.drop_old(30)
    assert await desk.count(event) == 0


async def test_an_institution_has_a_bounded_number_of_subscriptions(desk: Desk) -> None:
    for _number in range(20):
        await desk.subscribe(ASKS)
    with pytest.raises(errors.Conflict) as refused:
        await desk.subscribe(ASKS)
    assert refused.value.code == "too-many-subscriptions"
    await desk.subscribe(GIVES)


async def test_a_change_is_in_the_log_without_the_secret(desk: Desk) -> None:
    mine, secret = await desk.subscribe(ASKS, "https://mds.example/avisos")
    await desk.subscriptions.change(system(ASKS), desk.subscriptions.removing(mine))
    entries = [*await desk.office.entries("subscription.created"), *await desk.office.entries("subscription.removed")]
    told = [each for each in entries if str(mine) in str(each)]
    assert len(told) == 2
    assert secret.startswith("whsec_")
    assert secret not in str(told)
    assert await desk.office.rows("SELECT FROM siis.idempotency WHERE answer::text LIKE '%%whsec%%'") == []
