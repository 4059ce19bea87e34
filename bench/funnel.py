"""How long the funnel of the whole country takes over millions of events: counts, times, reasons, doors, repeats.

Makes referrals with five events each by SQL in a new database, counts them all, then one department of one quarter.
Usage: ``uv run python -m bench.funnel [EVENTS] [ROUNDS]`` (5000000 events need some 6 GB of disk). One JSON line: per
question the rounds in seconds and the fastest, with the events and referrals in the table.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg

from bench.common import machine
from gateway import embedded
from gateway.cli.db import bring_up
from gateway.database import Database, application_url
from gateway.settings import Settings, load_settings
from gateway.statistics.counting import count
from gateway.statistics.models import Scope

EVENTS_EACH = 5
_QUESTIONS = {
    "country": Scope(),
    "department_quarter": Scope(department="11", since=date(2026, 1, 1), until=date(2026, 4, 1)),
}
_PERSONS = """
INSERT INTO siis.person (id, department, district)
SELECT gen_random_uuid(), lpad((k %% 18)::text, 2, '0'), lpad((k %% 18)::text, 2, '0') || '01'
FROM generate_series(1, %(persons)s) AS k
"""
# One in five persons is referred twice to the same service; of ten referrals five end with the service given.
_REFERRALS = """
INSERT INTO siis.referral (id, person_id, service, requester, recipient, client_id, purpose, basis, caller, reason_code,
    texts, priority, state, delivery, created_at, department, district, category, population, gap_since, received_at,
    accepted_at, closed_at, outcome, end_reason, no_shows, status_changed_at, additional)
SELECT gen_random_uuid(), p.id, (ARRAY['health-control', 'universal-pension', 'tekopora'])[1 + k %% 3],
    (ARRAY['UTGS', 'MDS', 'MEC'])[1 + k %% 3], (ARRAY['MSPBS', 'MDS', 'MDS'])[1 + k %% 3], 'bench',
    'service-access-determination', 'official-authority',
    jsonb_build_object('roles', jsonb_build_array('system'), 'assurance', 2, 'user_verified', true,
        'channel', (ARRAY['api', 'fhir', 'file'])[1 + k %% 3]),
    'protection-gap', decode(repeat('ab', 120), 'hex'), 'routine',
    CASE WHEN r < .1 THEN 'created' WHEN r < .2 THEN 'received' WHEN r < .3 THEN 'rejected' WHEN r < .4 THEN 'accepted'
        ELSE 'completed' END,
    'transmitted', made, p.department, p.district, 'age-60-plus', ARRAY['women', 'older'],
    (made - random() * interval '60 days')::date,
    CASE WHEN r >= .1 THEN made + taken END,
    CASE WHEN r >= .3 THEN made + taken + agreed END,
    CASE WHEN r BETWEEN .2 AND .3 OR r >= .4 THEN made + taken + agreed + given END,
    CASE WHEN r >= .5 THEN 'provided' WHEN r >= .4 THEN 'not_provided' END,
    CASE WHEN r BETWEEN .2 AND .3 OR r BETWEEN .4 AND .5 THEN 'no-capacity' END, (k %% 5 = 0)::int,
    CASE WHEN r >= .5 THEN made + taken + agreed + given END, true
FROM (
    SELECT id, department, district, k, random() AS r,
        timestamptz '2025-06-01' + k * (interval '365 days' / %(referrals)s) AS made,
        random() * interval '3 days' AS taken, random() * interval '10 days' AS agreed,
        random() * interval '60 days' AS given
    FROM (SELECT *, row_number() OVER () AS n FROM siis.person) AS who
    JOIN generate_series(1, %(referrals)s) AS k ON n = 1 + k %% %(persons)s
) AS p
"""
_EVENTS = """
INSERT INTO siis.referral_event (id, referral_id, number, type, actor, at, state_before, state_after)
SELECT gen_random_uuid(), r.id, n, (ARRAY['create', 'send', 'accept', 'schedule', 'outcome'])[n], r.recipient,
    r.created_at + n * interval '1 day', 'created', 'created'
FROM siis.referral AS r, generate_series(1, 5) AS n
"""


def main(events: int, rounds: int) -> None:
    referrals = events // EVENTS_EACH
    told: dict[str, Any] = {"benchmark": "funnel", "referrals": referrals, "machine": machine()}
    with tempfile.TemporaryDirectory(prefix="siis-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = load_settings(data_dir=folder / "data")
        try:
            bring_up(settings, demonstration=True)
            told["events"] = _fill(settings, referrals)
            told.update(asyncio.run(_measure(settings, rounds)))
        finally:
            embedded.stop(settings.data_dir)
    print(json.dumps(told))


def _fill(settings: Settings, referrals: int) -> int:
    url = embedded.start(settings.data_dir).url(embedded.OWNER)
    with psycopg.connect(url, autocommit=True) as connection:
        numbers = {"referrals": referrals, "persons": referrals * 5 // 6}
        connection.execute(_PERSONS, numbers)
        connection.execute(_REFERRALS, numbers)
        connection.execute(_EVENTS)
        # As the server does by itself where nobody switched it off.
        connection.execute("VACUUM ANALYZE siis.referral")
        row = connection.execute("SELECT count(*) FROM siis.referral_event").fetchone()
    return 0 if row is None else int(row[0])


async def _measure(settings: Settings, rounds: int) -> dict[str, Any]:
    database = Database(application_url(settings), pool_size=2)
    told: dict[str, Any] = {}
    try:
        for name, scope in _QUESTIONS.items():
            times = []
            for _round in range(rounds):
                started = time.perf_counter()
                async with database.connection() as connection:
                    found = await count(connection, scope, party=None, at=datetime.now(UTC))
                times.append(round(time.perf_counter() - started, 3))
            counted = found.steps[1].reached
            told[name] = {"referrals_counted": counted, "seconds": times, "fastest_s": min(times)}
    finally:
        await database.close()
    return told


if __name__ == "__main__":
    main(*(int(text) for text in (*sys.argv[1:], *("5000000", "5")[len(sys.argv) - 1 :])))
