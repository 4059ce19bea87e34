"""What follows a referral to its recipient, and what persons decide about delivery: HTTP and command line."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from gateway.cli.demo.clients import Caller
from tests.acceptance.bad_input import adults, newcomer
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
RECIPIENTS = {"universal-pension": "mds", "health-control": "mspbs", "abrazo": "minna"}
# From the last backwards: other tests of the folder begin with the first.
_next = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def utgs(house: House) -> Caller:
    return await newcomer(house, "UTGS", "delivery.manage", "referrals.create", "referrals.read")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ips(house: House) -> Caller:
    return await newcomer(house, "IPS", "delivery.manage")


@pytest_asyncio.fixture(loop_scope="session")
async def slow(house: House) -> AsyncIterator[None]:
    """Recipients that take referrals and have not worked on them yet."""
    for name in RECIPIENTS.values():
        await house.switch(name, accept_after_s=3600, outcome_after_s=3600)
    yield
    for name in RECIPIENTS.values():
        await house.switch(name, accept_after_s=0.3, outcome_after_s=1.0)


@pytest.fixture(scope="module")
def siis(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", house.settings.data_dir)
    yield made
    made.end()


async def refer(house: House, utgs: Caller, service: str) -> str:
    body = {
        "subject": {"system": "cedula", "value": adults(house)[-next(_next)].cedula},
        "service": service,
        "reason": {"code": "protection-gap"},
        "purpose": "service-access-determination",
        "basis": "official-authority",
    }
    answer = await call(house, utgs, "POST", "referrals", body)
    assert answer.status_code == 201, answer.text
    number: str = answer.json()["id"]
    return number


async def step(house: House, utgs: Caller, number: str, **body: Any) -> None:
    answer = await call(house, utgs, "POST", f"referrals/{number}/steps", body)
    assert answer.status_code == 201, answer.text


async def read(house: House, utgs: Caller, number: str, path: str = "") -> dict[str, Any]:
    answer = await call(house, utgs, "GET", f"referrals/{number}{path}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def reach(house: House, utgs: Caller, number: str, **wanted: str) -> None:
    async def reached() -> bool:
        found = await read(house, utgs, number)
        return all(found[name] == value for name, value in wanted.items())

    await until(reached)


async def book(house: House, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await house.http.get(f"{house.institutions[name].control}/_control/ledger")).json()
    return found


async def lane(house: House, who: Caller, name: str) -> dict[str, Any] | None:
    answer = await call(house, who, "GET", "delivery")
    assert answer.status_code == 200, answer.text
    return next((each for each in answer.json()["lanes"] if each["institution"] == name), None)


async def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:siis:problem:{code}")


@pytest.mark.parametrize("service", RECIPIENTS)
async def test_a_note_and_a_cancellation_follow_a_referral_in_order_and_once(
    house: House, utgs: Caller, slow: None, service: str
) -> None:
    name = RECIPIENTS[service]
    before = (await book(house, name))["told"]
    number = await refer(house, utgs, service)
    await reach(house, utgs, number, delivery="transmitted", state="received")
    await house.switch(name, accept_after_s=0, after_effect_reset=1)
    await step(house, utgs, number, step="note", note="La familia se mudó.")
    await step(house, utgs, number, step="request_cancel", reason={"code": "other"})
    # The recipient confirms what it was told, by the way in which it tells everything.
    await reach(house, utgs, number, state="cancelled")
    told = {key: times for key, times in (await book(house, name))["told"].items() if key not in before}
    assert list(told.values()) == [1, 1]
    happened = (await read(house, utgs, number, "/events"))["events"]
    kinds = [event["message"] for event in happened if event["type"] == "transmitted"]
    assert kinds == ["note", "cancel"]


async def test_a_referral_taken_back_before_it_was_sent_is_cancelled_here_and_never_sent(
    house: House, utgs: Caller
) -> None:
    paused = await call(house, utgs, "POST", "delivery/lanes/MINNA/pause", {})
    assert paused.status_code == 200, paused.text
    await refused(await call(house, utgs, "POST", "delivery/lanes/MINNA/pause", {}), 409, "delivery-paused")
    number = await refer(house, utgs, "abrazo")
    seen = await lane(house, utgs, "MINNA")
    assert seen is not None
    assert (seen["paused"], seen["waiting"] >= 1) == (True, True)
    await step(house, utgs, number, step="request_cancel", reason={"code": "other"})
    await reach(house, utgs, number, state="cancelled", delivery="withheld")
    last = (await read(house, utgs, number, "/events"))["events"][-1]
    assert (last["type"], last["synthesised"]) == ("confirm_cancel", True)
    other = await refer(house, utgs, "abrazo")
    assert (await call(house, utgs, "POST", "delivery/lanes/MINNA/resume", {})).status_code == 200
    await reach(house, utgs, other, delivery="transmitted")

    # A file lies in the folder first: the institution reads it in its own time.
    async def read_there() -> bool:
        return other in (await book(house, "minna"))["received"]

    await until(read_there)
    received = (await book(house, "minna"))["received"]
    assert (received.get(number), received[other]) == (None, 1)


async def test_a_reopened_referral_is_told_and_answered_again(house: House, utgs: Caller) -> None:
    number = await refer(house, utgs, "universal-pension")

    async def ended() -> bool:
        return (await read(house, utgs, number))["state"] in ("completed", "rejected")

    await until(ended)
    await step(house, utgs, number, step="reopen", note="Falta una parte.")
    await until(ended)
    happened = [event["type"] for event in (await read(house, utgs, number, "/events"))["events"]]
    behind = happened[happened.index("reopen") :]
    assert "transmitted" in behind
    assert {"outcome", "decline"} & set(behind)


async def dead_letters(house: House, utgs: Caller, number: int) -> list[str]:
    """Make referrals that found no way: as after all attempts at an institution that was away for a week."""
    assert (await call(house, utgs, "POST", "delivery/lanes/MINNA/pause", {})).status_code == 200
    found = [await refer(house, utgs, "abrazo") for _ in range(number)]
    async with house.context() as context, context.database.transaction() as connection:
        for statement in (
            "UPDATE siis.referral SET delivery = 'dead', delivery_reason = 'unavailable', attempts = 20"
            " WHERE id = ANY(CAST(:found AS uuid[]))",
            "DELETE FROM jobs.procrastinate_jobs WHERE lock = ANY(CAST(:found AS text[]))",
        ):
            await connection.execute(text(statement), {"found": found})
    assert (await call(house, utgs, "POST", "delivery/lanes/MINNA/resume", {})).status_code == 200
    return found


async def test_a_person_decides_on_what_found_no_way_and_strangers_see_nothing_of_it(
    house: House, utgs: Caller, ips: Caller
) -> None:
    given_up, confirmed, again = await dead_letters(house, utgs, 3)
    listed = (await call(house, utgs, "GET", "delivery/dead?institution=MINNA&limit=200")).json()["letters"]
    assert {letter["id"]: letter["reason"] for letter in listed} == dict.fromkeys(
        (given_up, confirmed, again), "unavailable"
    )
    assert (await call(house, ips, "GET", "delivery/dead")).json()["letters"] == []
    assert await lane(house, ips, "MINNA") is None
    for act, body in (("replay", {}), ("transmitted", {}), ("give-up", {"reason": "No."})):
        answer = await call(house, ips, "POST", f"delivery/letters/{given_up}/{act}", body)
        await refused(answer, 404, "not-found")
    await refused(await call(house, ips, "POST", "delivery/lanes/MINNA/pause", {}), 404, "not-found")

    answer = await call(house, utgs, "POST", f"delivery/letters/{given_up}/give-up", {"reason": "Se avisó por carta."})
    assert answer.status_code == 200, answer.text
    await refused(await call(house, utgs, "POST", f"delivery/letters/{given_up}/replay", {}), 409, "not-dead")
    last = (await read(house, utgs, given_up, "/events"))["events"][-1]
    assert (last["type"], last["texts"]["reason"]) == ("given_up", "Se avisó por carta.")

    assert (await call(house, utgs, "POST", f"delivery/letters/{confirmed}/transmitted", {})).status_code == 200
    found = await read(house, utgs, confirmed)
    assert (found["state"], found["delivery"]) == ("received", "transmitted")

    assert (await call(house, utgs, "POST", f"delivery/letters/{again}/replay", {})).status_code == 200
    await reach(house, utgs, again, delivery="transmitted")
    received = (await book(house, "minna"))["received"]
    assert [received.get(number) for number in (given_up, confirmed, again)] == [None, None, 1]


async def test_the_command_line_shows_and_replays_dead_letters(house: House, utgs: Caller, siis: Siis) -> None:
    numbers = await dead_letters(house, utgs, 2)
    dead = (await run(siis, "delivery", "dead", "--institution", "MINNA", "--json")).json()
    assert {letter["id"] for letter in dead} == set(numbers)
    lanes = (await run(siis, "delivery", "status", "--json")).json()
    assert {each["institution"]: each["dead"] for each in lanes}["MINNA"] == 2
    replayed = await run(siis, "delivery", "replay", "--institution", "MINNA", "--reason", "unavailable")
    assert (replayed.code, replayed.out.split()[-1]) == (0, "2")
    for number in numbers:
        await reach(house, utgs, number, delivery="transmitted")
    assert (await run(siis, "delivery", "replay")).code == 2
    assert (await run(siis, "delivery", "replay", "--institution", "NOBODY")).code == 1
    assert [(await run(siis, "delivery", act, "IPS")).code for act in ("pause", "pause", "resume")] == [0, 1, 0]


async def test_a_report_that_comes_again_under_another_key_is_answered_as_before_and_changes_nothing(
    house: House, utgs: Caller, slow: None
) -> None:
    number = await refer(house, utgs, "health-control")
    await reach(house, utgs, number, state="received")
    report = {"event": "accept", "message_id": f"again-{number}", "occurred_on": "2026-11-20"}
    mspbs = house.callers["demo-mspbs"]
    first = await call(house, mspbs, "POST", f"referrals/{number}/counter-referrals", report)
    again = await call(house, mspbs, "POST", f"referrals/{number}/counter-referrals", report)
    assert (first.status_code, again.status_code) == (201, 200), again.text
    assert again.json()["receipt"] == first.json()["receipt"]
    happened = [event["type"] for event in (await read(house, utgs, number, "/events"))["events"]]
    assert happened.count("accept") == 1
