"""Boards and cases on a real database: who sits sees the priority track of the place, and nobody else sees a case."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from referral_desk import START, command, prepare
from sqlalchemy import insert
from territory import DEPARTMENT, DISTRICT, ELSEWHERE, Territory, number, open_territory, someone

from consent import agreements
from consent.models import Caller, parse_agreement
from gateway import embedded, errors
from gateway.boards.service import MANAGE, NewBoard, adding, ending, seating, unseating
from gateway.catalogue import service as catalogue
from gateway.referrals.nominal import Filter
from gateway.registry import service as registry
from gateway.registry.models import NewPerson
from gateway.registry.recompute import arrived
from gateway.registry.tables import household
from gateway.settings import Settings, load_settings
from schemas.ids import uuid7

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALL = Filter(limit=200)
HERE, THERE, WHOLE = "mesa-limpio", "mesa-otra", "mesa-central"
ENTITLED = "MTESS"


@pytest.fixture(scope="module")
def prepared(folders: Callable[[str], Path]) -> Iterator[Settings]:
    chosen = load_settings(data_dir=folders("boards") / "data")
    prepare(chosen)
    yield chosen
    embedded.stop(chosen.data_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(prepared: Settings) -> AsyncIterator[Territory]:
    async with open_territory(prepared) as territory:
        for code, district in ((HERE, DISTRICT), (THERE, ELSEWHERE), (WHOLE, None)):
            await territory.board(code, district)
        await _entitle(territory)
        yield territory


async def _entitle(place: Territory) -> None:
    """Let the members who work at one institution see who the referrals are about."""
    known = {each.code: each for each in agreements.demonstration_agreements()}
    document = known["DEMO-UTGS-MSPBS-REFERRAL"].document() | {
        "requester": ENTITLED,
        "holder": "UTGS",
        "datasets": {"board-referrals": ["identifiers", "given_names", "surnames", "district"]},
        "roles": ["board-member"],
    }
    new = parse_agreement(
        {
            **document,
            "code": "MESAS",
            "status": "active",
            "valid_from": (START - timedelta(days=9)).isoformat(),
            "valid_to": None,
        }
    )
    async with place.runtime.database.transaction() as connection:
        await agreements.put_agreement(connection, new, at=START)


_names = iter(f"vocal{number}" for number in range(1000))


async def member(place: Territory, board: str, institution: str = ENTITLED) -> Caller:
    return await place.member(board, next(_names), institution)


async def seen(place: Territory, caller: Caller, board: str, asked: Filter = ALL) -> dict[UUID, dict[str, Any]]:
    shown = await place.boards.referrals(caller, board, asked, form="json")
    return {UUID(row["id"]): row for row in shown.rows}


# Boards


async def test_a_board_gets_a_copy_of_the_priority_track_of_its_place_and_of_nothing_else(place: Territory) -> None:
    ours, plain = await place.tracked(), await place.referral()
    away = await place.tracked(person=await place.desk.person(district=ELSEWHERE))
    assert ours in (got := await seen(place, await member(place, HERE), HERE))
    assert {plain, away}.isdisjoint(got)
    assert got[ours]["person"].keys() == {"identifiers", "given_names", "surnames", "district"}
    assert {ours, away} <= (await seen(place, await member(place, WHOLE), WHOLE)).keys()
    other = await seen(place, await member(place, THERE), THERE)
    assert away in other
    assert ours not in other


async def test_without_an_agreement_a_member_sees_codes_and_each_person_finds_that_it_did(place: Territory) -> None:
    referral = await place.tracked()
    row = (await seen(place, await member(place, HERE, "MEC"), HERE))[referral]
    assert row["person"] is None
    listed = [entry.detail for entry in await place.entries("board.listed", 200)]
    assert str(referral) in {detail["exchange"]["referral"] for detail in listed if detail is not None}


@pytest.mark.parametrize("institution", [ENTITLED, "MEC"])
@pytest.mark.parametrize("kind", ["sealed", "court-order", "aggressor"])
async def test_a_protected_case_is_not_on_the_table(place: Territory, kind: str, institution: str) -> None:
    person = await place.desk.person()
    referral, caller = await place.tracked(person=person), await member(place, HERE, institution)
    assert referral in await seen(place, caller, HERE)
    await place.protect(person, kind, institution if kind == "aggressor" else "")
    assert referral not in await seen(place, caller, HERE)
    withheld = [entry.detail for entry in await place.entries("board.withheld", 50)]
    assert str(referral) in {detail["exchange"]["referral"] for detail in withheld if detail is not None}


async def test_who_has_no_seat_or_no_role_or_lost_one_sees_nothing(place: Territory) -> None:
    caller = await member(place, HERE)
    with pytest.raises(errors.NotFound):
        await seen(place, caller, THERE)
    with pytest.raises(errors.Denied):
        await seen(place, replace(caller, roles=frozenset({"supervisor"})), HERE)
    with pytest.raises(errors.Denied):
        await seen(place, replace(caller, user_verified=False), HERE)
    stranger = await place.holder("board-member", next(_names), ENTITLED)
    with pytest.raises(errors.NotFound):
        await seen(place, stranger, HERE)
    with pytest.raises(errors.NotFound):
        await place.boards.gaps(stranger, HERE)
    [seat] = [each for each in await _members(place, HERE) if each.user == caller.user]
    await place.governance.change_here(unseating(HERE, seat.id))
    with pytest.raises(errors.NotFound):
        await seen(place, caller, HERE)


async def _members(place: Territory, board: str) -> list[Any]:
    administrator = await place.holder("administrator", next(_names), ENTITLED)
    return await place.boards.members(administrator, board)


async def test_seats_are_given_by_the_administrator_of_who_acts_for_the_board_alone(place: Territory) -> None:
    ours = await place.holder("administrator", next(_names), ENTITLED)
    theirs = await place.holder("administrator", next(_names), "MEC")
    giving = seating(HERE, "MEC", next(_names))
    with pytest.raises(errors.NotFound):
        await place.governance.change(theirs, MANAGE, giving)
    with pytest.raises(errors.Denied):
        await place.governance.change(someone(ENTITLED), MANAGE, giving)
    await place.governance.change(ours, MANAGE, giving)
    with pytest.raises(errors.Conflict, match="seat-held"):
        await place.governance.change(ours, MANAGE, giving)
    with pytest.raises(errors.BadRequest, match="unknown-code"):
        await place.governance.change(ours, MANAGE, seating(HERE, "NADIE", "x"))


@pytest.mark.parametrize(
    ("department", "district", "pointer"),
    [("18", None, "/department"), ("11", "0607", "/district"), ("11", "95", "/district"), ("1", None, "/department")],
)
async def test_a_board_of_a_place_that_the_statistics_office_does_not_know_is_refused_with_the_valid_codes(
    place: Territory, department: str, district: str | None, pointer: str
) -> None:
    new = NewBoard(code="x", names={"es": "x"}, department=department, district=district, institution=ENTITLED)
    with pytest.raises(errors.BadRequest) as refused:
        await place.governance.change_here(adding(new))
    assert refused.value.pointer == pointer
    assert refused.value.allowed


async def test_an_ended_board_gets_no_copies_any_more(place: Territory) -> None:
    await place.board("mesa-breve", DISTRICT)
    caller = await member(place, "mesa-breve")
    await seen(place, caller, "mesa-breve")
    await place.governance.change_here(ending("mesa-breve"))
    with pytest.raises(errors.NotFound):
        await seen(place, caller, "mesa-breve")
    assert "mesa-breve" not in {each.code for each in await place.boards.mine(caller)}


# Cases


async def opened(place: Territory, caller: Caller | None = None, **changes: Any) -> tuple[UUID, UUID]:
    """Open a case; return its number and that of its referral."""
    referral = await place.tracked(**changes)
    done = await place.cases.open(caller or someone("UTGS"), referral, "Vive lejos", command())
    return number(done), referral


async def step(place: Territory, case: UUID, caller: Caller | None = None, **asked: Any) -> dict[str, Any]:
    done = await place.cases.step(caller or someone("UTGS"), case, asked, command())
    return done.answer


async def shown(place: Territory, case: UUID, caller: Caller | None = None) -> dict[str, Any]:
    return (await place.cases.read(caller or someone("UTGS"), case))[0]


async def of_a_home(place: Territory) -> tuple[UUID, UUID, UUID, UUID]:
    """Open a case of a mother, with a referral of hers and one of her child's; return the three and the child."""
    home, mother, child = uuid7(), uuid7(), uuid7()
    async with place.runtime.database.transaction() as connection:
        await connection.execute(insert(household).values(id=home, attributes={}))
        persons = [
            NewPerson(each, "Ña", "Eme", (), household_id=home, department=DEPARTMENT, district=DISTRICT)
            for each in (mother, child)
        ]
        await registry.register(connection, place.runtime.vault, persons)
    case, first = await opened(place, person=mother)
    second = await place.tracked(person=child, service="tekopora")
    await step(place, case, step="add_referral", referral=str(second))
    return case, first, second, child


async def test_a_case_holds_the_referrals_of_a_household_with_tasks_barriers_and_notes(place: Territory) -> None:
    case, first, second, _child = await of_a_home(place)
    tomorrow = (place.desk.at + timedelta(days=1)).date().isoformat()
    told = await step(place, case, step="add_task", institution="MDS", due_on=tomorrow, text="Llevar a Ña Eme")
    await step(place, case, step="finish_task", task=told["task"])
    barrier = await step(place, case, step="add_barrier", barrier="violence", referral=str(first))
    await step(place, case, step="overcome_barrier", barrier=barrier["barrier"])
    await step(place, case, step="note", text="Prefiere la tarde")
    whole = await shown(place, case)
    assert [each["id"] for each in whole["referrals"]] == [str(first), str(second)]
    assert [(each["what"], each["done_by"] is not None) for each in whole["tasks"]] == [("Llevar a Ña Eme", True)]
    assert [(each["barrier"], each["overcome_at"] is not None) for each in whole["barriers"]] == [("violence", True)]
    assert [each["text"] for each in whole["notes"]] == ["Prefiere la tarde"]
    assert whole["text"] == "Vive lejos"
    assert whole["board"] == HERE
    changes = [entry.detail for entry in await place.entries("case.changed", 6)]
    assert "violence" not in str(changes)
    for table in ("case_file", "case_task", "case_note"):
        assert "Eme" not in str(await place.rows(f"SELECT * FROM siis.{table}"))  # noqa: S608


async def test_a_case_is_for_who_keeps_it_and_for_the_board_and_every_look_is_an_entry(place: Territory) -> None:
    case, _referral = await opened(place)
    sits = await member(place, HERE, "MEC")
    await shown(place, case, sits)
    [entry] = await place.entries("case.read", 1)
    assert entry.detail is not None
    assert entry.detail["actor"]["institution"] == "MEC"
    assert case in {each.id for each in await place.cases.page(sits, after=None, limit=200)}
    # Its recipient, its task's institution and another board are strangers to it.
    for stranger in (someone("MSPBS"), someone("MEC"), await member(place, THERE, "MEC")):
        with pytest.raises(errors.NotFound):
            await shown(place, case, stranger)
        with pytest.raises(errors.NotFound):
            await step(place, case, stranger, step="note", text="x")
        assert case not in {each.id for each in await place.cases.page(stranger, after=None, limit=200)}
    with pytest.raises(errors.Denied):
        await shown(place, case, someone("UTGS", "system"))


async def test_a_protected_person_has_no_case_to_look_at(place: Territory) -> None:
    person = await place.desk.person()
    case, _referral = await opened(place, person=person)
    await place.protect(person, "sealed")
    with pytest.raises(errors.NotFound):
        await shown(place, case, await member(place, HERE))


@pytest.mark.parametrize("kind", ["sealed", "court-order", "aggressor"])
async def test_whoever_of_a_household_is_protected_later_is_no_more_in_its_case(place: Territory, kind: str) -> None:
    case, first, second, child = await of_a_home(place)
    sits, barrier = await member(place, HERE, "MEC"), {"step": "add_barrier", "barrier": "distance"}
    await step(place, case, sits, **barrier, referral=str(second))
    assert [each["id"] for each in (await shown(place, case, sits))["referrals"]] == [str(first), str(second)]
    await place.protect(child, kind, "MEC" if kind == "aggressor" else "")
    whole = await shown(place, case, sits)
    assert str(second) not in str(whole)
    assert [each["id"] for each in whole["referrals"]] == [str(first)]
    assert [each["barrier"] for each in whole["barriers"]] == ["distance"]
    # Nor does a step say that it is there.
    with pytest.raises(errors.NotFound):
        await step(place, case, sits, **barrier, referral=str(second))


@pytest.mark.parametrize("refused", ["plain", "held", "no-board", "stranger", "another-household"])
async def test_a_case_begins_with_an_own_referral_of_the_priority_track_that_no_other_case_holds(
    place: Territory, refused: str
) -> None:
    caller, reason = someone("UTGS"), {"plain": "not-priority-track", "held": "case-held"}.get(refused, refused)
    if refused == "another-household":
        case, _referral = await opened(place)
        with pytest.raises(errors.Conflict, match=reason):
            await step(place, case, step="add_referral", referral=str(await place.tracked()))
        return
    if refused == "held":
        _case, referral = await opened(place)
    elif refused == "no-board":
        person = await place.desk.person(department="01", district="0101")
        referral = await place.tracked(person=person)
    else:
        referral = await (place.referral() if refused == "plain" else place.tracked())
    if refused == "stranger":
        with pytest.raises(errors.NotFound):
            await place.cases.open(someone("MDS"), referral, None, command())
        return
    with pytest.raises(errors.Conflict, match=reason):
        await place.cases.open(caller, referral, None, command())


async def test_a_closed_case_takes_notes_and_nothing_else_until_it_is_reopened(place: Territory) -> None:
    case, _referral = await opened(place)
    await step(place, case, step="close", text="Se mudó")
    with pytest.raises(errors.Conflict, match="case-closed"):
        await step(place, case, step="add_barrier", barrier="distance")
    await step(place, case, step="note", text="Volvió")
    await step(place, case, step="reopen")
    await step(place, case, step="add_barrier", barrier="distance")
    with pytest.raises(errors.Conflict, match="case-open"):
        await step(place, case, step="reopen")
    assert (await shown(place, case))["state"] == "open"


# Gaps


async def test_gaps_of_the_territory_are_counted_by_service_and_small_counts_hidden_with_what_would_tell_them(
    place: Territory,
) -> None:
    people = [await place.desk.person(district="1105") for _time in range(9)]
    async with place.runtime.database.transaction() as connection:
        for at, person in enumerate(people):
            await connection.exec_driver_sql(
                "INSERT INTO siis.fact (id, person_id, service, protected, source, instrument, observed_on)"
                " VALUES (gen_random_uuid(), %s, 'health-control', %s, 'MSPBS', 'register', '2027-02-01')",
                (person, at >= 7),
            )
        services = await catalogue.services(connection)
        await arrived(connection, services, persons=people, at=place.desk.at, because="fact")
    await place.board("mesa-capiata", "1105")
    board, rows, _receipt = await place.boards.gaps(await member(place, "mesa-capiata"), "mesa-capiata")
    assert board.district == "1105"
    known = {row["service"]: row for row in rows if row["kind"] == "person"}
    assert known["universal-pension"]["units"] == known["universal-pension"]["unknown"] == 9
    # Two who are reached are few, and seven who are not would tell them.
    assert known["health-control"]["units"] == 9
    assert (known["health-control"]["reached"], known["health-control"]["lacking"]) == (None, None)
    [entry] = await place.entries("board.gaps_read", 1)
    assert entry.detail is not None
    assert entry.detail["what"]["board"] == "mesa-capiata"
