"""The ten achievements: counted from the stored status, by territory and population, with nothing small shown."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import select, text
from status_world import START, catalogue, expected, install, noon, populate, random_facts, record, wipe

from gateway.catalogue.service import services
from gateway.database import Database, application_url
from gateway.registry.achievements import Achievements, Area, Published, achievements_now
from gateway.registry.rounds import StatusRounds
from gateway.registry.suppression import small
from gateway.registry.tables import community
from gateway.settings import Settings
from schemas.codes import code_list

LATER = date(2026, 2, 28)
_PROTECTED = text(
    "SELECT r.day, sum(a.concurrent)::int AS reached FROM siis.status_run AS r"
    " JOIN siis.achievement AS a ON a.run_id = r.id WHERE a.population IS NULL GROUP BY r.day"
)


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_is_shown_is_right_and_nothing_small_follows(
    settings: Settings, owner: Database, tmp_path: Path, seed: int
) -> None:
    await wipe(owner)
    random = Random(seed)
    await install(owner, catalogue())
    database = Database(application_url(settings), pool_size=3)
    try:
        rounds = StatusRounds(database, tmp_path, now=lambda: noon(START))
        async with database.transaction() as connection:
            units = await populate(connection, random, 700)
            await record(connection, random_facts(random, units, list(catalogue()), START, 9000))
        assert await Published(database).on(START) == Achievements(None, None, ())
        await rounds.everybody("test")
        async with database.transaction() as connection:
            pure = await expected(connection, units, await services(connection), START)
            names = {row.id: row.name for row in await connection.execute(select(community.c.id, community.c.name))}
            live = await achievements_now(connection)
        published = Published(database)
        kept, earlier = await published.on(), await published.on(date(2026, 1, 1))
        assert (kept.at, kept.day) == (noon(START), START)
        assert kept.rows == live.rows
        assert earlier.rows == ()
    finally:
        await database.close()
    shown = {(row.category, row.area, row.population): row for row in kept.rows}
    assert {row.category for row in kept.rows} == {name for row in pure.values() for name in row["categories"]}
    assert {row.number for row in kept.rows} == {1, 2, 3, 4, 5, 7, 8, 9, 10}
    counts = _counted(list(pure.values()), names)
    # One small barrio hides its neighbour, and nothing that is far above both.
    shown_whole = [row for row in kept.rows if (row.area, row.population) == (Area(), None)]
    assert any(row.identified is not None for row in shown_whole)
    told = 0
    for key, row in shown.items():
        found = (row.identified, row.applicable, row.concurrent)
        for measure, count in zip(found, counts.get(key, (0, 0, 0)), strict=True):
            assert measure in (None, count)
            told += measure is not None
        # What a reader subtracts is no smaller than what is shown.
        everybody = shown[row.category, row.area, None]
        whole = (everybody.identified, everybody.applicable, everybody.concurrent)
        for one, other in [*zip(whole, found, strict=True), *pairwise(found)]:
            assert one is None or other is None or not small(one - other, one, other)
    assert told > 300
    for parent in {row.area for row in kept.rows if row.area.level != "community"}:
        for category, population in {(row.category, row.population) for row in kept.rows}:
            parts = [
                row
                for (of, area, who), row in shown.items()
                if (of, who) == (category, population) and area.around == parent
            ]
            total = shown.get((category, parent, population))
            if total is not None and total.identified is not None and any(part.identified is None for part in parts):
                rest = total.identified - sum(part.identified or 0 for part in parts)
                assert rest >= 5
                assert sum(part.identified is None for part in parts) > 1


def _counted(rows: list[dict[str, Any]], names: dict[Any, str]) -> dict[Any, tuple[int, int, int]]:
    """Count once more, the plain way."""
    found: dict[Any, tuple[int, int, int]] = {}
    for row in rows:
        area: Area | None = Area(row["department"] or "", row["district"] or "", names.get(row["community_id"], ""))
        while area is not None:
            for category in row["categories"]:
                for population in (None, *row["populations"]):
                    before = found.get((category, area, population), (0, 0, 0))
                    more = (1, category in row["applicable"], category in row["concurrent"])
                    key = (category, area, population)
                    found[key] = tuple(a + b for a, b in zip(before, more, strict=True))  # type: ignore[assignment]
            area = area.around
    return found


async def test_the_counts_change_with_the_rounds_and_those_of_before_stay(
    settings: Settings, owner: Database, tmp_path: Path
) -> None:
    await wipe(owner)
    random = Random(5)
    await install(owner, catalogue())
    clock = [noon(START)]
    database = Database(application_url(settings), pool_size=3)
    try:
        rounds = StatusRounds(database, tmp_path, now=lambda: clock[0])
        async with database.transaction() as connection:
            units = await populate(connection, random, 300)
        assert await rounds.due() == sum(map(len, units.values()))
        assert await rounds.due() is None
        clock[0] = noon(LATER)
        async with database.transaction() as connection:
            await record(connection, random_facts(random, units, list(catalogue()), LATER, 5000))
        await rounds.everybody("test")
        published = Published(database)
        before, after = await published.on(START), await published.on()
        async with database.connection() as connection:
            protected = {row.day: row.reached for row in await connection.execute(_PROTECTED)}
        assert protected[START] == 0 < protected[LATER]
        assert (before.day, after.day) == (START, LATER)
    finally:
        await database.close()
    assert code_list("populations").keys() == {row.population for row in after.rows} - {None}
