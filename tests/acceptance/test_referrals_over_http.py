"""Steps, claims, parts, capacity and lists of referrals through HTTP, on running processes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.cli.demo.clients import Caller
from schemas.ids import uuid7
from tests.acceptance.bad_input import REFERRALS, adults, newcomer, problem, referring, replying
from tests.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")
CANCEL = {"step": "request_cancel", "reason": {"code": "sent-by-mistake"}}


async def get(house: House, caller: Caller, path: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {await caller.bearer()}"}
    return await house.http.get(f"{house.issuer.url}{path}", headers=headers)


async def sent(caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    answer = await caller.post(REFERRALS, body, key=str(uuid7()))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def system(house: House, institution: str) -> Caller:
    return await newcomer(house, institution, "referrals.create", "referrals.read", "referrals.reply")


async def test_a_step_out_of_order_names_the_state_and_what_would_be_legal(house: House) -> None:
    utgs, mds = house.callers["demo-utgs"], await system(house, "MDS")
    referral = (await sent(utgs, referring(adults(house)[40], "tekopora", additional=True)))["id"]
    path = f"{REFERRALS}/{referral}"
    declined = replying("decline", "m-decline", reason={"code": "not-eligible"})
    assert (await mds.post(f"{path}/counter-referrals", declined, key="k")).status_code == 201
    late = await utgs.post(f"{path}/steps", CANCEL, key=str(uuid7()))
    told = problem(late, 409, "out-of-order")
    assert (told["state"], told["legal"]) == ("rejected", ["reopen"])
    assert told["receipt"]["entry_id"]
    again = await mds.post(f"{path}/counter-referrals", replying("accept", "m-late"), key=str(uuid7()))
    told = problem(again, 409, "out-of-order")
    assert (told["state"], told["legal"]) == ("rejected", [])
    reopened = await utgs.post(f"{path}/steps", {"step": "reopen", "note": "Tiene turno"}, key="k-reopen")
    assert (reopened.status_code, reopened.json()["state"]) == (201, "received")
    twice = await utgs.post(f"{path}/steps", {"step": "reopen", "note": "Tiene turno"}, key="k-reopen")
    assert twice.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("steps", {"step": "request_cancel"}, "/reason"),
        ("steps", {"step": "reopen"}, "/note"),
        ("steps", {"step": "accept"}, "/step"),
        ("claim", {}, "/service"),
        ("parts", {"parts": [], "purpose": "service-provision", "basis": "official-authority"}, "/parts"),
    ],
)
async def test_an_unusable_step_is_refused_by_its_field(
    house: House, path: str, body: dict[str, Any], pointer: str
) -> None:
    caller = await system(house, "MDS")
    answer = await caller.post(f"{REFERRALS}/{uuid7()}/{path}", body, key=str(uuid7()))
    problem(answer, 400, "invalid-message", pointer=pointer)


async def test_what_is_not_yours_looks_like_nothing_there_on_every_route(house: House) -> None:
    utgs, stranger = house.callers["demo-utgs"], await system(house, "MINNA")
    referral = (await sent(utgs, referring(adults(house)[41], "tekopora", additional=True)))["id"]
    part = {"service": "tekopora", "reason": {"code": "protection-gap"}}
    bodies = {
        "steps": CANCEL,
        "claim": {"service": "abrazo"},
        "parts": {"parts": [part], "purpose": "service-provision", "basis": "official-authority"},
        "counter-referrals": replying("accept", "m"),
    }
    for path, body in bodies.items():
        foreign = await stranger.post(f"{REFERRALS}/{referral}/{path}", body, key=str(uuid7()))
        unknown = await stranger.post(f"{REFERRALS}/{uuid7()}/{path}", body, key=str(uuid7()))
        assert (foreign.status_code, foreign.content) == (404, unknown.content), path
    for path in ("", "/events"):
        foreign = await get(house, stranger, f"{REFERRALS}/{referral}{path}")
        unknown = await get(house, stranger, f"{REFERRALS}/{uuid7()}{path}")
        assert (foreign.status_code, foreign.content) == (404, unknown.content)
    for direction in ("sent", "received"):
        page = await get(house, stranger, f"{REFERRALS}?direction={direction}&limit=200")
        assert referral not in page.text


async def test_an_open_referral_is_found_without_the_person_and_claimed_with_it(house: House) -> None:
    utgs, mds, person = house.callers["demo-utgs"], await system(house, "MDS"), adults(house)[42]
    body = referring(person, additional=True, open=True, services=["health-control", "tekopora"])
    del body["service"]
    made = await sent(utgs, body)
    assert (made["state"], made["recipient"]) == ("open", "UTGS")
    page = await get(house, mds, f"{REFERRALS}/open?limit=200")
    [line] = [each for each in page.json()["referrals"] if each["id"] == made["id"]]
    assert line["services"] == ["tekopora"]
    assert line.keys() == {
        "id", "services", "department", "district", "priority", "category", "created_at", "due_on"
    }  # fmt: skip
    claimed = await mds.post(f"{REFERRALS}/{made['id']}/claim", {"service": "tekopora"}, key=str(uuid7()))
    assert claimed.status_code == 201, claimed.text
    assert {"system": "cedula", "value": person.cedula} in claimed.json()["person"]["identifiers"]
    shown = (await get(house, utgs, f"{REFERRALS}/{made['id']}")).json()
    assert (shown["state"], shown["recipient"], shown["services"]) == (
        "accepted",
        "MDS",
        ["health-control", "tekopora"],
    )
    withdrawn = await utgs.post(f"{REFERRALS}/{made['id']}/steps", CANCEL | {"step": "withdraw"}, key=str(uuid7()))
    problem(withdrawn, 409, "out-of-order")


async def test_parts_show_to_the_parties_of_the_whole_and_never_the_whole_to_theirs(house: House) -> None:
    utgs, minna, mds = house.callers["demo-utgs"], await system(house, "MINNA"), await system(house, "MDS")
    whole = (await sent(utgs, referring(adults(house)[43], "abrazo", additional=True)))["id"]
    part = {"service": "tekopora", "reason": {"code": "protection-gap", "text": "Ingreso insuficiente"}}
    body = {"parts": [part], "purpose": "service-provision", "basis": "official-authority"}
    split = await minna.post(f"{REFERRALS}/{whole}/parts", body, key=str(uuid7()))
    assert split.status_code == 201, split.text
    [made] = split.json()["parts"]
    assert (split.json()["state"], made["recipient"]) == ("active", "MDS")
    for party in (utgs, minna):
        shown = (await get(house, party, f"{REFERRALS}/{whole}")).json()
        assert [each["id"] for each in shown["parts"]] == [made["id"]]
    assert (await get(house, minna, f"{REFERRALS}/{made['id']}")).json()["part_of"] == whole
    theirs = await get(house, mds, f"{REFERRALS}/{made['id']}")
    assert whole not in theirs.text
    done = replying("outcome", "m-part", outcome="provided")
    assert (await mds.post(f"{REFERRALS}/{made['id']}/counter-referrals", done, key="k-part")).status_code == 201
    assert (await get(house, utgs, f"{REFERRALS}/{whole}")).json()["state"] == "completed"


async def test_capacity_is_asked_without_naming_anybody(house: House) -> None:
    utgs = house.callers["demo-utgs"]
    answer = await utgs.post(f"{REFERRALS}/capacity", {"service": "tekopora"})
    assert (answer.status_code, answer.json()["capacity"]) == (200, "has_capacity")
    problem(await utgs.post(f"{REFERRALS}/capacity", {"service": "none"}), 422, "unknown-service", pointer="/service")
    wrong = await utgs.post(f"{REFERRALS}/capacity", {"service": "tekopora", "district": "0199"})
    told = problem(wrong, 422, "unknown-code", pointer="/district")
    assert "0101" in told["allowed"]
    named = {"service": "tekopora", "subject": {"system": "cedula", "value": adults(house)[0].cedula}}
    problem(await utgs.post(f"{REFERRALS}/capacity", named), 400, "invalid-message")


async def test_a_list_asks_for_its_direction_and_known_states(house: House) -> None:
    utgs = house.callers["demo-utgs"]
    problem(await get(house, utgs, REFERRALS), 422, "unknown-code", pointer="/direction")
    told = problem(
        await get(house, utgs, f"{REFERRALS}?direction=sent&state=lost"), 422, "unknown-code", pointer="/state"
    )
    assert "on_hold" in told["allowed"]
    page = (await get(house, utgs, f"{REFERRALS}?direction=sent&limit=1")).json()
    assert page["receipt"]["entry_id"]
    assert page["next"] == page["referrals"][0]["id"]
