"""What a stranger could learn from the form of an answer: nothing that its words do not say."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio

from consent import people
from gateway.cli.demo.clients import Caller, callers
from gateway.registry import service as registry
from schemas.ids import uuid7
from tests.acceptance.bad_input import (
    DISCLOSURES,
    DUTY,
    REFERRALS,
    STATUS,
    adults,
    asking,
    bearer,
    get,
    nothing_leaks,
    problem,
    referring,
    subject,
)
from tests.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")
Systems = dict[str, Caller]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def systems(house: House) -> Systems:
    """The client systems with tokens of their own."""
    return callers(house.http, house.issuer, house.settings.data_dir)


def seen(answer: httpx.Response) -> tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]:
    """All of an answer that a stranger can compare, but the time of day."""
    headers = tuple((name, value) for name, value in answer.headers.raw if name.lower() != b"date")
    return answer.status_code, answer.content, headers


async def test_every_hidden_reason_gives_the_same_bytes(house: House, systems: Systems) -> None:
    sealed, silent, known = adults(house)[5:8]
    async with house.context() as context, context.database.transaction() as connection:
        who = await registry.find_person(connection, context.vault, "cedula", str(sealed.cedula))
        assert who is not None
        await people.set_flag(connection, who.id, people.SEALED, at=datetime.now(UTC))
    mds, snpp, utgs, aps = (systems[f"demo-{name}"] for name in ("mds", "snpp", "utgs", "mspbs-aps"))
    consent = {"purpose": "service-provision", "basis": "consent"}
    nobody = {"subject": subject("99999999")}
    foreign = (await utgs.post(REFERRALS, referring(known, "abrazo"), key=str(uuid7()))).json()["id"]
    answers = [
        await mds.post(DISCLOSURES, asking(known) | nobody),
        await mds.post(DISCLOSURES, asking(sealed)),
        await snpp.post(DISCLOSURES, asking(silent, **consent)),
        await snpp.post(DISCLOSURES, asking(known, **consent) | nobody),
        await utgs.post(REFERRALS, referring(sealed), key=str(uuid7())),
        await utgs.post(REFERRALS, referring(known) | nobody, key=str(uuid7())),
        await utgs.post(STATUS, {"subject": subject(sealed.cedula), **DUTY}),
        await utgs.post(STATUS, {**nobody, **DUTY}),
        await get(house, aps, f"{REFERRALS}/{foreign}"),
        await get(house, aps, f"{REFERRALS}/{foreign}/events"),
        await get(house, aps, f"{REFERRALS}/{uuid7()}"),
        await get(house, aps, f"{REFERRALS}/garbage"),
        await get(house, aps, "/api/v1/nowhere"),
    ]
    problem(answers[0], 404, "not-found", secrets=["99999999"])
    assert len({seen(answer) for answer in answers}) == 1, [seen(answer) for answer in answers]


async def test_another_method_is_told_the_right_one(house: House, systems: Systems) -> None:
    for path in (DISCLOSURES, REFERRALS, STATUS, "/oauth2/token"):
        # Referrals are listed there, too.
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", *(() if path == REFERRALS else ("GET",))):
            answer = await get(house, systems["demo-mds"], path, method)
            problem(answer, 405, "method-not-allowed")
            assert answer.headers["allow"] == "POST"
    answer = await get(house, systems["demo-utgs"], f"{REFERRALS}/{uuid7()}", "POST")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET"


async def test_head_has_no_body_and_no_more_headers_than_get(house: House, systems: Systems) -> None:
    answer = await get(house, systems["demo-mds"], DISCLOSURES, "HEAD")
    assert (answer.status_code, answer.content) == (405, b"")
    nothing_leaks(answer)


@pytest.mark.parametrize(
    "path",
    ["/", "/api", "/api/v1", "/api/v1/disclosures/", "//api/v1/disclosures", "/api/v1/referrals/", "/admin", "/.env"],
)
async def test_an_unknown_path_leads_nowhere(house: House, systems: Systems, path: str) -> None:
    headers = {"Authorization": f"Bearer {await bearer(systems['demo-mds'])}", "Host": "elsewhere.example"}
    for method in ("GET", "POST"):
        answer = await house.http.request(method, house.issuer.url + path, headers=headers)
        problem(answer, 404, "not-found")
        assert "location" not in answer.headers


async def test_answers_about_a_person_are_not_stored_on_the_way(house: House, systems: Systems) -> None:
    mds, utgs, person = systems["demo-mds"], systems["demo-utgs"], adults(house)[8]
    created = await utgs.post(REFERRALS, referring(person), key=str(uuid7()))
    answers = [
        await mds.post(DISCLOSURES, asking(person)),
        await utgs.post(STATUS, {"subject": subject(person.cedula), **DUTY}),
        await get(house, utgs, f"{REFERRALS}/{created.json()['id']}"),
        await get(house, utgs, f"{REFERRALS}/{created.json()['id']}/events"),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        nothing_leaks(answer)
