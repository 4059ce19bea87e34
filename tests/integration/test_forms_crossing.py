"""Registers of a simulated institution made into facts: of persons known here alone, once each, and only as agreed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import pytest_asyncio
import yaml
from test_simulator import PASSWORD, Simulator

from adapters.files.adapter import FileAdapter
from adapters.simulator.dossier import archive
from adapters.simulator.population import generate
from audit.search import recent
from gateway import embedded
from gateway.cli.context import open_context
from gateway.cli.db import bring_up
from gateway.cli.population import register_population
from gateway.clock import local_day, utc_now
from gateway.intake import forms_crossing
from gateway.intake.forms_crossing import Crossed, RegisterCrossing
from gateway.registry import service as registry
from gateway.registry.models import PersonRef
from gateway.runtime import Runtime, open_runtime
from gateway.settings import Settings, load_settings
from gateway.vault import write_secret
from tests.house import until

PEOPLE, SEED = 300, 1
PENSION = {cedula: each.pension for cedula, each in archive(PEOPLE, SEED).items() if each.pension is not None}


class Office(NamedTuple):
    runtime: Runtime
    crossing: RegisterCrossing
    adapter: FileAdapter

    async def take(self) -> None:
        for dataset in ("pension-roll", "tekopora-participation"):
            assert (await self.runtime.registers.take(self.adapter, dataset, again=True)).outcome == "taken"

    async def who(self, cedula: str) -> PersonRef | None:
        async with self.runtime.database.connection() as connection:
            return await registry.find_person(connection, self.runtime.vault, "cedula", cedula)

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.runtime.database.connection() as connection:
            return [tuple(row) for row in await connection.exec_driver_sql(query, values)]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    running = Simulator("mds-padron")
    yield running
    running.kill()


@pytest.fixture(scope="module")
def settings(folders: Callable[[str], Path], simulator: Simulator) -> Iterator[Settings]:
    made = load_settings(data_dir=folders("crossing"))
    bring_up(made, demonstration=True)
    ready = {"address": simulator.address, "host_key": simulator.ready["host_key"]}
    made.connections_file.write_text(yaml.safe_dump({"mds-padron": ready}), encoding="utf-8")
    write_secret(made.producer_secrets_dir / "mds_padron_password", PASSWORD.encode())
    yield made
    embedded.stop(made.data_dir)


@pytest_asyncio.fixture
async def office(settings: Settings) -> AsyncIterator[Office]:
    with psycopg.connect(embedded.start(settings.data_dir).url(embedded.OWNER)) as connection:
        connection.execute("TRUNCATE siis.register_file, siis.register_row")
        connection.execute("DELETE FROM siis.fact WHERE instrument = 'register'")
        connection.execute("UPDATE consent.agreement SET status = 'active'")
    async with open_context(settings) as context:
        await register_population(context, generate(PEOPLE, SEED), PEOPLE, SEED, lambda _done: None)
    async with open_runtime(settings) as runtime:
        adapter = runtime.adapters.named("mds-padron")
        assert isinstance(adapter, FileAdapter)
        adapter.still_s = 0.001
        yield Office(runtime, runtime.crossing, adapter)


async def test_who_is_on_the_roll_has_a_fact_of_the_institution_and_nobody_twice(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms_crossing, "_CHUNK", 7)
    await office.take()
    found = {each.dataset: each for each in await office.crossing.cross(office.adapter)}
    assert found.keys() == {"pension-roll", "tekopora-participation"}
    pension = found["pension-roll"]
    known = {cedula: who for cedula in PENSION if (who := await office.who(cedula)) is not None}
    assert known
    assert pension == Crossed(
        "mds-padron", "pension-roll", "padron_pension_2026_10.csv", "crossed", len(PENSION), len(known),
        len(PENSION) - len(known),
    )  # fmt: skip
    for cedula, who in known.items():
        facts = await office.rows(
            "SELECT service, protected, source, observed_on FROM siis.fact WHERE person_id = %s "
            "AND instrument = 'register'",
            who.id,
        )
        active = PENSION[cedula].status == "ACTIVO"
        assert facts == [("universal-pension", active, "MDS", local_day(utc_now()))]
    homes = await office.rows("SELECT count(*), count(household_id) FROM siis.fact WHERE service = 'tekopora' "
                              "AND instrument = 'register'")  # fmt: skip
    assert homes[0][0] == homes[0][1] > 0
    assert await office.crossing.cross(office.adapter) == []


async def test_the_worker_crosses_what_was_taken_by_itself(office: Office) -> None:
    await office.take()
    stop = asyncio.Event()
    running = asyncio.create_task(office.crossing.run(office.runtime.adapters, 0.05, stop))

    async def crossed() -> bool:
        return await office.rows("SELECT FROM siis.register_file WHERE crossed < done") == []

    await until(crossed)
    stop.set()
    await running
    assert await office.rows("SELECT DISTINCT service FROM siis.fact WHERE instrument = 'register' ORDER BY 1") == [
        ("tekopora",),
        ("universal-pension",),
    ]


async def test_a_crossing_that_is_cut_off_goes_on_where_it_was(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms_crossing, "_CHUNK", 7)
    await office.take()
    recorded, calls = registry.record_facts, []

    async def failing(*args: Any) -> int:
        calls.append(args)
        if len(calls) == 3:
            raise OSError("cut off")
        return await recorded(*args)

    monkeypatch.setattr(registry, "record_facts", failing)
    with pytest.raises(OSError, match="cut off"):
        await office.crossing.cross(office.adapter)
    before = await office.rows("SELECT count(*) FROM siis.fact WHERE instrument = 'register'")
    assert before[0][0] > 0
    await office.crossing.cross(office.adapter)
    twice = await office.rows(
        "SELECT person_id FROM siis.fact WHERE instrument = 'register' AND service = 'universal-pension' "
        "GROUP BY person_id HAVING count(*) > 1"
    )
    assert twice == []
    assert await office.rows("SELECT dataset FROM siis.register_file WHERE crossed < done") == []


async def test_without_an_agreement_nothing_is_read_and_the_log_says_so(office: Office, settings: Settings) -> None:
    await office.take()
    with psycopg.connect(embedded.start(settings.data_dir).url(embedded.OWNER)) as connection:
        connection.execute("UPDATE consent.agreement SET status = 'suspended' WHERE document ->> 'holder' = 'MDS'")
    async with office.runtime.database.connection() as reading:
        await office.runtime.policies.load(reading)
    assert {each.outcome for each in await office.crossing.cross(office.adapter)} == {"denied"}
    assert await office.rows("SELECT count(*) FROM siis.fact WHERE instrument = 'register'") == [(0,)]
    # Said once, however often the worker looks, and each time to whoever asks.
    await office.crossing.cross(office.adapter)
    await office.crossing.cross(office.adapter, user="ana")
    async with open_context(settings) as context, context.database.connection() as connection:
        entries = await recent(connection, context.epochs, 50, type="register.crossed")
    asked_by = [
        each.detail["actor"].get("user") for each in entries if each.envelope["outcome"] == "deny" and each.detail
    ]
    assert sorted(asked_by, key=str) == [None, None, "ana", "ana"]
