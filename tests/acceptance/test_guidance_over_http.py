"""Guidance over HTTP: services, places and papers for a description or a person, and messages both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from adapters.simulator.population import SimPerson
from gateway.cli.demo.clients import Caller
from gateway.clock import utc_now
from gateway.identity import issuers
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, newcomer
from tests.acceptance.governed import call
from tests.house import House, until
from tests.integration import outside_issuer

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATH, THREADS = "guidance", "guidance/threads"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def clients(house: House) -> dict[str, Caller]:
    scopes = ("guidance.use", "referrals.create", "referrals.read")
    return {name: await newcomer(house, name, *scopes) for name in ("UTGS", "MDS", "MSPBS", "MEC")}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def portal(house: House) -> AsyncIterator[Any]:
    """Call as a person does through a portal with a token of their own."""
    with outside_issuer.serve() as issuer:
        given = outside_issuer.citizens(issuer)
        given["scopes"] = [*given["scopes"], "guidance.use"]
        registration = issuers.Registration.model_validate(given)
        async with house.context() as context, context.database.transaction() as connection:
            await issuers.add_issuer(connection, registration, own=house.issuer.url, now=utc_now())

        async def ask(person: SimPerson, method: str, path: str, body: Any = None) -> httpx.Response:
            token = issuer.sign(utc_now(), jti=str(uuid7()), documento={"numero": person.cedula})
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": str(uuid7())}
            return await house.http.request(method, f"{house.issuer.url}/api/v1/{path}", json=body, headers=headers)

        async def believed() -> bool:
            return bool((await ask(adults(house)[0], "GET", THREADS)).status_code == 200)

        await until(believed)
        yield ask


def codes(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [each["service"] for each in answer.json()["services"]]


async def test_a_description_gets_what_applies_with_papers_and_nothing_is_kept(
    house: House, clients: dict[str, Caller]
) -> None:
    body = {"description": {"age": 70}, "district": "1116"}
    answer = await call(house, clients["MDS"], "POST", PATH, body)
    assert {"universal-pension", "health-control"} <= set(codes(answer))
    [pension] = [each for each in answer.json()["services"] if each["service"] == "universal-pension"]
    assert "Cédula de identidad vigente" in pension["papers"]
    assert pension["places"][0]["district"] == "1116"
    assert "lunes a viernes" in pension["places"][0]["hours"]
    assert "receipt" not in answer.json()
    younger = await call(house, clients["MDS"], "POST", PATH, {"description": {"age": 30}})
    assert "universal-pension" not in codes(younger)


async def test_a_route_is_told_in_its_order(house: House, clients: dict[str, Caller]) -> None:
    answer = await call(house, clients["MDS"], "POST", PATH, {"description": {"needs": ["food-security"]}})
    steps = [each["step"] for each in answer.json()["services"] if each["route"] == "food-security"]
    assert steps == sorted(steps)
    assert steps[0] == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"description": {"marks": ["tall"]}}, "/description/marks"),
        ({"description": {"needs": ["flying"]}}, "/description/needs"),
        ({"description": {"age": 5}, "district": "9999"}, "/district"),
        ({}, "/description"),
    ],
)
async def test_what_nobody_can_advise_on_is_named(
    house: House, clients: dict[str, Caller], body: dict[str, Any], pointer: str
) -> None:
    answer = await call(house, clients["MDS"], "POST", PATH, body)
    assert answer.status_code == 422
    assert pointer in answer.text


async def test_a_person_is_advised_and_writes_with_the_service_and_nobody_else_reads_it(
    house: House, clients: dict[str, Caller], portal: Any
) -> None:
    person, other = adults(house)[:2]
    told = [await portal(each, "POST", PATH, {}) for each in adults(house)[:20]]
    assert any(codes(answer) for answer in told)
    assert all("receipt" in answer.json() for answer in told)

    opened = await portal(person, "POST", THREADS, {"service": "universal-pension", "text": "¿Qué llevo?"})
    assert opened.status_code == 201, opened.text
    assert "¿Qué llevo?" not in opened.text
    thread = opened.json()["thread"]
    waiting = await call(house, clients["MDS"], "GET", f"{THREADS}?waiting=true&limit=200", operator="op-1")
    assert thread in [each["id"] for each in waiting.json()["threads"]]
    answered = await call(
        house, clients["MDS"], "POST", f"{THREADS}/{thread}/messages", {"text": "Su cédula."}, operator="op-1"
    )
    assert answered.status_code == 201, answered.text
    read = await portal(person, "GET", f"{THREADS}/{thread}")
    assert [(each["author"], each["text"]) for each in read.json()["messages"]] == [
        ("person", "¿Qué llevo?"),
        ("institution", "Su cédula."),
    ]
    for stranger in (
        await portal(other, "GET", f"{THREADS}/{thread}"),
        await call(house, clients["MSPBS"], "GET", f"{THREADS}/{thread}", operator="op-2"),
        await call(house, clients["UTGS"], "GET", f"{THREADS}/{thread}", operator="op-3"),
    ):
        assert stranger.status_code == 404
        assert "cédula" not in stranger.text.lower()
    closed = await portal(person, "POST", f"{THREADS}/{thread}/close")
    assert closed.status_code == 201, closed.text
    late = await call(house, clients["MDS"], "POST", f"{THREADS}/{thread}/messages", {"text": "…"}, operator="op-1")
    assert late.status_code == 409


async def test_an_institution_writes_only_about_a_referral_of_its_own(house: House, clients: dict[str, Caller]) -> None:
    person = adults(house)[2]
    body = {
        "subject": {"system": "cedula", "value": person.cedula},
        "service": "specialised-consultation",
        "reason": {"code": "protection-gap"},
        "purpose": "service-access-determination",
        "basis": "official-authority",
    }
    sent = await house.callers["demo-utgs"].post("/api/v1/referrals", body, key=str(uuid7()))
    assert sent.status_code == 201, sent.text
    new = {"referral": sent.json()["id"], "text": "Traiga su carné."}
    assert (await call(house, clients["MSPBS"], "POST", THREADS, new, operator="op-1")).status_code == 201
    assert (await call(house, clients["MEC"], "POST", THREADS, new, operator="op-1")).status_code == 404
    unasked = await call(house, clients["MSPBS"], "POST", THREADS, {"text": "Hola"}, operator="op-1")
    assert unasked.status_code == 422
