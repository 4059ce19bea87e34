"""Killing processes loses nothing that was acknowledged, does nothing twice, and leaves a log that verifies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import select

from audit.check import check_log
from gateway import embedded
from gateway.cli.demo.clients import Caller
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


def referring(house: House, number: int, service: str) -> dict[str, Any]:
    """Return the request that refers one of the living to a service."""
    person = [p for p in house.people if p.cedula and not p.deceased_on][number]
    return {
        "subject": {"system": "cedula", "value": person.cedula},
        "service": service,
        "reason": {"code": "protection-gap"},
        "purpose": "service-access-determination",
        "basis": "official-authority",
    }


async def send(house: House, number: int, acknowledged: dict[str, str]) -> None:
    """Send one referral; only an answer that arrived counts as acknowledged."""
    service = list(SERVICES)[number % 3]
    body = referring(house, number, service)
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
            report = await check_log(connection, signer)
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
    _says_that_nothing_was_done(await mds.post("/api/v1/disclosures", question))
    body, key = referring(house, 20, "abrazo"), str(uuid7())
    _says_that_nothing_was_done(await house.callers["demo-utgs"].post("/api/v1/referrals", body, key=key))
    assert (await house.http.get(f"{house.issuer.url}/health/live")).status_code == 200
    assert (await house.http.get(f"{house.issuer.url}/health/ready")).status_code == 503
    await asyncio.to_thread(embedded.start, house.settings.data_dir)
    await house.ready()
    # Refused, not lost: the same request under the same key is taken now.
    taken = await insisting(house.callers["demo-utgs"], "/api/v1/referrals", body, key)
    assert taken.status_code == 201
    acknowledged[taken.json()["id"]] = "minna"
    await asyncio.gather(*(send(house, number, acknowledged) for number in range(6, 12)))
    assert len(acknowledged) >= 7
    await everything_is_accounted_for(house, acknowledged)


async def insisting(caller: Caller, path: str, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    """Ask until the answer is another than 503: connections that went down with the database are noticed when used."""
    answers: list[httpx.Response] = []

    async def answered() -> bool:
        answers.append(await caller.post(path, body, key=key))
        return answers[-1].status_code != 503

    await until(answered)
    return answers[-1]


def _says_that_nothing_was_done(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert (answer.json()["type"], answer.headers["retry-after"]) == ("urn:siis:problem:unavailable", "5")
    assert answer.json()["detail"] == "No se pudo registrar el pedido y por eso no se atendió. Intente de nuevo."


async def asked(house: House) -> int:
    """Return how often the registers of identity were asked, by their own books; the worker asks the others."""
    registers = [house.institutions[name] for name in ("identificaciones", "identificaciones-soap")]
    books = [f"{register.control}/_control/ledger" for register in registers]
    return sum([(await house.http.get(book)).json()["requests"] for book in books])


NO_ROOM = """
CREATE FUNCTION public.no_room() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE disk_full USING MESSAGE = 'could not extend file: No space left on device';
END $$;
CREATE TRIGGER no_room BEFORE INSERT ON audit.entry FOR EACH STATEMENT EXECUTE FUNCTION public.no_room()
"""


@pytest.mark.parametrize(
    ("failure", "repair"),
    [
        (NO_ROOM, "DROP FUNCTION public.no_room CASCADE"),
        ("REVOKE INSERT ON audit.entry FROM siis_app", "GRANT INSERT ON audit.entry TO siis_app"),
    ],
    ids=["no-room", "no-right"],
)
async def test_a_log_that_cannot_be_written_stops_disclosures_and_refuses_referrals(
    house: House, failure: str, repair: str
) -> None:
    """All the rest of the database works: what is missing is only the room, or the right, for an entry."""
    person = next(p for p in house.people if p.cedula and not p.deceased_on and p.birth_date.year < 2000)
    question = {
        "subject": {"system": "cedula", "value": person.cedula},
        "dataset": "identity",
        "fields": ["given_names"],
        "purpose": "service-access-determination",
        "basis": "official-authority",
    }
    mds, utgs = house.callers["demo-mds"], house.callers["demo-utgs"]
    released = await insisting(mds, "/api/v1/disclosures", question)
    assert released.json()["facts"] == {"given_names": person.given_names}
    before = await asked(house)
    assert before > 0
    body, key = referring(house, 22, "abrazo"), str(uuid7())
    server = await asyncio.to_thread(embedded.start, house.settings.data_dir)
    with psycopg.connect(server.url(embedded.SUPERUSER), autocommit=True) as superuser:
        referrals = superuser.execute("SELECT count(*) FROM siis.referral").fetchone()
        superuser.execute(failure)
        try:
            _says_that_nothing_was_done(await mds.post("/api/v1/disclosures", question))
            _says_that_nothing_was_done(await utgs.post("/api/v1/referrals", body, key=key))
        finally:
            superuser.execute(repair)
        assert superuser.execute("SELECT count(*) FROM siis.referral").fetchone() == referrals
    assert await asked(house) == before
    taken = await insisting(utgs, "/api/v1/referrals", body, key)
    assert taken.status_code == 201
    assert (await insisting(mds, "/api/v1/disclosures", question)).status_code == 200
    await everything_is_accounted_for(house, {taken.json()["id"]: "minna"})
