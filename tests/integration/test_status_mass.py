"""Everybody computed at once has the status that the pure function gives each, and nothing of it stays on the disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from status_world import START, catalogue, expected, noon, populate, random_facts, record, stored, wipe

from gateway.database import Database, application_url
from gateway.registry.mass import Outcome, classify_all
from gateway.registry.mass_reading import connect
from gateway.registry.mass_writing import Rows, _write, write
from gateway.registry.recompute import COLUMNS, arrived
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


def first_rows(who: UUID) -> Rows:
    """Make the first status of a person as the computation of everybody writes it."""
    row = {
        **dict.fromkeys(("populations", "categories", "applicable", "concurrent", "services"), "{}"),
        **{"unit": str(who), "kind": "person", "number": "1", "because": "everybody", "digest": "0" * 32},
        **{"at": noon(START).isoformat(), "day": START.isoformat()},
    }
    return Rows(["\t".join(row.get(name, "") for name in COLUMNS)], True)


async def test_whoever_is_computed_by_two_at_once_for_the_first_time_keeps_both(database: Database) -> None:
    random = Random(4)
    async with database.transaction() as connection:
        units = await populate(connection, random, 1)
    [who] = units["person"]

    async def arrive() -> None:
        async with database.transaction() as connection:
            await arrived(connection, SERVICES, persons=[who], at=noon(START), because="arrival")

    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with connect(database.url) as writer:
        with writer.transaction():
            assert _write(writer, first_rows(who)) == 1
            arriving = asyncio.create_task(arrive())
            async with database.connection() as connection:
                while not await connection.scalar(waits):
                    assert not arriving.done()
                    await connection.rollback()
        await arriving
    async with database.transaction() as connection:
        query = "SELECT number, because FROM siis.{} WHERE unit = :who"
        found = [
            tuple((await connection.execute(text(query.format(table)), {"who": who})).one())
            for table in ("status_past", "status")
        ]
    assert found == [(1, "everybody"), (2, "arrival")]


async def test_a_newer_status_is_not_replaced_by_rows_of_before(database: Database) -> None:
    random = Random(5)
    async with database.transaction() as connection:
        units = await populate(connection, random, 1)
        await arrived(connection, SERVICES, persons=units["person"], at=noon(START), because="arrival")
        before = await stored(connection)
    [who] = units["person"]
    assert write(database.url, first_rows(who)) == 0
    async with database.transaction() as connection:
        assert await stored(connection) == before
