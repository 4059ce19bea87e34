"""A producer that is down, slow, cuts the line or answers a web page: a problem, an entry, no data; then it heals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.cli.demo.clients import Caller, callers
from schemas.ids import uuid7
from tests.acceptance.bad_input import DISCLOSURES, adults, asking, entries, logs_are_quiet, problem
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
BOTH = ("identificaciones", "identificaciones-soap")
QUIET = {"fail_503": 0, "garbage": 0, "reset": 0, "latency_ms": 0}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mds(house: House) -> Caller:
    """A client system with a token of its own."""
    return callers(house.http, house.issuer, house.settings.data_dir)["demo-mds"]


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _healed(house: House, mds: Caller) -> AsyncIterator[None]:
    yield
    for name in BOTH:
        await house.switch(name, **QUIET)

    async def answered() -> bool:
        return (await mds.post(DISCLOSURES, asking(adults(house)[14]))).status_code == 200

    # An open breaker lets nothing through for some seconds.
    await until(answered)


async def test_a_producer_that_answers_a_web_page_gives_502_and_no_data(house: House, mds: Caller) -> None:
    for name in BOTH:
        await house.switch(name, garbage=-1)
    # Three forms in turn: a web page, a document cut in the middle, bytes that are no text.
    for _form in range(3):
        entry = await failed(house, mds, 502, "producer-malformed")
        assert entry["exchange"]["outcome"] == "Malformed"
        assert "mantenimiento" not in str(entry)


async def test_the_second_source_answers_where_the_first_is_down(house: House, mds: Caller) -> None:
    await house.switch("identificaciones", fail_503=-1)
    since = uuid7()
    answer = await mds.post(DISCLOSURES, asking(adults(house)[14]))
    assert answer.status_code == 200, answer.text
    assert answer.json()["source"]["system"] == "identificaciones-soap"
    entry = (await entries(house, "disclosure.released", since))[-1]
    assert entry["exchange"]["asked_before"] == ["identificaciones"]


@pytest.mark.parametrize(
    ("switches", "reasons"),
    [
        # The second source is asked when the first is silent; it is down, so that the test does not wait for it too.
        ([{"latency_ms": 3600}, {"fail_503": -1}], {"http 503"}),
        ([{"reset": -1}, {"reset": -1}], {"answer cut short", "connection lost"}),
        ([{"fail_503": -1}, {"fail_503": -1}], {"http 503"}),
    ],
    ids=["slow", "reset", "down"],
)
async def test_a_producer_without_a_usable_answer_gives_503_with_a_time_to_come_back(
    house: House, mds: Caller, switches: list[dict[str, Any]], reasons: set[str]
) -> None:
    for name, values in zip(BOTH, switches, strict=True):
        await house.switch(name, **values)
    entry = await failed(house, mds, 503, "producer-unavailable")
    assert entry["exchange"]["outcome"] == "Unavailable"
    assert entry["exchange"]["reason"] in reasons | {"breaker open"}


async def test_a_producer_that_stays_down_is_not_asked_for_ever(house: House, mds: Caller) -> None:
    for name in BOTH:
        await house.switch(name, fail_503=-1)
    reasons = [(await failed(house, mds, 503, "producer-unavailable"))["exchange"]["reason"] for _ in range(4)]
    assert reasons[-1] == "breaker open"


async def failed(house: House, mds: Caller, status: int, code: str) -> dict[str, Any]:
    """Ask, hold the problem to what it must be, and return its entry."""
    person, since = adults(house)[14], uuid7()
    answer = await mds.post(DISCLOSURES, asking(person))
    told = problem(answer, status, code, secrets=[str(person.cedula), person.given_names, person.surnames, "<html"])
    if status == 503:
        assert 1 <= int(answer.headers["retry-after"]) <= 3600
    assert "facts" not in told
    assert await entries(house, "disclosure.released", since) == []
    [intent] = await entries(house, "disclosure.intent", since)
    [entry] = await entries(house, "disclosure.unanswered", since)
    assert entry["id"] == told["receipt"]["entry_id"]
    assert entry["exchange"]["intent"] == intent["id"]
    assert person.given_names not in str(entry)
    return entry


async def test_the_process_logs_tell_no_traceback_and_no_person(house: House) -> None:
    logs_are_quiet(house)
