"""Who may do what with a referral, what each learns of it, and what holds when two do it at the same moment."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from referral_desk import ROOM, SMALL, Desk, caller, command
from sqlalchemy import select

from audit.models import LoggedEntry
from audit.search import recent
from consent import people as protection
from gateway import errors
from gateway.catalogue import service as catalogue
from gateway.clock import local_day
from gateway.commands import Done
from gateway.delivery.recall import Recall
from gateway.events.tables import event
from gateway.referrals import store
from gateway.referrals.models import Step
from gateway.registry.merging import Finding, merge
from gateway.vault import load_epochs

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def newest(desk: Desk, kind: str) -> LoggedEntry:
    epochs = load_epochs(desk.runtime.settings.keys_dir, create=False)
    async with desk.runtime.database.connection() as connection:
        [entry] = await recent(connection, epochs, 1, type=kind)
    return entry


def number(done: Done) -> UUID:
    return UUID(done.answer["id"])


def sorted_out(results: list[Done | BaseException]) -> tuple[list[Done], list[errors.Conflict]]:
    """Tell what was done from what was refused; anything else is a failure."""
    done = [each for each in results if isinstance(each, Done)]
    refused = [each for each in results if isinstance(each, errors.Conflict)]
    assert len(done) + len(refused) == len(results), results
    return done, refused


async def test_a_referral_says_where_and_to_whom_the_person_belonged_when_it_was_made(desk: Desk) -> None:
    referral = number(await desk.refer())
    _current, _events, row = await desk.seen(referral)
    told = {name: row[name] for name in ("department", "district", "category", "population")}
    assert told == {
        "department": "11",
        "district": "1113",
        "category": "age-60-plus",
        "population": ["women", "older", "poverty"],
    }


async def test_what_may_not_be_sent_is_nothing_that_its_recipient_can_read(desk: Desk) -> None:
    who = await desk.person()
    referral = number(await desk.refer(who))
    assert (await desk.referrals.read(caller("MSPBS"), referral)).referral.id == referral
    async with desk.runtime.database.transaction() as connection:
        await protection.set_flag(connection, who, "aggressor", target="MSPBS", at=desk.at)
    with pytest.raises(errors.NotFound):
        await desk.referrals.read(caller("MSPBS"), referral)
    assert (await desk.referrals.read(caller("UTGS"), referral)).referral.id == referral


async def received(desk: Desk, limit: int = 200) -> dict[UUID, UUID | None]:
    """Return what the recipient's list holds from here on, page by page: the numbers, and what each repeats."""
    found: dict[UUID, UUID | None] = {}
    after = None
    while True:
        lines, receipt = await desk.referrals.listed(caller("MSPBS"), sent=False, states=(), after=after, limit=limit)
        assert receipt.entry_id == (await newest(desk, "referral.listed")).entry_id
        found |= {each.id: each.duplicate_of for each in lines}
        if len(lines) < limit:
            return found
        after = lines[-1].id


async def test_the_list_of_a_recipient_shows_what_it_could_read_and_nothing_that_it_may_not_be_sent(desk: Desk) -> None:
    open_, closed = await desk.person(), await desk.person()
    refused, first = number(await desk.refer(closed)), number(await desk.refer(open_))
    repeated = number(await desk.refer(open_, requester="MINNA"))
    told = await received(desk)
    assert {refused, first, repeated} <= told.keys()
    assert told[repeated] == first
    sent = number(await desk.refer(closed, requester="MINNA"))
    async with desk.runtime.database.transaction() as connection:
        await store.change(connection, sent, delivery="transmitted")
        await protection.set_flag(connection, closed, "aggressor", target="MSPBS", at=desk.at)
    told = await received(desk)
    # What it has been sent it has; of what it may not be sent it learns neither directly nor as a repetition.
    assert refused not in told
    assert told[sent] is None
    assert (await desk.referrals.read(caller("MSPBS"), sent)).duplicate_of is None
    # A page is full, whatever is left out of it.
    assert (await received(desk, limit=1)).keys() == told.keys()
    lines, _receipt = await desk.referrals.listed(caller("UTGS"), sent=True, states=(), after=None, limit=200)
    assert refused in {each.id for each in lines}


async def test_a_result_changes_the_status_and_the_next_referral_knows_since_when_the_service_is_missing(
    desk: Desk,
) -> None:
    who = await desk.person()
    first = number(await desk.refer(who, service="health-control"))
    await desk.report(first, "outcome", outcome="not_provided", reason_code="no-capacity")
    day = local_day(desk.at)
    second = number(await desk.refer(who, service="health-control"))
    assert (await desk.seen(second))[2]["gap_since"] == day
    await desk.report(second, "outcome", outcome="provided")
    _current, happened, row = await desk.seen(second)
    assert row["status_changed_at"] == happened[-1].at
    async with desk.runtime.database.connection() as connection:
        told = select(event).where(event.c.type == "status.changed", event.c.referral_id.in_([first, second]))
        rows = (await connection.execute(told)).all()
    assert [(each.referral_id, each.at, each.institutions) for each in rows] == [
        (first, (await desk.seen(first))[2]["status_changed_at"], ["MSPBS", "UTGS"]),
        (second, row["status_changed_at"], ["MSPBS", "UTGS"]),
    ]
    third = number(await desk.refer(who, service="health-control"))
    assert (await desk.seen(third))[2]["gap_since"] is None


async def test_a_repeated_referral_is_refused_to_its_sender_with_the_number_of_the_first(desk: Desk) -> None:
    who = await desk.person()
    first = number(await desk.refer(who))
    with pytest.raises(errors.Conflict) as refused:
        await desk.refer(who)
    assert (refused.value.code, refused.value.told) == ("already-referred", {"referral": str(first)})
    # Meant as another need it goes, and so does it once the first is closed.
    second = number(await desk.refer(who, additional=True))
    await desk.report(first, "decline")
    third = number(await desk.refer(who))
    # The recipient alone is told that they repeat one another.
    assert (await desk.referrals.read(caller("MSPBS"), third)).duplicate_of == second
    assert (await desk.referrals.read(caller("UTGS"), third)).duplicate_of is None


async def test_records_found_to_be_one_person_have_one_referral_and_repeat_one_another(desk: Desk) -> None:
    who, twice = await desk.person(), await desk.person()
    theirs, ours = number(await desk.refer(twice, requester="MINNA")), number(await desk.refer(twice))
    known = await catalogue.Catalogue(desk.runtime.database).services()
    finding = Finding(by="UTGS", reason="double-form", at=desk.at, confirmed=True)
    async with desk.runtime.database.transaction() as connection:
        await merge(connection, desk.runtime.vault, known, who, twice, finding)
    third = number(await desk.refer(who, additional=True))
    assert (await desk.referrals.read(caller("MSPBS"), third)).duplicate_of == theirs
    with pytest.raises(errors.Conflict) as refused:
        await desk.refer(who)
    assert (refused.value.code, refused.value.told) == ("already-referred", {"referral": str(ours)})
    # Meant beside it, it goes; and so does any once the first is closed.
    await desk.report(ours, "decline")
    assert (await desk.refer(who)).status == 201


async def test_another_institutions_referral_shows_in_no_answer(desk: Desk) -> None:
    who = await desk.person()
    theirs = number(await desk.refer(who))
    ours = await desk.refer(who, requester="MINNA")
    assert ours.status == 201
    assert str(theirs) not in str(ours.answer)
    assert (await desk.referrals.read(caller("MSPBS"), number(ours))).duplicate_of == theirs
    with pytest.raises(errors.NotFound):
        await desk.referrals.read(caller("MINNA"), theirs)


async def test_two_equal_referrals_at_once_become_one(desk: Desk) -> None:
    who = await desk.person()
    results = await asyncio.gather(*(desk.refer(who) for _ in range(6)), return_exceptions=True)
    done, refused = sorted_out(list(results))
    assert len(done) == 1
    assert {each.told["referral"] for each in refused} == {done[0].answer["id"]}


async def test_the_last_place_of_a_service_is_given_once_and_then_a_bounded_list_waits(desk: Desk) -> None:
    people = [await desk.person() for _ in range(ROOM + 4)]
    results = await asyncio.gather(*(desk.refer(who, service=SMALL) for who in people), return_exceptions=True)
    done, refused = sorted_out(list(results))
    assert len(done) == ROOM
    assert {(each.code, each.told["capacity"]) for each in refused} == {("no-capacity", "waitlist")}
    waiting = [await desk.refer(service=SMALL, waitlist=True) for _ in range(ROOM)]
    assert all(each.answer["waitlist"] for each in waiting)
    assert await desk.referrals.room(SMALL, None) == "no_capacity"
    with pytest.raises(errors.Conflict, match="no-capacity"):
        await desk.refer(service=SMALL, waitlist=True)
    await desk.report(number(done[0]), "decline")
    assert await desk.referrals.room(SMALL, None) == "waitlist"
    assert await desk.referrals.room("vaccination", None) == "has_capacity"


async def test_an_open_referral_shows_nothing_of_the_person_until_one_of_its_services_claims_it(desk: Desk) -> None:
    referral = await desk.open()
    for institution, service in (("MSPBS", "vaccination"), ("MDS", "tekopora")):
        found, _receipt = await desk.referrals.claimable(caller(institution), after=None, limit=200)
        [mine] = [each for each in found if each.id == referral]
        assert (mine.services, mine.district, mine.category) == ((service,), "1113", "age-60-plus")
    assert referral not in {
        each.id for each in (await desk.referrals.claimable(caller("MINNA"), after=None, limit=200))[0]
    }
    with pytest.raises(errors.NotFound):
        await desk.claim(referral, by="MINNA")
    with pytest.raises(errors.NotFound):
        await desk.claim(referral, by="MSPBS", service="tekopora")
    again = command()
    done = await desk.referrals.claim(caller("MDS"), again, referral, "tekopora")
    assert done.answer["person"]["surnames"] == "Ficticia"
    entry = await newest(desk, "referral.claimed")
    assert (entry.detail or {})["actor"]["institution"] == "MDS"
    assert str(entry.entry_id) == done.answer["receipt"]["entry_id"]
    current, _events, row = await desk.seen(referral)
    assert (current.state, current.recipient, current.service) == ("accepted", "MDS", "tekopora")
    assert row["received_at"] == row["accepted_at"] is not None
    # The answer may have got lost: its repetition shows the person again, on record again.
    repeated = await desk.referrals.claim(caller("MDS"), again, referral, "tekopora")
    assert repeated.answer["person"] == done.answer["person"]
    assert repeated.answer["receipt"] != done.answer["receipt"]
    with pytest.raises(errors.Conflict, match="already-claimed"):
        await desk.claim(referral, by="MSPBS")


async def test_of_two_who_claim_at_once_one_gets_it(desk: Desk) -> None:
    for _ in range(5):
        referral = await desk.open()
        results = await asyncio.gather(
            desk.claim(referral, by="MSPBS"), desk.claim(referral, by="MDS"), return_exceptions=True
        )
        [done], [refused] = sorted_out(list(results))
        assert refused.code == "already-claimed"
        current, happened, _row = await desk.seen(referral)
        assert [event.type for event in happened] == ["create", "claim"]
        assert happened[1].actor == current.recipient
        assert done.answer["service"] == current.service


async def test_an_open_referral_goes_to_nobody_whom_the_requester_could_not_refer_to(desk: Desk) -> None:
    with pytest.raises(errors.Denied):
        await desk.refer(service="vaccination", candidates=("vaccination", "school-enrolment"))


async def test_whoever_is_barred_from_the_person_learns_nothing_by_claiming(desk: Desk) -> None:
    who = await desk.person()
    async with desk.runtime.database.transaction() as connection:
        await protection.set_flag(connection, who, "aggressor", target="MDS", at=desk.at)
    referral = await desk.open(person=who)
    with pytest.raises(errors.NotFound):
        await desk.claim(referral, by="MDS")
    entry = await newest(desk, "referral.claim_denied")
    assert (entry.detail or {})["actor"]["institution"] == "MDS"
    assert (await desk.seen(referral))[0].state == "open"
    assert (await desk.claim(referral, by="MSPBS")).status == 201


async def test_a_cancellation_and_a_result_at_once_end_in_the_order_in_which_they_came(desk: Desk) -> None:
    ends = set()
    for _ in range(5):
        referral = await desk.bring("accepted")
        results = await asyncio.gather(
            desk.step(referral, "request_cancel"), desk.report(referral, "outcome"), return_exceptions=True
        )
        sorted_out(list(results))
        current, happened, _row = await desk.seen(referral)
        assert current.state == "completed"
        ends.add(tuple(event.type for event in happened[3:]))
    assert ends <= {("request_cancel", "outcome"), ("outcome",)}


async def test_the_recipient_is_told_of_what_the_requester_does(desk: Desk) -> None:
    referral = await desk.bring("accepted")
    await desk.step(referral, "note")
    await desk.report(referral, "decline")
    await desk.step(referral, "reopen")
    await desk.step(referral, "request_cancel")
    _current, happened, _row = await desk.seen(referral)
    async with desk.runtime.database.connection() as connection:
        rows = await connection.exec_driver_sql(
            "SELECT kind, event_number FROM siis.message WHERE referral_id = %s ORDER BY number", (referral,)
        )
        told = [(row.kind, happened[row.event_number - 1].type) for row in rows]
    assert told == [("note", "requester_note"), ("reopen", "reopen"), ("cancel", "request_cancel")]


async def test_only_the_requester_takes_its_steps_and_a_closed_one_gets_no_note(desk: Desk) -> None:
    referral = await desk.bring("rejected")
    for institution in ("MSPBS", "MDS"):
        with pytest.raises(errors.NotFound):
            await desk.step(referral, "reopen", by=institution)
    with pytest.raises(errors.Conflict) as refused:
        await desk.step(referral, "note")
    assert refused.value.told == {"state": "rejected", "legal": ["reopen"]}
    with pytest.raises(errors.BadRequest):
        await desk.referrals.step(
            caller("UTGS"), command(), referral, Step(event="request_cancel", reason_code="not-eligible")
        )


async def test_a_referral_is_not_reopened_beside_a_newer_one(desk: Desk) -> None:
    who = await desk.person()
    first = number(await desk.refer(who))
    await desk.report(first, "decline")
    await desk.refer(who)
    with pytest.raises(errors.Conflict, match="already-referred"):
        await desk.step(first, "reopen")


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [
        (({"outcome": "provided"}, {"outcome": "provided"}), "provided"),
        (({"outcome": "provided"}, {"outcome": "not_provided", "reason_code": "no-capacity"}), "partly_provided"),
        (({"event": "decline"}, {"outcome": "not_provided", "reason_code": "no-capacity"}), "not_provided"),
    ],
)
async def test_a_split_referral_is_completed_by_its_last_part(
    desk: Desk, ends: tuple[dict[str, str], dict[str, str]], outcome: str
) -> None:
    whole = number(await desk.refer(service="abrazo"))
    parts = await desk.split(whole, ("vaccination", "tekopora"))
    by = {"vaccination": "MSPBS", "tekopora": "MDS"}
    shown = await desk.referrals.read(caller("UTGS"), whole)
    assert (shown.referral.state, {part.id for part in shown.parts}) == ("active", set(parts))
    for part, end in zip(shown.parts, ends, strict=True):
        assert (await desk.seen(whole))[0].state == "active"
        await desk.report(part.id, **{"event": "outcome", **end, "by": by[part.service]})
    current, happened, row = await desk.seen(whole)
    assert (current.state, row["outcome"]) == ("completed", outcome)
    assert happened[-1].synthesised
    # Whoever gave a part knows nothing of the whole.
    with pytest.raises(errors.NotFound):
        await desk.referrals.read(caller("MDS"), whole)


async def test_the_last_two_parts_closed_at_once_complete_the_whole_once(desk: Desk) -> None:
    for _ in range(8):
        whole = number(await desk.refer(service="abrazo"))
        first, second = await desk.split(whole, ("tekopora", "vaccination"))
        # A rejection brings no fact about the person, over which the two would wait for one another anyhow.
        await asyncio.gather(desk.report(first, "decline", by="MDS"), desk.report(second, "decline", by="MSPBS"))
        _current, happened, row = await desk.seen(whole)
        assert [event.type for event in happened].count("outcome") == 1
        assert (row["state"], row["outcome"]) == ("completed", "not_provided")


async def test_a_part_taken_back_before_anything_was_sent_closes_the_whole_too(desk: Desk) -> None:
    whole = number(await desk.refer(service="abrazo"))
    [part] = await desk.split(whole, ("tekopora",))
    await desk.step(part, "request_cancel", by="MINNA")
    house = desk.runtime
    recall = Recall(
        database=house.database,
        vault=house.vault,
        audit=house.audit,
        policies=house.policies,
        now=desk.referrals._desk.now,
    )
    await recall.recall(part)
    current, happened, _row = await desk.seen(part)
    assert (current.state, current.delivery, happened[-1].synthesised) == ("cancelled", "withheld", True)
    assert (await desk.seen(whole))[0].state == "completed"


async def test_parts_are_made_all_or_none(desk: Desk) -> None:
    whole = number(await desk.refer(service="abrazo"))
    with pytest.raises(errors.Denied):
        await desk.split(whole, ("tekopora", "school-enrolment"))
    with pytest.raises(errors.BadRequest) as unknown:
        await desk.split(whole, ("tekopora", "no-such-service"))
    assert unknown.value.pointer == "/parts/1/service"
    with pytest.raises(errors.NotFound):
        await desk.split(whole, ("vaccination",), by="UTGS")
    assert (await desk.referrals.read(caller("MINNA"), whole)).parts == []


async def test_a_list_has_an_institutions_own_referrals_alone(desk: Desk) -> None:
    who = await desk.person()
    ours, other = number(await desk.refer(who, service="tekopora")), number(await desk.refer(who, service="abrazo"))
    await desk.report(ours, "decline", by="MDS")

    async def listed(institution: str, *, sent: bool, states: tuple[str, ...] = ()) -> set[UUID]:
        found: set[UUID] = set()
        after = None
        while True:
            page, _receipt = await desk.referrals.listed(
                caller(institution), sent=sent, states=states, after=after, limit=20
            )
            assert all((each.requester if sent else each.recipient) == institution for each in page)
            found |= {each.id for each in page}
            if len(page) < 20:
                return found
            after = page[-1].id

    assert {ours, other} <= await listed("UTGS", sent=True)
    assert ours in await listed("MDS", sent=False) & await listed("MDS", sent=False, states=("rejected",))
    assert ours not in await listed("MDS", sent=False, states=("created",))
    assert other not in await listed("MDS", sent=False)
    assert not {ours, other} & await listed("MINNA", sent=True)
    entry = await newest(desk, "referral.listed")
    assert "Ficticia" not in str(entry.detail)
