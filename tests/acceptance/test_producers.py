"""The producers over HTTP: what each holds, and how it was last seen by whichever process asked it."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from gateway.cli.demo.clients import Caller, callers
from gateway.cli.token import request_token
from tests.acceptance.bad_input import DISCLOSURES, adults, asking
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATH = "/api/v1/producers"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def clients(house: House) -> dict[str, Caller]:
    """The client systems, with tokens of their own."""
    return callers(house.http, house.issuer, house.settings.data_dir)


async def ask(house: House, caller: Caller) -> Any:
    token = await request_token(house.http, house.issuer, caller.client_id, caller.private_key)
    return await house.http.get(house.issuer.url + PATH, headers={"Authorization": f"Bearer {token}"})


async def listed(house: House, clients: dict[str, Caller]) -> dict[str, dict[str, Any]]:
    answer = await ask(house, clients["demo-utgs"])
    assert answer.status_code == 200, answer.text
    return {producer["name"]: producer for producer in answer.json()["producers"]}


async def test_who_may_sees_what_each_system_holds_and_what_it_makes_sure_of(
    house: House, clients: dict[str, Caller]
) -> None:
    producers = await listed(house, clients)
    assert producers["identificaciones"]["datasets"] == ["identity"]
    assert producers["dnit"]["registers"] == ["ruc"]
    assert "tekopora" in producers["mds"]["services"]
    assert not producers["dnit"]["connected"]
    assert producers["dnit"]["health"]["reason"] == "not connected"
    assert any("identity" in sentence for sentence in producers["identificaciones"]["guarantees"])
    assert all(producer["unchecked"] for producer in producers.values())


async def test_who_may_not_learns_nothing(house: House, clients: dict[str, Caller]) -> None:
    assert (await ask(house, clients["demo-mds"])).status_code == 403
    assert (await house.http.get(house.issuer.url + PATH)).status_code == 401


async def test_a_system_that_fails_is_seen_so_with_reason_and_since_when(
    house: House, clients: dict[str, Caller]
) -> None:
    async def seen(ok: bool) -> bool:
        await clients["demo-mds"].post(DISCLOSURES, asking(adults(house)[14]))
        return (await listed(house, clients))["identificaciones"]["health"]["ok"] is ok

    await until(lambda: seen(True))
    await house.switch("identificaciones", fail_503=-1)
    try:
        await until(lambda: seen(False))
        health = (await listed(house, clients))["identificaciones"]["health"]
        assert health["since"]
        assert health["reason"] == "http 503"
        metrics = (await house.http.get(f"{house.issuer.url}/metrics")).text
        assert 'siis_producer_up{adapter="identificaciones"} 0.0' in metrics
    finally:
        await house.switch("identificaciones", fail_503=0)
    await until(lambda: seen(True))
