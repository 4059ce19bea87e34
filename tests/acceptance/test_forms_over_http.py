"""Forms and reports over HTTP: taken once with a receipt, refused with every place and choice, and only by scope."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.cli.demo.clients import Caller
from schemas import geography
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, entries, newcomer, nothing_leaks, subject
from tests.acceptance.governed import call
from tests.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")
PLACE = {"department": "11", "district": "1101", "locality": "Barrio Obrero"}
SOMEBODY = {"given_names": "Ñasaindy", "surnames": "Zzyzx", "birth_date": "1991-02-03", "sex": "F"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(house: House) -> Caller:
    return await newcomer(house, "MDS", "forms.create", "facts.report", "status.read")


def form(**changes: Any) -> dict[str, Any]:
    message = {"kind": "full", "observed_on": "2026-11-20", "place": PLACE, "members": [SOMEBODY], **changes}
    return {name: value for name, value in message.items() if value is not None}


async def post(house: House, system: Caller, path: str, body: Any, **more: Any) -> httpx.Response:
    return await call(house, system, "POST", path, body, **more)


def refused(answer: httpx.Response, code: str) -> dict[str, dict[str, Any]]:
    assert answer.status_code == 422, answer.text
    told = answer.json()
    assert told["type"] == f"urn:siis:problem:{code}"
    assert told["receipt"]
    nothing_leaks(answer, ("Ñasaindy", "Zzyzx"))
    return {each["pointer"]: each for each in told["errors"]}


async def test_a_form_is_acknowledged_with_the_ids_of_all_on_it_and_done_once(house: House, system: Caller) -> None:
    key, since = str(uuid7()), uuid7()
    first = await post(house, system, "forms", form(), key=key)
    assert first.status_code == 201, first.text
    told = first.json()
    [person] = told["persons"]
    assert {"form", "household", "community", "receipt"} <= told.keys()
    assert person["local_id"].count("-") == 2
    again = await post(house, system, "forms", form(), key=key)
    assert (again.status_code, again.headers["Idempotency-Replayed"], again.json()) == (201, "true", told)
    assert (await post(house, system, "forms", form(notes="otra"), key=key)).status_code == 409
    [entry] = await entries(house, "form.recorded", since)
    assert entry["what"]["persons"] == [person["id"]]


async def test_the_number_given_leads_to_the_person(house: House, system: Caller) -> None:
    told = (await post(house, system, "forms", form(members=[SOMEBODY | {"birth_date": "1950-01-01"}]))).json()
    number = told["persons"][0]["local_id"]
    fact = {"service": "universal-pension", "received": True, "observed_on": "2026-11-21"}
    report = {"subject": subject(number, "local"), "facts": [fact]}
    done = await post(house, system, "facts", report)
    assert (done.status_code, done.json()["services"]) == (201, ["universal-pension"])
    stranger = await newcomer(house, "MSPBS", "facts.report")
    told_off = refused(await post(house, stranger, "facts", report), "invalid-report")["/facts/0/service"]
    assert told_off["rule"] == "foreign-service"
    assert "vaccination" in told_off["allowed"]
    assert (await post(house, system, "facts", report | {"subject": subject("29999999")})).status_code == 404


@pytest.mark.parametrize(
    ("changes", "pointer", "allowed"),
    [
        ({"members": [SOMEBODY | {"birth_date": "1991-02-30"}]}, "/members/0/birth_date", None),
        ({"observed_on": "2031-01-01"}, "/observed_on", None),
        ({"members": []}, "/members", None),
        ({"members": [SOMEBODY | {"services": {"flights": True}}]}, "/members/0/services/flights", "vaccination"),
        ({"place": PLACE | {"district": "145"}}, "/place/district", "1101"),
        ({"kind": "short"}, "/kind", "simplified"),
    ],
)
async def test_a_form_that_cannot_be_is_refused_with_place_and_choices(
    house: House, system: Caller, changes: dict[str, Any], pointer: str, allowed: str | None
) -> None:
    told = refused(await post(house, system, "forms", form(**changes)), "invalid-form")
    assert told.keys() == {pointer}
    assert told[pointer]["detail"]
    assert (allowed in told[pointer].get("allowed", ())) == (allowed is not None)


async def test_a_member_of_another_household_has_to_have_moved(house: House, system: Caller) -> None:
    person = next(each for each in adults(house) if each.cedula)
    member = {"identifier": subject(person.cedula)}
    place = {"department": person.department, "district": person.district, "locality": "Otro"}
    told = refused(await post(house, system, "forms", form(members=[member, SOMEBODY], place=place)), "invalid-form")
    assert told["/members/0"]["rule"] == "member-elsewhere"
    moved = await post(house, system, "forms", form(members=[member | {"moved": True}, SOMEBODY], place=place))
    assert moved.status_code == 201, moved.text
    assert "local_id" not in moved.json()["persons"][0]


async def test_a_district_code_of_the_tax_authority_is_refused_in_every_department(
    house: House, system: Caller
) -> None:
    for department in geography.departments():
        there = geography.districts(department.ine)
        code = next((place.sifen for place in there if place.sifen), None)
        if code is None:
            continue
        place = PLACE | {"department": department.ine, "district": code}
        told = refused(await post(house, system, "forms", form(place=place)), "invalid-form")
        assert told["/place/district"]["rule"] == "tax-authority-code"
        assert told["/place/district"]["allowed"] == [each.ine for each in there]


@pytest.mark.parametrize("path", ["forms", "facts"])
async def test_without_the_scope_or_with_a_body_of_another_shape_nothing_is_taken(
    house: House, system: Caller, path: str
) -> None:
    other = await newcomer(house, "MDS", "status.read")
    assert (await post(house, other, path, form())).status_code == 403
    for body in ([], {}, "x", {"kind": "full"}, {"kind": ["full"]}):
        assert (await post(house, system, path, body)).status_code in (400, 422)
