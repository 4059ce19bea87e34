"""A worker dies while it sends to an institution that recognises nothing it already has: then a person decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from adapters.registry import SHIPPED
from consent import agreements
from gateway.clock import utc_now
from schemas.ids import uuid7
from tests.house import House, build, until

NAME, SERVICE, AGREEMENT = "mspbs-unsure", "early-stimulation", "DEMO-UTGS-MSPBS-REFERRAL"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(folders: Callable[[str], Path]) -> AsyncIterator[House]:
    manifests = folders("manifests")
    shipped = yaml.safe_load((SHIPPED / "mspbs.yaml").read_text(encoding="utf-8"))
    unsure = {**shipped, "name": NAME, "services": [SERVICE], "deduplicates": False}
    (manifests / f"{NAME}.yaml").write_text(yaml.safe_dump(unsure), encoding="utf-8")
    built = await build(folders("house"), manifests=manifests)
    try:
        file = built.settings.connections_file
        known = yaml.safe_load(file.read_text(encoding="utf-8"))
        file.write_text(yaml.safe_dump({**known, NAME: known["mspbs"]}), encoding="utf-8")
        async with built.context() as context, context.database.transaction() as connection:
            agreed = (await agreements.read_history(connection, AGREEMENT)).versions[-1].agreement
            datasets = {f"service:{SERVICE}": next(iter(agreed.datasets.values()))}
            new = replace(agreed, code="UNSURE", version=1, datasets=datasets)
            await agreements.put_agreement(connection, new, at=utc_now())
        yield built
    finally:
        await asyncio.shield(built.close())


async def test_what_a_killed_worker_may_have_sent_is_never_sent_again_until_a_person_says_so(house: House) -> None:
    utgs = house.callers["demo-utgs"]
    person = next(each for each in house.people if each.cedula and not each.deceased_on)
    body = {
        "subject": {"system": "cedula", "value": person.cedula},
        "service": SERVICE,
        "reason": {"code": "protection-gap"},
        "purpose": "service-access-determination",
        "basis": "official-authority",
    }

    async def book() -> dict[str, Any]:
        found: dict[str, Any] = (await house.http.get(f"{house.institutions['mspbs'].control}/_control/ledger")).json()
        return found

    # It reports nothing of it either, by which the gateway would know.
    await house.switch("mspbs", latency_ms=3000, accept_after_s=3600, outcome_after_s=3600)
    numbers: list[str] = []

    async def taken() -> bool:
        # Until the new agreement is in force in the running gateway.
        answer = await utgs.post("/api/v1/referrals", body, key=str(uuid7()))
        if answer.status_code == 201:
            numbers.append(answer.json()["id"])
        return bool(numbers)

    await until(taken)
    [number] = numbers

    async def seen() -> dict[str, Any]:
        return await utgs.read(f"/api/v1/referrals/{number}")

    async def asked() -> bool:
        return bool((await book())["requests"])

    async def done() -> bool:
        return (await book())["received"] == {number: 1}

    await until(asked)
    house.kill("worker")
    # The institution works on what it was sent, though nobody waits for its answer any more.
    await until(done)
    assert (await seen())["delivery"] == "pending"
    await house.switch("mspbs", latency_ms=0)
    house.start("worker")

    async def stopped() -> bool:
        return (await seen())["delivery"] == "dead"

    await until(stopped)
    assert (await seen())["delivery_reason"] == "effect-unknown"
    after = await book()
    assert (after["received"], after["requests"]) == ({number: 1}, 1)
