"""Events over HTTP and on the command line: subscribe, be called by the real worker, pull; strangers find nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from gateway.cli.demo.clients import Caller
from gateway.clock import utc_now
from gateway.subscriptions.signing import signed_headers
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, newcomer, referring
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
SCOPES = ("events.manage", "events.read")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def systems(house: House) -> dict[str, Caller]:
    return {code: await newcomer(house, code, *SCOPES) for code in ("UTGS", "MSPBS", "MEC")}


@pytest.fixture(scope="module")
def siis(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", house.settings.data_dir)
    yield made
    made.end()


@asynccontextmanager
async def receiving(calls: list[tuple[dict[str, str], bytes]]) -> AsyncIterator[str]:
    """Listen as an institution does that repeats the word and takes everything."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _colon, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        calls.append((headers, body))
        said = json.dumps({"challenge": json.loads(body)["data"].get("challenge")}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/avisos"


async def refer(house: House, number: int) -> str:
    """Let the coordinator refer somebody to the health ministry."""
    answer = await call(house, house.callers["demo-utgs"], "POST", "referrals", referring(adults(house)[number]))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_a_subscription_lives_from_its_secret_to_its_end(house: House, systems: dict[str, Caller]) -> None:
    key = str(uuid7())
    body = {"channel": "webhook", "url": "https://mspbs.example/avisos", "types": ["referral.send"]}
    made = await call(house, systems["MSPBS"], "POST", "subscriptions", body, key=key)
    assert made.status_code == 201, made.text
    again = await call(house, systems["MSPBS"], "POST", "subscriptions", body, key=key)
    assert "secret" not in again.json(), "shown once"
    assert {**again.json(), "secret": made.json()["secret"]} == made.json()
    path = f"subscriptions/{made.json()['subscription']}"
    shown = (await call(house, systems["MSPBS"], "GET", path)).json()
    assert (shown["state"], shown["types"], shown["url"]) == ("unverified", ["referral.send"], body["url"])
    assert "secret" not in shown
    other = await call(house, systems["MSPBS"], "POST", path + "/secret")
    assert (other.status_code, other.json()["secret"] == made.json()["secret"]) == (201, False)
    for method, where in (("GET", path), ("DELETE", path), ("POST", path + "/secret"), ("POST", path + "/enable")):
        assert (await call(house, systems["MEC"], method, where)).status_code == 404
    listed = (await call(house, systems["MEC"], "GET", "subscriptions")).json()["subscriptions"]
    assert {each["institution"] for each in listed} <= {"MEC"}
    assert (await call(house, systems["MSPBS"], "DELETE", path)).status_code == 200
    assert (await call(house, systems["MSPBS"], "GET", path)).status_code == 404


async def test_the_worker_calls_and_a_system_pulls_what_concerns_it(
    house: House, systems: dict[str, Caller], siis: Siis
) -> None:
    pulled = {}
    for code in ("MSPBS", "MEC"):
        made = await call(house, systems[code], "POST", "subscriptions", {"channel": "pull"})
        pulled[code] = made.json()["subscription"]
    calls: list[tuple[dict[str, str], bytes]] = []
    async with receiving(calls) as url:
        body = {"channel": "webhook", "url": url, "parts": ["requester"], "services": ["health-control"]}
        made = await call(house, systems["UTGS"], "POST", "subscriptions", body)
        number = await refer(house, 40)

        async def told() -> bool:
            return any(b"referral.send" in body and number.encode() in body for _headers, body in calls)

        await until(told)
    headers, raw = next((headers, body) for headers, body in calls if number.encode() in body)
    message = json.loads(raw)
    assert (message["type"], message["data"]["sequence"]) == ("referral.create", 1)
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    assert abs((utc_now() - at).total_seconds()) < 300
    expected = signed_headers(message["id"], at, raw, [made.json()["secret"]])
    assert {name: headers[name] for name in expected} == expected

    asked = {"subscription": pulled["MSPBS"], "lease_s": 600}
    came: list[dict[str, Any]] = []

    async def handed() -> bool:
        answer = await call(house, systems["MSPBS"], "POST", "events/next", asked)
        assert answer.status_code == 200, answer.text
        came.extend(each for each in answer.json()["events"] if each["data"]["referral"] == number)
        return bool(came)

    await until(handed)
    assert came[0]["type"] == "referral.send", "the recipient learns of it once it has it"
    confirming = {"subscription": pulled["MSPBS"], "ids": [came[0]["id"]]}
    for confirmed in (1, 0):
        answer = await call(house, systems["MSPBS"], "POST", "events/confirm", confirming)
        assert answer.json() == {"confirmed": confirmed}
    stranger = await call(house, systems["MEC"], "POST", "events/next", {"subscription": pulled["MEC"]})
    assert stranger.json()["events"] == []
    for path, body in (("events/next", asked), ("events/confirm", confirming)):
        assert (await call(house, systems["MEC"], "POST", path, body)).status_code == 404
    rows = {row["id"]: row for row in (await run(siis, "subscription", "list", "--json")).json()}
    assert rows[made.json()["subscription"]]["state"] == "active"
    assert rows[pulled["MEC"]]["waiting"] == 0


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("subscriptions", {"channel": "fax"}, 400, "invalid-message"),
        ("subscriptions", {"channel": "webhook"}, 422, "subscription-url"),
        ("subscriptions", {"channel": "webhook", "url": "http://mec.gov.py/"}, 422, "bad-url"),
        ("subscriptions", {"channel": "pull", "districts": ["9999"]}, 422, "unknown-code"),
        ("subscriptions", {"channel": "pull", "districts": [101]}, 400, "invalid-message"),
        ("events/next", {"subscription": "1"}, 400, "invalid-message"),
        ("events/next", {"subscription": str(uuid7()), "limit": 0}, 400, "invalid-message"),
        ("events/confirm", {"subscription": str(uuid7()), "ids": ["x"]}, 400, "invalid-message"),
        ("events/confirm", {"subscription": str(uuid7()), "ids": [str(uuid7())]}, 404, "not-found"),
    ],
)
async def test_what_cannot_be_is_refused_and_stores_nothing(
    house: House, systems: dict[str, Caller], path: str, body: dict[str, Any], status: int, code: str
) -> None:
    before = (await call(house, systems["MEC"], "GET", "subscriptions")).json()
    answer = await call(house, systems["MEC"], "POST", path, body)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:siis:problem:{code}"), answer.text
    assert (await call(house, systems["MEC"], "GET", "subscriptions")).json() == before


async def test_a_system_without_the_scope_is_refused(house: House) -> None:
    system = await newcomer(house, "MEC", "referrals.read")
    assert (await call(house, system, "GET", "subscriptions")).status_code == 403
    assert (await call(house, system, "POST", "events/next", {"subscription": str(uuid7())})).status_code == 403


async def test_the_command_line_makes_renews_and_ends_subscriptions(siis: Siis) -> None:
    made = await run(siis, "subscription", "create", "MEC", "pull", "--type", "referral.accept", "--json")
    number = made.json()["subscription"]
    refused = await run(siis, "subscription", "secret", number)
    assert refused.code == 1, "what is pulled has no secret"
    assert (await run(siis, "subscription", "create", "MEC", "pull", "--district", "9999")).code == 2
    assert (await run(siis, "subscription", "create", "NADIE", "pull")).code == 2
    hook = (
        await run(siis, "subscription", "create", "MEC", "webhook", "--url", "https://mec.example/", "--json")
    ).json()
    renewed = (await run(siis, "subscription", "secret", hook["subscription"], "--json")).json()
    assert renewed["secret"].startswith("whsec_")
    assert renewed["secret"] != hook["secret"]
    assert (await run(siis, "subscription", "enable", hook["subscription"])).code == 0
    for which in (number, hook["subscription"]):
        assert (await run(siis, "subscription", "remove", which)).code == 0
        assert (await run(siis, "subscription", "remove", which)).code == 1
