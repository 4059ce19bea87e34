"""Killing processes loses nothing that was acknowledged, does nothing twice, and leaves a log that verifies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import select

from audit.check import check_log
from gateway import embedded
from gateway.referrals.states import TERMINAL
from gateway.referrals.tables import referral, referral_event
from gateway.runtime import load_signer
from schemas.ids import uuid7
from tests.house import House, build, until

SERVICES = {"health-control": "mspbs", "universal-pension": "mds", "abrazo": "minna"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(folders: Callable[[str], Path]) -> AsyncIterator[House]:
    built = await build(folders("house"))
    yield built
    await asyncio.shield(built.close())


async def send(house: House, number: int, acknowledged: dict[str, str]) -> None:
    """Send one referral; only an answer that arrived counts as acknowledged."""
    person = [p for p in house.people if p.cedula and not p.deceased_on][number]
    service = list(SERVICES)[number % 3]
    body = {
        "subject": {"system": "cedula", "value": person.cedula},
        "service": service,
        "reason": {"code": "protection-gap"},
        "purpose": "service-access-determination",
        "basis": "official-authority",
    }
    try:
        answer = await house.callers["demo-utgs"].post("/api/v1/referrals", body, key=str(uuid7()))
    except httpx.TransportError:
        return
    if answer.status_code == 201:
        acknowledged[answer.json()["id"]] = SERVICES[service]


async def everything_is_accounted_for(house: House, acknowledged: dict[str, str]) -> None:
    ids = [UUID(text) for text in acknowledged]
    async with house.context() as context:

        async def settled() -> bool:
            async with context.database.connection() as connection:
                rows = await connection.execute(select(referral.c.state).where(referral.c.id.in_(ids)))
                found = [row.state for row in rows]
            assert len(found) == len(ids)
            return all(state in TERMINAL for state in found)

        await until(settled)
        for name in set(SERVICES.values()):
            effects = await house.effects(name)
            for referral_id in (key for key, value in acknowledged.items() if value == name):
                assert effects.get(referral_id) == 1, (name, referral_id)
        async with context.database.connection() as connection:
            numbers = await connection.execute(
                select(referral_event.c.referral_id, referral_event.c.number, referral_event.c.message_id)
            )
            rows = numbers.all()
            assert len({(row.referral_id, row.number) for row in rows}) == len(rows)
        async with context.database.connection() as connection:
            signer = load_signer(house.settings)
            report = await check_log(connection, signer.public_key, signer.origin)
        assert report.ok, report.problems[:3]


async def test_a_worker_killed_in_mid_delivery_loses_and_repeats_nothing(house: House) -> None:
    acknowledged: dict[str, str] = {}
    for name in SERVICES.values():
        await house.switch(name, latency_ms=300)
    await house.switch("mds", after_effect_reset=2)
    sending = asyncio.gather(*(send(house, number, acknowledged) for number in range(30)))

    async def under_way() -> bool:
        return any([await house.effects(name) for name in SERVICES.values()])

    await until(under_way)
    house.kill("worker")
    await sending
    house.start("worker")
    for name in SERVICES.values():
        await house.switch(name, latency_ms=0)
    assert len(acknowledged) == 30
    await everything_is_accounted_for(house, acknowledged)


async def test_a_gateway_killed_while_it_acknowledges_keeps_every_acknowledged_referral(house: House) -> None:
    acknowledged: dict[str, str] = {}
    async with asyncio.TaskGroup() as tasks:
        for number in range(60):
            tasks.create_task(send(house, number, acknowledged))

        async def some() -> bool:
            return len(acknowledged) >= 5

        await until(some)
        house.kill("serve")
    assert 5 <= len(acknowledged) < 60
    house.start("serve")
    await house.ready()
    await everything_is_accounted_for(house, acknowledged)


async def test_an_institution_that_is_down_delays_only_its_own_referrals(house: House) -> None:
    acknowledged: dict[str, str] = {}
    await house.switch("mds", fail_503=-1)
    await asyncio.gather(*(send(house, number, acknowledged) for number in range(12)))
    others = [UUID(key) for key, name in acknowledged.items() if name != "mds"]
    async with house.context() as context:

        async def others_settled() -> bool:
            async with context.database.connection() as connection:
                rows = await connection.execute(select(referral.c.state).where(referral.c.id.in_(others)))
                return all(row.state in TERMINAL for row in rows)

        await until(others_settled)
        async with context.database.connection() as connection:
            down = [UUID(key) for key, name in acknowledged.items() if name == "mds"]
            waiting = await connection.execute(select(referral.c.state).where(referral.c.id.in_(down)))
            assert {row.state for row in waiting} == {"created"}
    await house.switch("mds", fail_503=0)
    await everything_is_accounted_for(house, acknowledged)


async def test_a_database_that_stops_for_a_while_releases_nothing_and_loses_nothing(house: House) -> None:
    acknowledged: dict[str, str] = {}
    await asyncio.gather(*(send(house, number, acknowledged) for number in range(6)))
    question = {
        "subject": {"system": "cedula", "value": "1234567"},
        "dataset": "identity",
        "fields": ["given_names"],
        "purpose": "service-access-determination",
        "basis": "official-authority",
    }
    mds = house.callers["demo-mds"]
    assert (await mds.post("/api/v1/disclosures", question)).status_code == 404
    await asyncio.to_thread(embedded.stop, house.settings.data_dir)
    refused = await mds.post("/api/v1/disclosures", question)
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert (await house.http.get(f"{house.issuer.url}/health/live")).status_code == 200
    assert (await house.http.get(f"{house.issuer.url}/health/ready")).status_code == 503
    await asyncio.to_thread(embedded.start, house.settings.data_dir)
    await house.ready()
    await asyncio.gather(*(send(house, number, acknowledged) for number in range(6, 12)))
    assert len(acknowledged) >= 6
    await everything_is_accounted_for(house, acknowledged)
