"""Everybody computed at once has the status that the pure function gives each, and nothing of it stays on the disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio
from sqlalchemy import text
from status_world import START, catalogue, expected, noon, populate, random_facts, record, stored, wipe

from gateway.database import Database, application_url
from gateway.registry.mass import Outcome, classify_all
from gateway.registry.recompute import arrived
from gateway.settings import Settings

SERVICES = catalogue()


@pytest_asyncio.fixture
async def database(settings: Settings, owner: Database) -> AsyncIterator[Database]:
    await wipe(owner)
    opened = Database(application_url(settings), pool_size=3)
    yield opened
    await opened.close()


def run(database: Database, folder: Path, days: int = 0, units: int = 70) -> Outcome:
    at = noon(START + timedelta(days=days))
    return classify_all(database.url, SERVICES, folder=folder, at=at, because="test", units=units, memory_mib=200)


@pytest.mark.parametrize("seed", range(3))
async def test_both_ways_give_the_same_answer_row_by_row(database: Database, tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    async with database.transaction() as connection:
        units = await populate(connection, random, 250)
        await record(connection, random_facts(random, units, list(SERVICES), START, 1500))
    previous: dict[object, object] = {}
    for days in (0, 1, 3):
        outcome = await asyncio.to_thread(run, database, tmp_path, days)
        async with database.transaction() as connection:
            found = await stored(connection)
            pure = await expected(connection, units, SERVICES, START + timedelta(days=days))
            assert {unit: {name: found[unit][name] for name in row} for unit, row in pure.items()} == pure
            assert found.keys() == pure.keys()
            changed = {unit for unit in found if previous.get(unit) != found[unit]["digest"]}
            assert outcome.changed == len(changed)
            assert outcome.units == len(pure)
            # Nobody changes by being computed once more.
            again = await arrived(
                connection,
                SERVICES,
                persons=units["person"],
                households=units["household"],
                communities=units["community"],
                at=noon(START + timedelta(days=days)),
                because="again",
            )
            assert again == {}
        previous = {unit: row["digest"] for unit, row in found.items()}
    assert os.listdir(tmp_path) == []


async def test_a_registry_of_nobody_is_computed(database: Database, tmp_path: Path) -> None:
    outcome = await asyncio.to_thread(run, database, tmp_path)
    assert (outcome.units, outcome.changed) == (0, 0)


async def test_what_arrives_while_everybody_is_computed_stays(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(9)
    async with database.transaction() as connection:
        units = await populate(connection, random, 60)
        await record(connection, random_facts(random, units, list(SERVICES), START, 200))
    await asyncio.to_thread(run, database, tmp_path)
    loop = asyncio.get_running_loop()

    async def arrive() -> None:
        async with database.transaction() as connection:
            facts = random_facts(random, units, list(SERVICES), START, 100)
            await record(connection, facts)
            await arrived(
                connection,
                SERVICES,
                persons=units["person"],
                households=units["household"],
                communities=units["community"],
                at=noon(START + timedelta(days=1)),
                because="arrival",
            )

    from gateway.registry import mass

    prepare = mass._chunks

    def interrupted(*arguments: object) -> object:
        # The snapshot is taken, nothing is written yet.
        asyncio.run_coroutine_threadsafe(arrive(), loop).result(30)
        return prepare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(mass, "_chunks", interrupted)
    await asyncio.to_thread(run, database, tmp_path, 1)
    async with database.transaction() as connection:
        found = await stored(connection)
        pure = await expected(connection, units, SERVICES, START + timedelta(days=1))
        wrong = [unit for unit, row in pure.items() if found[unit]["digest"] != row["digest"]]
        assert wrong == []
        numbers = await connection.execute(
            text(
                "SELECT s.unit FROM siis.status AS s WHERE s.number - 1 <> "
                "(SELECT count(*) FROM siis.status_past AS p WHERE p.unit = s.unit)"
            )
        )
        assert numbers.all() == []
