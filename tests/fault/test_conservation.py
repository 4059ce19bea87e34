"""The conservation oracle: whatever dies, every acknowledged referral has its effect once, and nothing is left between.

Referrals go to three institutions that misbehave, through two gateways and two workers that are killed at random, over
a database that is crashed in the middle. ``CONSERVATION=5000`` makes it the long version; ``CONSERVATION_SEED`` repeats
one. What the three simulated institutions wrote into their own books is what counts, not what the gateway believes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from audit.check import check_log
from gateway.cli.demo.clients import Caller
from gateway.referrals.states import TERMINAL
from gateway.runtime import load_signer
from schemas.ids import uuid7
from tests.house import House, build, until

REFERRALS = int(os.environ.get("CONSERVATION", "300"))
SEED = int(os.environ.get("CONSERVATION_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
LONG = REFERRALS > 1000
SERVICES = {"health-control": "mspbs", "universal-pension": "mds", "abrazo": "minna"}
QUIET = {"latency_ms": 0, "fail_503": 0, "reset": 0, "after_effect_reset": 0, "duplicate": 0}
SETTLE_S = 1800.0 if LONG else 240.0
SENDERS = 16

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(folders: Callable[[str], Path]) -> AsyncIterator[House]:
    # Nobody is referred twice to the same service: of three persons about two have a cédula and are alive.
    built = await build(folders("house"), persons=max(300, REFERRALS), twins=True)
    yield built
    await asyncio.shield(built.close())


async def test_every_acknowledged_referral_has_its_effect_once_whatever_dies(house: House) -> None:
    print(f"CONSERVATION={REFERRALS} CONSERVATION_SEED={SEED}")
    chance = random.Random(SEED)
    acknowledged: dict[str, str] = {}
    over = asyncio.Event()
    harm = asyncio.create_task(_harm(house, chance, acknowledged, over))
    try:
        await _send_all(house, acknowledged)
        # What is on its way when the last one is acknowledged is disturbed too.
        await asyncio.sleep(1.0)
    finally:
        over.set()
    done = await harm
    print(f"harm done: {dict(done)}")
    assert len(acknowledged) == REFERRALS
    assert done["database crashed"] == (2 if LONG else 1)
    await _calm(house)
    await until(lambda: _settled(house), SETTLE_S)
    await _nothing_is_lost_doubled_or_left(house, acknowledged)


async def _send_all(house: House, acknowledged: dict[str, str]) -> None:
    people = [person.cedula for person in house.people if person.cedula and not person.deceased_on]
    known = house.callers["demo-utgs"]
    work = iter(
        [(cedula, service) for service in SERVICES for cedula in people[: -(-REFERRALS // len(SERVICES))]][:REFERRALS]
    )

    async def sender() -> None:
        caller = Caller(house.balanced, known.issuer, known.client_id, known.private_key)
        for cedula, service in work:
            acknowledged[await _insisting(caller, cedula, service)] = SERVICES[service]

    await asyncio.gather(*(sender() for _ in range(SENDERS)))


async def _insisting(caller: Caller, cedula: str, service: str) -> str:
    """Send one referral under one key until it is acknowledged, as a client system does; return its number."""
    body = {
        "subject": {"system": "cedula", "value": cedula},
        "service": service,
        "reason": {"code": "protection-gap"},
        "purpose": "service-access-determination",
        "basis": "official-authority",
    }
    key, numbers = str(uuid7()), list[str]()

    async def taken() -> bool:
        try:
            answer = await caller.post("/api/v1/referrals", body, key=key)
        except httpx.HTTPError:
            # A token was asked for at the wrong moment, or no gateway is there just now.
            caller.token = ""
            return False
        assert answer.status_code in (201, 503), (answer.status_code, answer.text)
        if answer.status_code == 201:
            numbers.append(answer.json()["id"])
        return bool(numbers)

    await until(taken, SETTLE_S)
    return numbers[0]


async def _harm(house: House, chance: random.Random, acknowledged: dict[str, str], over: asyncio.Event) -> Counter[str]:
    """Kill processes, make institutions misbehave, crash the database when a third and two thirds are acknowledged."""
    done: Counter[str] = Counter()
    crashes = [REFERRALS // 3, 2 * REFERRALS // 3] if LONG else [REFERRALS // 2]
    while not over.is_set() or crashes:
        if crashes and len(acknowledged) >= crashes[0]:
            crashes.pop(0)
            await asyncio.to_thread(house.crash_database)
            done["database crashed"] += 1
        elif chance.random() < 0.35:
            name = chance.choice(house.names)
            house.kill(name)
            await asyncio.sleep(chance.uniform(0, 0.5))
            house.start(name)
            done[f"{name} killed"] += 1
        else:
            name = chance.choice(sorted(SERVICES.values()))
            switch, most = chance.choice(
                [("latency_ms", 400), ("fail_503", 8), ("reset", 4), ("after_effect_reset", 4), ("duplicate", 6)]
            )
            await house.switch(name, **{switch: chance.randrange(1, most)})
            done[f"{name} {switch}"] += 1
        await asyncio.sleep(chance.uniform(0.5, 2.0))
    return done


async def _calm(house: House) -> None:
    for name in set(SERVICES.values()):
        await house.switch(name, **QUIET)
    for name in house.names:
        if house.running[name].poll() is not None:
            house.start(name)
    await house.ready()


async def _rows(house: House, statement: str, **values: Any) -> list[Any]:
    async with house.context() as context, context.database.connection() as connection:
        return list((await connection.execute(text(statement), values)).all())


async def _settled(house: House) -> bool:
    [(open_ones,)] = await _rows(
        house, "SELECT count(*) FROM siis.referral WHERE state <> ALL(:ended)", ended=sorted(TERMINAL)
    )
    [(jobs,)] = await _rows(house, "SELECT count(*) FROM jobs.procrastinate_jobs WHERE status IN ('todo', 'doing')")
    books = [await _book(house, name) for name in set(SERVICES.values())]
    return open_ones == 0 and jobs == 0 and all(book["answers"]["pending"] == 0 for book in books)


async def _book(house: House, name: str) -> dict[str, Any]:
    answer = await house.http.get(f"{house.institutions[name].control}/_control/ledger")
    answer.raise_for_status()
    book: dict[str, Any] = answer.json()
    return book


async def _nothing_is_lost_doubled_or_left(house: House, acknowledged: dict[str, str]) -> None:
    stored = await _rows(house, "SELECT id::text, delivery, state FROM siis.referral")
    # One acknowledged is one stored: a repetition under the same key made no second one.
    assert {row.id for row in stored} == set(acknowledged)
    assert Counter(row.delivery for row in stored) == {"transmitted": REFERRALS}
    given = 0
    for name in set(SERVICES.values()):
        book = await _book(house, name)
        assert book["received"] == {key: 1 for key, value in acknowledged.items() if value == name}
        assert book["answers"]["refused"] == 0
        given += book["answers"]["given"]
    # Each answer of an institution is one event; the index that says so is not asked, the events are.
    [applied] = await _rows(
        house,
        "SELECT count(*) AS rows, count(DISTINCT (referral_id, actor, message_id)) AS messages"
        " FROM siis.referral_event WHERE message_id IS NOT NULL",
    )
    assert (applied.rows, applied.messages) == (given, given)
    [numbers] = await _rows(
        house,
        "SELECT count(*) AS broken FROM (SELECT referral_id FROM siis.referral_event GROUP BY 1"
        " HAVING max(number) <> count(*) OR count(*) FILTER (WHERE type = 'create') <> 1"
        " OR count(*) FILTER (WHERE type = 'send') <> 1) AS histories",
    )
    assert numbers.broken == 0
    [facts] = await _rows(
        house,
        "SELECT count(*) AS rows, count(DISTINCT referral_id) AS referrals,"
        " (SELECT count(*) FROM siis.referral_event WHERE type = 'outcome') AS outcomes"
        " FROM siis.fact WHERE referral_id IS NOT NULL",
    )
    assert (facts.rows, facts.referrals) == (facts.outcomes, facts.outcomes)
    [left] = await _rows(
        house,
        "SELECT (SELECT count(*) FROM jobs.procrastinate_jobs WHERE status IN ('todo', 'doing')) AS jobs,"
        " (SELECT count(*) FROM siis.message WHERE delivery = 'pending') AS messages",
    )
    assert (left.jobs, left.messages) == (0, 0)
    async with house.context() as context, context.database.connection() as connection:
        report = await check_log(connection, load_signer(house.settings))
    assert report.ok, report.problems[:3]
    assert all(process.poll() in (None, -signal.SIGKILL) for process in house.running.values())
