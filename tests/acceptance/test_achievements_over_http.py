"""Achievements over HTTP: as last counted, cut by territory and population, and the choices told to who asks amiss."""

from __future__ import annotations

import csv
import io

import pytest

from tests.acceptance.bad_input import adults, newcomer, problem, subject
from tests.acceptance.governed import call
from tests.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_achievements_of_a_territory_are_the_same_in_every_form(house: House) -> None:
    client = await newcomer(house, "MDS", "statistics.read")
    found = (await call(house, client, "GET", "achievements?level=department")).json()
    assert found["on"] is not None
    assert found["hidden_below"] == 5
    rows = found["achievements"]
    assert {row["number"] for row in rows} >= {3, 4, 5, 6, 7, 8, 9}
    assert all(row["district"] is None and row["department"] is not None for row in rows)
    told = [row[name] for row in rows for name in ("identified", "applicable", "concurrent")]
    assert not {1, 2, 3, 4} & set(told)
    assert None in told
    sheet = (await call(house, client, "GET", "achievements?level=department&format=csv")).text
    table = list(csv.DictReader(io.StringIO(sheet.removeprefix("\ufeff"))))
    shown = ["" if row["identified"] is None else str(row["identified"]) for row in rows]
    assert [row["identified"] for row in table] == shown
    one = rows[0]["department"]
    narrow = (
        await call(house, client, "GET", f"achievements?level=department&department={one}&population=women")
    ).json()
    assert narrow["achievements"] == [row for row in rows if row["department"] == one and row["population"] == "women"]


@pytest.mark.parametrize(
    ("query", "code", "pointer"),
    [
        ("level=galaxy", "unknown-code", "/level"),
        ("department=1", "unknown-code", "/department"),
        ("department=18", "unknown-code", "/department"),
        ("population=men", "unknown-code", "/population"),
        ("level=district", "unknown-code", "/department"),
        ("level=community&department=11", "unknown-code", "/district"),
        ("on=2026-02-30", "bad-day", "/on"),
        ("format=pdf", "unknown-code", "/format"),
    ],
)
async def test_who_asks_amiss_is_told_what_there_is(house: House, query: str, code: str, pointer: str) -> None:
    client = await newcomer(house, "MDS", "statistics.read")
    answer = await call(house, client, "GET", f"achievements?{query}")
    problem(answer, 422, code)
    assert pointer in answer.text


async def test_the_status_of_a_past_day_says_when_it_was_computed(house: House) -> None:
    duty = {"purpose": "service-provision", "basis": "official-authority"}
    body = {"subject": subject(adults(house)[4].cedula), **duty}
    asked = await house.callers["demo-utgs"].post("/api/v1/protection-status/query", body)
    assert asked.status_code == 200, asked.text
    found = asked.json()
    assert found["computed_at"].startswith("20")
    assert {item["rule"] for item in found["services"]} <= {
        "only-fact",
        "no-fact",
        "newest",
        "instrument",
        "recorded-last",
    }
