"""Small worlds for tests of protection status: awkward birthdays, homes, communities, and facts that clash."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, insert, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue.models import Service
from gateway.database import Database
from gateway.registry.status import compute
from gateway.registry.tables import community, fact, household, person
from gateway.registry.units import read_facts, read_units
from schemas.ids import uuid7

START = date(2026, 2, 27)
INSTRUMENTS = ("counter-referral", "fips", "register", "simplified-form", "of no list")
_BIRTHS = (
    None,
    date(2024, 2, 29),
    date(2008, 2, 29),
    date(1966, 2, 28),
    date(1966, 3, 1),
    date(1961, 3, 2),
    date(2025, 3, 1),
    date(2021, 2, 28),
    date(2012, 12, 31),
    date(2026, 3, 1),
    date(2030, 1, 1),
)
_MARKS = ("pregnant", "disability", "severe-disability", "indigenous", "child-labour", "poverty")


def service(code: str, *categories: str, **more: Any) -> Service:
    """Build a service."""
    given = {"requires": None, "from_age": None, **more}
    return Service(
        code=code,
        institution="MSPBS",
        names={"es": code, "en": code},
        categories=frozenset(categories),
        response_days=10,
        **given,
    )


def catalogue() -> dict[str, Service]:
    """Build a catalogue that uses every property the rule knows."""
    built = (
        service("care", "before-birth", requires="pregnant"),
        service("care-a", "before-birth", "age-14-17", to_age=17, coverage_days=3),
        service("birth", "at-birth", coverage_days=2),
        service("growth", "age-0-4", "at-birth", coverage_days=1),
        service("school", "age-5-13", "age-14-17"),
        service("labour", "age-5-13", requires="child-labour"),
        service("work", "age-18-29", "age-30-59", outside_core=frozenset({"age-30-59"})),
        service("pension", "age-60-plus", from_age=65, coverage_days=4),
        service("cash", "household", requires="poverty", coverage_days=2),
        service("water", "household", "community"),
        service("road", "community", outside_core=frozenset({"community"})),
        service("asked-for"),
    )
    return {each.code: each for each in built}


async def populate(connection: AsyncConnection, random: Random, persons: int) -> dict[str, list[UUID]]:
    """Insert a world and return the ids of its units by kind."""
    places = [None, ("11", "1101"), ("11", "1102"), ("00", "0000"), ("1,1", 'a "quoted"\tone\nof\x01two lines')]
    units: dict[str, list[UUID]] = {"community": [], "household": [], "person": []}
    for number in range(3):
        units["community"].append(uuid7())
        row = {"id": units["community"][-1], "department": "11", "district": "1101", "name": f"Barrio {number}"}
        await connection.execute(insert(community).values(**row, attributes=_marks(random)))
    homes: list[dict[str, Any]] = []
    for _number in range(max(persons // 3, 1)):
        department, district = random.choice(places) or (None, None)
        homes.append(
            {
                "id": uuid7(),
                "department": department,
                "district": district,
                "community_id": random.choice([None, *units["community"]]),
                "attributes": _marks(random),
            }
        )
    await connection.execute(insert(household), homes)
    units["household"] = [home["id"] for home in homes]
    rows: list[dict[str, Any]] = []
    for _number in range(persons):
        department, district = random.choice(places) or (None, None)
        rows.append(
            {
                "id": uuid7(),
                "household_id": random.choice([None, *units["household"]]),
                "names": b"sealed",
                "birth_date": random.choice(_BIRTHS),
                "sex": random.choice([None, "F", "M"]),
                "department": department,
                "district": district,
                "deceased_on": random.choice([None] * 6 + [START, START + timedelta(days=3), date(2020, 1, 1)]),
                "attributes": _marks(random),
                # To somebody made before, so that chains of findings end.
                "merged_into": random.choice([None] * 5 + [each["id"] for each in rows[:3]]),
            }
        )
    await connection.execute(insert(person), rows)
    units["person"] = [row["id"] for row in rows]
    return units


def random_facts(
    random: Random, units: dict[str, list[UUID]], services: list[str], day: date, many: int
) -> list[dict[str, Any]]:
    """Make facts as they arrive on a day: most about days before, of which several clash; some about days to come."""
    facts = []
    for _number in range(many):
        kind = random.choice(["person"] * 4 + ["household", "community"])
        unit = random.choice(units[kind])
        facts.append(
            {
                "id": uuid7(),
                **{f"{each}_id": unit if each == kind else None for each in units},
                "service": random.choice(services),
                "protected": random.random() < 0.7,
                "source": random.choice(["MSPBS", "UTGS"]),
                "instrument": random.choice(INSTRUMENTS),
                "observed_on": day + timedelta(days=random.choice([-5, -2, -1, -1, 0, 0, 1, 4])),
                "recorded_at": noon(day) + timedelta(microseconds=random.choice([0, 5, 1_000_000])),
            }
        )
    return facts


def noon(day: date) -> datetime:
    """Return noon of a day in Paraguay, about."""
    return datetime(day.year, day.month, day.day, 15, tzinfo=UTC)


async def record(connection: AsyncConnection, facts: list[dict[str, Any]]) -> None:
    """Insert facts."""
    if facts:
        await connection.execute(insert(fact), facts)


async def expected(
    connection: AsyncConnection, units: dict[str, list[UUID]], services: dict[str, Service], day: date
) -> dict[UUID, dict[str, Any]]:
    """Return what the pure function finds of every unit, as rows."""
    records = await read_units(connection, units["person"], units["household"], units["community"])
    facts = await read_facts(connection, records)
    return {each.id: compute(each, services, facts.get(each.id, ()), day).row for each in records}


async def stored(connection: AsyncConnection) -> dict[UUID, dict[str, Any]]:
    """Return the rows of ``status`` by unit."""
    rows = (await connection.execute(text("SELECT * FROM siis.status"))).mappings()
    return {row["unit"]: dict(row) for row in rows}


async def wipe(owner: Database) -> None:
    """Empty the registry."""
    async with owner.transaction() as connection:
        await connection.execute(
            text("TRUNCATE siis.status, siis.status_past, siis.achievement, siis.status_run, siis.community CASCADE")
        )
        await connection.execute(text("TRUNCATE siis.person, siis.household CASCADE"))


def _marks(random: Random) -> dict[str, Any]:
    # What is not exactly true does not count.
    return {name: random.choice([True, True, False, "true", 1]) for name in _MARKS if random.random() < 0.3}


async def install(owner: Database, services: dict[str, Service]) -> None:
    """Make these the services of the catalogue, and no others."""
    async with owner.transaction() as connection:
        await connection.execute(text("UPDATE siis.service SET active = false"))
        for code, each in services.items():
            document = {
                **each.names,
                "institution": each.institution,
                "categories": sorted(each.categories),
                "requires": each.requires,
                "from_age": each.from_age,
                "to_age": each.to_age,
                "coverage_days": each.coverage_days,
                "response_days": each.response_days,
            }
            await connection.execute(
                text(
                    "INSERT INTO siis.service (code, institution, document) VALUES (:code, 'MSPBS', :document)"
                    " ON CONFLICT (code) DO UPDATE SET active = true, document = excluded.document"
                ).bindparams(bindparam("document", type_=JSONB)),
                {"code": code, "document": document},
            )
        # The packages that are shipped name other services: none of these would be of a core.
        await connection.execute(
            text(
                "INSERT INTO siis.catalogue_revision (kind, code, number, change_id, actor, document)"
                " SELECT kind, code, max(number) + 1, :change, 'test', NULL FROM siis.catalogue_revision"
                " WHERE kind = 'packages' GROUP BY kind, code"
            ),
            {"change": uuid7()},
        )
        outside = {category for each in services.values() for category in each.outside_core}
        for category in sorted(outside):
            core = [code for code, each in services.items() if category in each.categories - each.outside_core]
            document = {"es": category, "en": category, "kind": "core", "category": category, "services": core}
            await connection.execute(
                text(
                    "INSERT INTO siis.catalogue_revision (kind, code, number, change_id, actor, document)"
                    " SELECT 'packages', :code, coalesce(max(number), 0) + 1, :change, 'test', :document"
                    " FROM siis.catalogue_revision WHERE kind = 'packages' AND code = :code"
                ).bindparams(bindparam("document", type_=JSONB)),
                {"code": f"test-{category}", "change": uuid7(), "document": document},
            )
