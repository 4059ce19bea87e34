"""How fast everybody is classified, and one changed person; one JSON line.

Usage: ``python -m bench.classification [PERSONS] [FOLDER]``. Rows are generated inside PostgreSQL: persons with a birth
date, homes of about three, a dozen services, and facts of those that apply to most of them. FOLDER (default: a
temporary one) holds the database: about 1 GB for each million persons.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from bench.common import machine
from gateway import embedded, migrations
from gateway.catalogue.models import Service
from gateway.database import Database
from gateway.registry.achievements import keep_counts
from gateway.registry.mass import classify_all
from gateway.registry.recompute import arrived
from schemas.ids import uuid7

AT = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
_ONE_BY_ONE = 200
# A UUID of version 7 whose order is that of the numbers: ids grow as persons are registered.
_ID = (
    "(lpad(to_hex(({number})::bigint), 12, '0') || '70008' || lpad(to_hex({salt}), 3, '0')"
    " || substr(md5(({number})::text), 1, 12))::uuid"
)
_PERSONS = f"""
INSERT INTO siis.person (id, household_id, names, birth_date, sex, department, district, attributes)
SELECT {_ID.format(number="n * 16", salt=1)}, {_ID.format(number="(n / 3) * 48", salt=2)}, '\\x00'::bytea,
    date '2026-11-01' - (n * 7919 %% 30000)::int, CASE n %% 2 WHEN 0 THEN 'F' ELSE 'M' END,
    lpad((n %% 18)::text, 2, '0'), lpad((n %% 18)::text, 2, '0') || lpad((n / 18 %% 14)::text, 2, '0'),
    CASE n %% 40 WHEN 0 THEN '{{"disability": true}}' WHEN 1 THEN '{{"pregnant": true}}' ELSE '{{}}' END::jsonb
FROM generate_series(1, %s::bigint) AS n
"""  # noqa: S608
_HOUSEHOLDS = f"""
INSERT INTO siis.household (id, department, district, attributes)
SELECT {_ID.format(number="n * 48", salt=2)}, lpad((n %% 18)::text, 2, '0'),
    lpad((n %% 18)::text, 2, '0') || lpad((n / 18 %% 14)::text, 2, '0'),
    CASE n %% 4 WHEN 0 THEN '{{"poverty": true}}' ELSE '{{}}' END::jsonb
FROM generate_series(0, %s::bigint / 3) AS n
"""  # noqa: S608
# Two facts of most persons and one of homes, a tenth contradicted by another instrument on the same day.
_FACTS = f"""
INSERT INTO siis.fact (id, person_id, service, protected, source, instrument, observed_on)
SELECT {_ID.format(number="n * 16 + k", salt="3")}, {_ID.format(number="n * 16", salt=1)}, 'service-' || (k %% 2 + 2 *
    CASE WHEN age < 5 THEN 0 WHEN age < 18 THEN 1 WHEN age < 30 THEN 2 WHEN age < 60 THEN 3 ELSE 4 END)::text,
    (n + k) %% 3 <> 0, 'UTGS', CASE k WHEN 2 THEN 'counter-referral' ELSE 'fips' END,
    date '2026-11-01' - (n %% 400)::int
FROM (SELECT n, (n * 7919 %% 30000) / 365.25 AS age FROM generate_series(1, %s::bigint) AS n) AS p,
    generate_series(0, CASE n %% 10 WHEN 0 THEN 2 ELSE 1 END) AS k
"""  # noqa: S608
_HOME_FACTS = f"""
INSERT INTO siis.fact (id, household_id, service, protected, source, instrument, observed_on)
SELECT {_ID.format(number="n * 48", salt=4)}, {_ID.format(number="n * 48", salt=2)}, 'service-10', n %% 3 <> 0, 'MDS',
    'register', date '2026-11-01' - (n %% 400)::int
FROM generate_series(0, %s::bigint / 3) AS n
"""  # noqa: S608


def catalogue() -> dict[str, Service]:
    """Return twelve services: two of each age, of which some end, and two of homes."""
    ages = [["age-0-4"], ["age-5-13", "age-14-17"], ["age-18-29"], ["age-30-59"], ["age-60-plus"]]
    categories = [*(each for each in ages for _twice in range(2)), ["household"], ["household", "before-birth"]]
    return {
        f"service-{number}": Service(
            code=f"service-{number}",
            institution="MSPBS",
            names={"es": "", "en": ""},
            categories=frozenset(each),
            requires="poverty" if number == 10 else None,
            from_age=65 if number == 8 else None,
            response_days=10,
            coverage_days=365 if number % 2 else None,
        )
        for number, each in enumerate(categories)
    }


class Memory(threading.Thread):
    """Watches the highest resident memory of this process and of the database's processes together, in MiB."""

    def __init__(self, server: int) -> None:
        super().__init__(daemon=True)
        self._server, self._ended = server, threading.Event()
        self.own = self.server = 0.0

    def run(self) -> None:
        """Look twice a second: adding up the pages of a large process takes milliseconds of its own."""
        while not self._ended.wait(0.5):
            self.own = max(self.own, _resident(Path("/proc/self")))
            children = Path(f"/proc/{self._server}/task/{self._server}/children").read_text(encoding="utf-8").split()
            # Of what the processes of PostgreSQL share each counts its part alone.
            self.server = max(
                self.server, sum(_resident(Path(f"/proc/{pid}"), "Pss") for pid in (self._server, *children))
            )

    def stop(self) -> None:
        """End looking."""
        self._ended.set()
        self.join()


def _resident(process: Path, name: str = "Rss") -> float:
    try:
        lines = (process / "smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)


def main(persons: int = 100_000, folder: str | None = None) -> None:
    """Generate, classify, classify again with nothing changed, and change single persons."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder or temporary)
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o755)
        server = embedded.start(place)
        try:
            figures = _measure(server, place, persons)
        finally:
            embedded.stop(place)
    print(json.dumps(figures))


def _measure(server: embedded.EmbeddedServer, place: Path, persons: int) -> dict[str, Any]:
    migrations.upgrade(server.url(embedded.OWNER))
    started = time.perf_counter()
    with psycopg.connect(server.url(embedded.OWNER), autocommit=True) as connection:
        for statement in (_HOUSEHOLDS, _PERSONS, _FACTS, _HOME_FACTS):
            connection.execute(statement.encode(), (persons,))
        connection.execute("VACUUM ANALYZE")
        [facts] = connection.execute("SELECT count(*) FROM siis.fact").fetchone() or (0,)
        chance = 2 * _ONE_BY_ONE / persons
        query = "SELECT id FROM siis.person WHERE random() < %s LIMIT %s"
        some = [row[0] for row in connection.execute(query, (chance, _ONE_BY_ONE))]
    generated_s = time.perf_counter() - started
    url, services = server.url(embedded.APPLICATION), catalogue()
    memory = Memory(server.pid)
    memory.start()
    first = classify_all(url, services, folder=place / "classify", at=AT, because="bench")
    again = classify_all(url, services, folder=place / "classify", at=AT, because="bench")
    memory.stop()
    single, districts_s = asyncio.run(_singly(url, services, some))
    return {
        "benchmark": "classification",
        "persons": persons,
        "units": first.units,
        "facts": facts,
        "services": len(services),
        "generated_s": round(generated_s, 1),
        "reading_s": round(first.reading_s, 1),
        "rules_s": round(first.rules_s, 1),
        "writing_s": round(first.total_s - first.reading_s - first.rules_s, 1),
        "to_person_and_household_s": round(first.total_s, 1),
        "to_district_s": round(districts_s, 1),
        "total_s": round(first.total_s + districts_s, 1),
        "again_s": round(again.total_s, 1),
        "again_changed": again.changed,
        "peak_rss_mib": round(memory.own),
        "peak_database_mib": round(memory.server),
        "one_person_p50_ms": round(statistics.median(single) * 1000, 2),
        "one_person_p99_ms": round(sorted(single)[int(len(single) * 0.99) - 1] * 1000, 2),
        "machine": machine(),
    }


async def _singly(url: str, services: dict[str, Service], some: list[UUID]) -> tuple[list[float], float]:
    """Let a fact arrive for one person after the other, in a transaction each; and count the achievements."""
    database = Database(url, pool_size=2)
    seconds = []
    for who in some:
        async with database.transaction() as connection:
            service = "service-2" if hash(who) % 2 else "service-6"
            values = {"id": uuid7(), "who": who, "service": service, "day": date(2026, 11, 20)}
            await connection.exec_driver_sql(
                "INSERT INTO siis.fact (id, person_id, service, protected, source, instrument, observed_on) VALUES"
                " (%(id)s, %(who)s, %(service)s, true, 'MSPBS', 'counter-referral', %(day)s)",
                values,
            )
            started = time.perf_counter()
            await arrived(connection, services, persons=[who], at=AT, because="bench")
        seconds.append(time.perf_counter() - started)
    run = uuid7()
    started = time.perf_counter()
    async with database.transaction() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO siis.status_run (id, at, day, catalogue, changed) VALUES (%(id)s, %(at)s, %(day)s, '', 0)",
            {"id": run, "at": AT, "day": AT.date()},
        )
        await keep_counts(connection, run)
    counted_s = time.perf_counter() - started
    await database.close()
    return seconds, counted_s


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, sys.argv[2] if len(sys.argv) > 2 else None)
