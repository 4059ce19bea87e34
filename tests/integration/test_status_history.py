"""The stored status is what the rule says each day, and the status of a past day is what was computed on that day."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy import func, select, text, update
from status_world import (
    START,
    catalogue,
    expected,
    install,
    noon,
    populate,
    random_facts,
    record,
    service,
    stored,
    wipe,
)

from gateway.catalogue.service import services as catalogue_services
from gateway.database import Database, application_url, owner_url
from gateway.registry.recompute import arrived, gap_since
from gateway.registry.rounds import StatusRounds
from gateway.registry.status import status_on
from gateway.registry.status_tables import status_run
from gateway.registry.tables import household, person
from gateway.settings import Settings

DAYS = 6


@given(seed=st.integers(0, 2**32))
@effort(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_status_of_a_past_day_is_what_was_computed_on_it(settings: Settings, tmp_path: Path, seed: int) -> None:
    asyncio.run(_live(settings, tmp_path, Random(seed)))


async def _live(settings: Settings, folder: Path, random: Random) -> None:
    owner, database = Database(owner_url(settings), pool_size=2), Database(application_url(settings), pool_size=3)
    try:
        await wipe(owner)
        services = catalogue()
        await install(owner, services)
        clock = [noon(START)]
        rounds = StatusRounds(database, folder, now=lambda: clock[0])
        async with database.transaction() as connection:
            units = await populate(connection, random, 20)
            await record(connection, random_facts(random, units, list(services), START, 60))
        computed: dict[date, dict[UUID, dict[str, Any]]] = {}
        for number in range(DAYS):
            day = START + timedelta(days=number)
            clock[0] = noon(day)
            if random.random() < 0.3:
                await install(owner, {**services, "school": replace(services["school"], to_age=random.choice([6, 14]))})
            if random.random() < 0.8:
                await rounds.due()
            for _time in range(random.randint(0, 2)):
                await _something_happens(database, random, units, list(services), day)
            if number == 0 or random.random() < 0.8:
                await rounds.due()
                async with database.transaction() as connection:
                    kept = await connection.scalar(select(func.max(status_run.c.at)))
                    assert kept is not None
                    # The alert for an old status looks at this.
                    assert REGISTRY.get_sample_value("siis_status_run_timestamp_seconds") == kept.timestamp()
                    current = await catalogue_services(connection)
                    found = await stored(connection)
                    pure = await expected(connection, units, current, day)
                    # Only who is not due yet may have been left out, and nothing about them is another.
                    wrong = [unit for unit, row in pure.items() if found[unit]["digest"] != row["digest"]]
                    assert wrong == []
            async with database.connection() as connection:
                computed[day] = await stored(connection)
        async with database.connection() as connection:
            for day, rows in computed.items():
                for unit, row in rows.items():
                    past = await status_on(connection, unit, day)
                    assert past is not None
                    assert (past.number, past.because) == (row["number"], row["because"])
                    told = {item.service: (item.status, item.category, item.rule) for item in past.status.services}
                    names = ("status", "category", "rule")
                    assert told == {code: tuple(of[name] for name in names) for code, of in row["services"].items()}
                    assert past.status.categories == tuple(row["categories"])
                    assert past.status.concurrent_in == tuple(row["concurrent"])
            unit = units["community"][0]
            assert await status_on(connection, unit, START - timedelta(days=1)) is None
    finally:
        await owner.close()
        await database.close()


async def _something_happens(
    database: Database, random: Random, units: dict[str, list[UUID]], services: list[str], day: date
) -> None:
    """Facts arrive, of late days as well; somebody dies, a home becomes poor, somebody is found to be another."""
    async with database.transaction() as connection:
        facts = random_facts(random, units, services, day, random.randint(0, 15))
        await record(connection, facts)
        touched: dict[str, set[UUID]] = {
            kind: {each[f"{kind}_id"] for each in facts} - {None} for kind in ("person", "household", "community")
        }
        if random.random() < 0.5:
            home = random.choice(units["household"])
            attributes = {"poverty": random.random() < 0.5}
            await connection.execute(update(household).where(household.c.id == home).values(attributes=attributes))
            touched["household"].add(home)
        if random.random() < 0.5:
            who = random.choice(units["person"])
            await connection.execute(update(person).where(person.c.id == who).values(deceased_on=day))
            touched["person"].add(who)
        if random.random() < 0.5:
            one, other = sorted(random.sample(units["person"], 2))
            merged = random.choice([None, one])
            before = await connection.scalar(text("SELECT merged_into FROM siis.person WHERE id = :id"), {"id": other})
            await connection.execute(update(person).where(person.c.id == other).values(merged_into=merged))
            touched["person"] |= {one, other} | ({before} if before is not None else set())
        await arrived(
            connection,
            await catalogue_services(connection),
            persons=touched["person"],
            households=touched["household"],
            communities=touched["community"],
            at=noon(day),
            because="arrival",
        )


async def test_a_gap_is_known_since_the_service_was_last_found_missing(settings: Settings, owner: Database) -> None:
    await wipe(owner)
    random = Random(3)
    services = {"health": service("health", "age-60-plus", "age-30-59", coverage_days=2)}
    async with owner.transaction() as connection:
        units = await populate(connection, random, 1)
        [who] = units["person"]
        values = {"birth_date": date(1961, 3, 2), "deceased_on": None, "merged_into": None, "household_id": None}
        await connection.execute(update(person).where(person.c.id == who).values(**values))

        async def told(days: int, protected: bool | None = None) -> tuple[date | None, bool]:
            day = START + timedelta(days=days)
            if protected is not None:
                [fact] = random_facts(
                    random, {"person": [who], "household": [who], "community": [who]}, ["health"], day, 1
                )
                keys = {"person_id": who, "household_id": None, "community_id": None}
                await record(connection, [{**fact, **keys, "protected": protected, "observed_on": day}])
            changed = await arrived(connection, services, persons=[who], at=noon(day), because="arrival")
            since = await gap_since(connection, who, None, "health")
            return since, who in changed and changed[who].of("health")

        assert await gap_since(connection, who, None, "health") is None
        assert await told(0) == (START, True)
        assert await told(1, protected=False) == (START, True)
        assert await told(2, protected=True) == (None, True)
        assert await told(3) == (None, False)
        assert await told(5) == (START + timedelta(days=5), True)
        assert await told(6, protected=False) == (START + timedelta(days=5), True)
        assert await gap_since(connection, who, None, "of nobody") is None
