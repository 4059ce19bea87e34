"""Counts the ten achievements of the SPS: of the units of a category, how many are in concurrent protection.

Counts are made with each computation of everybody, by territory and by population, and kept with it. What is shown has
no small cells (``suppression.py``), whatever part of the table is asked for: it is cut as a whole, then parted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.database import Database
from gateway.registry.status_tables import achievement, status_run
from gateway.registry.suppression import hidden
from gateway.registry.tables import community
from schemas.codes import code_list

Level = Literal["country", "department", "district", "community"]
LEVELS: tuple[Level, ...] = ("country", "department", "district", "community")
#: Categories in the order of the achievements, which count from 1 (SPS management model).
CATEGORIES = tuple(code_list("life-cycle"))
#: Stands where the place is not known: a part of the total like any other.
_NOWHERE = ""

# Alike units are counted together first: there are far fewer kinds of them than units.
_COUNTS = """
WITH alike AS (
    SELECT department, district, community_id, populations, categories, applicable, concurrent, count(*) AS units
    FROM siis.status GROUP BY 1, 2, 3, 4, 5, 6, 7
)
SELECT category, department, district, community_id, population, sum(units)::int AS identified,
    coalesce(sum(units) FILTER (WHERE category = ANY(applicable)), 0)::int AS applicable,
    coalesce(sum(units) FILTER (WHERE category = ANY(concurrent)), 0)::int AS concurrent
FROM alike, unnest(categories) AS category, unnest(populations || NULL::text) AS population
GROUP BY 1, 2, 3, 4, 5
"""
_NAMES = "category, department, district, community_id, population, identified, applicable, concurrent"
# A table of its own, since PostgreSQL counts with several processes for that, but not for an insertion.
_COUNT = text(f"CREATE TEMP TABLE counted ON COMMIT DROP AS {_COUNTS}")
_KEEP = text(
    f"INSERT INTO siis.achievement (run_id, {_NAMES}) SELECT :run, {_NAMES} FROM pg_temp.counted"  # noqa: S608
).bindparams(bindparam("run", type_=achievement.c.run_id.type))
_MEASURES = ("identified", "applicable", "concurrent")


class Area(NamedTuple):
    """A territory: the country, or down to a barrio; ``""`` for the part whose place is not known."""

    department: str | None = None
    district: str | None = None
    community: str | None = None

    @property
    def level(self) -> Level:
        """How far down it is."""
        return LEVELS[sum(part is not None for part in self)]

    @property
    def around(self) -> Area | None:
        """The territory it is a part of; None for the country."""
        known = [part for part in self if part is not None]
        return Area(*known[:-1]) if known else None


@dataclass(frozen=True, slots=True)
class Counted:
    """How many units are in a category, to how many a core service applies, and how many are concurrently reached."""

    category: str
    area: Area
    population: str | None
    identified: int | None
    applicable: int | None
    concurrent: int | None

    @property
    def number(self) -> int:
        """Which of the achievements it is, from 1."""
        return CATEGORIES.index(self.category) + 1


@dataclass(frozen=True, slots=True)
class Achievements:
    """The whole table as it may be shown, small cells hidden (None), and when it was computed; None: now."""

    at: datetime | None
    day: date | None
    rows: tuple[Counted, ...]

    def part(
        self, level: Level, *, department: str | None = None, district: str | None = None, population: str | None = None
    ) -> list[Counted]:
        """Return the rows of one level of territory, within a department or district and for a population if named."""
        return [
            row
            for row in self.rows
            if row.area.level == level
            and department in (None, row.area.department)
            and district in (None, row.area.district)
            and population in (None, row.population)
        ]


async def keep_counts(connection: AsyncConnection, run_id: UUID) -> None:
    """Count the achievements as the stored status has them, and keep the counts with a computation of everybody."""
    await connection.execute(_COUNT)
    await connection.execute(_KEEP, {"run": run_id})


async def achievements_now(connection: AsyncConnection) -> Achievements:
    """Return the achievements as the stored status has them at this moment."""
    return Achievements(None, None, _shown(await _summed(connection, (await connection.execute(text(_COUNTS))).all())))


class Published:
    """The counts that were kept, as they may be shown; those asked for last stay in memory, since they never change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: tuple[UUID, Achievements] | None = None

    async def on(self, day: date | None = None) -> Achievements:
        """Return the achievements as last counted by the end of a day (default: lately); without any, no rows."""
        newest = select(status_run.c.id, status_run.c.at, status_run.c.day).order_by(status_run.c.at.desc()).limit(1)
        async with self._database.connection() as connection:
            found = await connection.execute(newest if day is None else newest.where(status_run.c.day <= day))
            run = found.one_or_none()
            if run is None:
                return Achievements(None, None, ())
            if self._held is not None and self._held[0] == run.id:
                return self._held[1]
            columns = [achievement.c[name.strip()] for name in _NAMES.split(",")]
            rows = (await connection.execute(select(*columns).where(achievement.c.run_id == run.id))).all()
            summed = await _summed(connection, rows)
        # Of a whole country with its barrios this takes seconds, and others are served meanwhile.
        shown = Achievements(run.at, run.day, await asyncio.to_thread(_shown, summed))
        self._held = (run.id, shown)
        return shown


_Counts = dict[tuple[str, str | None], dict[Area, dict[str, int]]]


async def _summed(connection: AsyncConnection, rows: Iterable[Any]) -> _Counts:
    """Sum the rows up to every level of territory, by category and population; a barrio stands under its name."""
    names = {row.id: row.name for row in await connection.execute(select(community.c.id, community.c.name))}
    found: _Counts = defaultdict(lambda: defaultdict(lambda: dict.fromkeys(_MEASURES, 0)))
    for row in rows:
        barrio = names.get(row.community_id, _NOWHERE)
        area: Area | None = Area(row.department or _NOWHERE, row.district or _NOWHERE, barrio)
        while area is not None:
            cell = found[row.category, row.population][area]
            for measure in _MEASURES:
                cell[measure] += getattr(row, measure)
            area = area.around
    return found


def _shown(found: _Counts) -> tuple[Counted, ...]:
    """Hide the small cells of the whole table."""
    rows = []
    for category in CATEGORIES:
        everybody = found.get((category, None), {})
        total_of = {area: area.around for area in everybody if area.around is not None}
        behind: dict[str, frozenset[Area]] = {}
        for population in (None, *code_list("populations")):
            cells = found.get((category, population), {})
            # Nobody of this population is a count like any other.
            full = {area: cells.get(area, dict.fromkeys(_MEASURES, 0)) for area in everybody}
            cut = _cut(full, everybody, total_of, behind if population is not None else {})
            if population is None:
                behind = cut
            rows += [
                Counted(
                    category,
                    area,
                    population,
                    *(None if area in cut[measure] else full[area][measure] for measure in _MEASURES),
                )
                for area in full
            ]
    return tuple(sorted(rows, key=lambda row: (row.number, row.area.level, *(part or "" for part in row.area))))


def _cut(
    cells: Mapping[Area, Mapping[str, int]],
    everybody: Mapping[Area, Mapping[str, int]],
    total_of: Mapping[Area, Area],
    behind: Mapping[str, frozenset[Area]],
) -> dict[str, frozenset[Area]]:
    """Return what is hidden of each measure.

    A reader subtracts: those reached from those counted, a population from everybody. So the rests are tables, too,
    that may hold nothing small, and nothing is shown of what is a part of something hidden.
    """
    cut: dict[str, frozenset[Area]] = {}
    wider: str | None = None
    for measure in _MEASURES:
        found = behind.get(measure, frozenset()) | (frozenset() if wider is None else cut[wider])
        # Of everybody there is no rest: a table of zeros would hide all that stands above one hidden cell.
        rests = {} if cells == everybody else everybody
        tables = [
            {area: cell[measure] for area, cell in cells.items()},
            {area: cell[measure] - cells[area][measure] for area, cell in rests.items()},
        ]
        if wider is not None:
            inner = {area: cell[wider] - cell[measure] for area, cell in cells.items()}
            outer = {area: cell[wider] - cell[measure] for area, cell in rests.items()}
            tables += [inner, {area: outer[area] - inner[area] for area in rests}]
        before: frozenset[Area] | None = None
        while found != before:
            before = found
            for table in filter(None, tables):
                found = hidden(table, total_of, also=found)
        cut[measure] = found
        wider = measure
    return cut
