"""Statistics over HTTP: no endpoint, count or file tells an institution of referrals that are not its own."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx
import pytest

from schemas.ids import uuid7
from tests.acceptance.bad_input import REFERRALS, adults, entries, newcomer, problem, referring, subject
from tests.acceptance.governed import call
from tests.house import House

SCOPES = ("statistics.read", "status.read")
# No other test refers to this service of the pension, in this person's place of the list.
SERVICE = "universal-pension"
pytestmark = pytest.mark.asyncio(loop_scope="session")


def table(answer: httpx.Response) -> dict[tuple[str, str], dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff")))
    return {(row["part"], row["code"]): row for row in rows}


async def referred(house: House, institution: str, system: Any = None) -> tuple[int, int]:
    """Return how many referrals the funnel tells an institution of, as JSON and as CSV."""
    client = system or await newcomer(house, institution, *SCOPES)
    answer = await call(house, client, "POST", "statistics/funnel", {"scope": {"service": SERVICE}})
    assert answer.status_code == 200, answer.text
    step = answer.json()["steps"][1]
    asked = {"scope": {"service": SERVICE}, "format": "csv"}
    rows = table(await call(house, client, "POST", "statistics/funnel", asked))
    return step["reached"], int(rows["step", "referred"]["referrals"])


async def test_every_face_of_the_statistics_is_bounded_by_the_institution(house: House) -> None:
    start = uuid7()
    before = {name: await referred(house, name) for name in ("UTGS", "MDS", "MEC")}
    person = adults(house)[25]
    sent = await house.callers["demo-utgs"].post(REFERRALS, referring(person, SERVICE), key=str(uuid7()))
    assert sent.status_code == 201, sent.text
    after = {name: await referred(house, name) for name in ("UTGS", "MDS", "MEC")}
    grown = {name: after[name][0] - before[name][0] for name in before}
    assert grown == {"UTGS": 1, "MDS": 1, "MEC": 0}
    assert all(as_json == as_csv for as_json, as_csv in after.values())
    assert len(await entries(house, "statistics.read", start)) == 12

    coordinator = await newcomer(house, "UTGS", *SCOPES)
    stranger = await newcomer(house, "MEC", *SCOPES)
    kept = await call(house, coordinator, "POST", "statistics/snapshots", {"kind": "baseline"})
    assert kept.status_code == 201, kept.text
    number = kept.json()["id"]
    assert (await call(house, coordinator, "GET", f"statistics/snapshots/{number}")).json()["kind"] == "baseline"
    problem(await call(house, stranger, "GET", f"statistics/snapshots/{number}"), 404, "not-found")
    listed = (await call(house, stranger, "GET", "statistics/snapshots")).json()["snapshots"]
    assert number not in {each["id"] for each in listed}
    both = {"first": {"snapshot": number}, "second": {"snapshot": number}}
    problem(await call(house, stranger, "POST", "statistics/comparison", both), 404, "not-found")
    assert (await call(house, coordinator, "POST", "statistics/comparison", both)).status_code == 200
    places = {"first": {"scope": {"department": "00"}}, "second": {"scope": {"department": "11"}}}
    told = (await call(house, stranger, "POST", "statistics/comparison", places)).json()
    shares = [step["of_referred"][side] for step in told["steps"][1:] for side in ("first", "second")]
    assert {share["n"] for share in shares} == {0}
    mixed = {"first": {"snapshot": number}, "second": {"scope": {}}}
    problem(await call(house, coordinator, "POST", "statistics/comparison", mixed), 422, "not-comparable")

    asked = {"subject": subject(person.cedula), "purpose": "service-provision", "basis": "official-authority"}
    way = await call(house, coordinator, "POST", "statistics/trajectory", asked)
    assert sent.json()["id"] in {step["referral"] for step in way.json()["steps"]}
    refused = await call(house, stranger, "POST", "statistics/trajectory", asked)
    assert refused.status_code == 403
    assert sent.json()["id"] not in refused.text


@pytest.mark.parametrize(
    ("message", "status", "code", "pointer"),
    [
        ({"scope": {"district": "9999"}}, 422, "unknown-code", "/district"),
        ({"scope": {"since": "2026-02-30"}}, 400, "invalid-message", "/scope/since"),
        ({"scope": {"colour": "red"}}, 400, "invalid-message", "/scope/colour"),
        ({"format": "pdf"}, 400, "invalid-message", "/format"),
    ],
)
async def test_what_cannot_be_counted_is_refused_with_its_place(
    house: House, message: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    client = await newcomer(house, "UTGS", *SCOPES)
    problem(await call(house, client, "POST", "statistics/funnel", message), status, code, pointer=pointer)
