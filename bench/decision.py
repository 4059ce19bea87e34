"""How fast requests are decided with many agreements, consents and labels, in memory and with the facts read.

Usage: ``uv run python -m bench.decision [CONSENTS]``. One JSON line: decisions a second and p99 over 1,000 agreements,
100,000 consents and 30 labels beside an empty function called with the same requests; then with the facts read from
PostgreSQL, one caller and 64, first among 100,000 consents and then among CONSENTS (10,000,000), with the memory of
this process before and after.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import psycopg

import consent.policy
from bench.common import machine
from consent.decision import decide
from consent.models import FETCH, AgreedBasis, Agreement, Caller, ConsentFact, Request, SubjectFacts
from consent.policy import Policy, build_policy
from gateway import embedded, migrations
from gateway.database import Database
from gateway.registry.lookup import SubjectLookup
from gateway.registry.models import NewPerson
from gateway.registry.service import register
from gateway.vault import open_vault
from schemas.codes import code_list
from schemas.ids import uuid7

AGREEMENTS, CONSENTS, LABELS, PERSONS = 1_000, 100_000, 30, 50_000
DATASETS, INSTITUTIONS, FIELDS_ASKED = 100, 60, 6
READS, IN_FLIGHT, DECISIONS = 4_000, 64, 200_000
AT = datetime(2026, 6, 1, 15, 0, tzinfo=UTC)
BASES = ("official-authority", "legal-obligation", "consent")
FIELDS = tuple(f"field_{number:02}" for number in range(LABELS))
Case = tuple[Request, SubjectFacts, Policy]


def lists(name: str) -> dict[str, dict[str, Any]]:
    """The shipped code lists, but for labels and datasets: every field of a dataset has a label of its own."""
    if name == "labels":
        asks = ({}, {"compartment": True, "sensitive": True}, {"minimum_assurance": 2, "bases": list(BASES)})
        return {f"label_{number:02}": asks[number % 3] for number in range(LABELS)}
    if name == "datasets":
        fields = {field: {"label": f"label_{number:02}"} for number, field in enumerate(FIELDS)}
        return {f"dataset-{number}": {"fields": fields} for number in range(DATASETS)}
    return code_list(name)


def make_policy(random: Random) -> Policy:
    """A policy of 1,000 agreements, several about one exchange as often as chance has it."""
    agreements = [
        Agreement(
            code=f"A{number}",
            es="Acuerdo",
            en="Agreement",
            requester=f"I{random.randrange(INSTITUTIONS // 2)}",
            holder=f"I{random.randrange(INSTITUTIONS // 2, INSTITUTIONS)}",
            datasets={f"dataset-{random.randrange(DATASETS)}": frozenset(random.sample(FIELDS, 20))},
            purposes=frozenset({"service-provision", "public-benefit"}),
            bases=tuple(AgreedBasis(basis, "norm") for basis in BASES),
            channels=frozenset({"api"}),
            minimum_assurance=1,
            labels=frozenset(lists("labels")),
            roles=frozenset({"operator", "system"}),
            valid_from=AT - timedelta(days=100),
            valid_to=AT + timedelta(days=900),
            status="active",
            version=1,
        )
        for number in range(AGREEMENTS)
    ]
    held = frozenset(lists("labels"))
    consent.policy.code_list = lists  # type: ignore[assignment]
    return build_policy(agreements, compartments={(f"I{each}", "operator"): held for each in range(INSTITUTIONS)})


def request_for(agreement: Agreement, random: Random) -> Request:
    """A request that an agreement was made for: six fields, every third time on consent."""
    [(dataset, fields)] = agreement.datasets.items()
    who = Caller(
        client_id="c",
        institution=agreement.requester,
        user="ana",
        user_verified=True,
        roles=frozenset({"operator"}),
        assurance=2,
    )
    return Request(
        action=FETCH,
        caller=who,
        holder=agreement.holder,
        dataset=dataset,
        fields=tuple(random.sample(sorted(fields), FIELDS_ASKED)),
        purpose="service-provision",
        basis=random.choice(BASES),
        at=AT,
    )


def consented(agreement: Agreement) -> ConsentFact:
    """A consent to all that an agreement asks for."""
    [fields] = agreement.datasets.values()
    return ConsentFact(
        id=uuid7(),
        agreement=agreement.code,
        purposes=agreement.purposes,
        fields=fields,
        state="given",
        text_version="1",
        given_at=AT - timedelta(days=10),
        labels=frozenset(lists("labels")),
        scope_sha256=agreement.scope_sha256(),
    )


def in_memory(cases: Sequence[Case], work: Callable[[Request, SubjectFacts, Policy], object]) -> dict[str, Any]:
    """Time a function over the cases: once through for the rate, once each for the percentiles."""
    many = list(islice(cycle(cases), DECISIONS))
    started = time.perf_counter()
    for request, facts, policy in many:
        work(request, facts, policy)
    seconds = time.perf_counter() - started
    times = []
    for request, facts, policy in cases:
        before = time.perf_counter_ns()
        work(request, facts, policy)
        times.append(time.perf_counter_ns() - before)
    return {"per_second": round(DECISIONS / seconds), **percentiles([each / 1e3 for each in times], "us")}


def nothing(_request: Request, _facts: SubjectFacts, _policy: Policy) -> None:
    """The baseline: a call that decides nothing."""


def percentiles(times: list[float], unit: str) -> dict[str, float]:
    ordered = sorted(times)
    return {f"p{part}_{unit}": round(ordered[len(ordered) * part // 100], 3) for part in (50, 99)}


def rss_mib() -> float:
    """Return this process's resident memory, in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * 4096 / 2**20, 1)


async def with_facts(
    database: Database, persons: Sequence[tuple[UUID, Request]], policy: Policy, random: Random
) -> dict[str, Any]:
    """Read the facts of random persons and decide, one caller after the other and with 64 at once."""
    async with database.transaction() as connection:
        vault = await open_vault(connection, bytes(32))
    lookup = SubjectLookup(database, vault)
    effects: Counter[str] = Counter()

    async def one(times: list[float]) -> None:
        person, request = random.choice(persons)
        before = time.perf_counter()
        _who, facts = await lookup.find("siis", str(person))
        effects[decide(request, facts, policy).effect] += 1
        times.append((time.perf_counter() - before) * 1e3)

    async def caller(times: list[float], reads: int) -> None:
        for _ in range(reads):
            await one(times)

    try:
        await caller([], READS // 4)
        alone: list[float] = []
        await caller(alone, READS)
        together: list[float] = []
        started = time.perf_counter()
        await asyncio.gather(*(caller(together, READS // IN_FLIGHT * 4) for _ in range(IN_FLIGHT)))
        seconds = time.perf_counter() - started
    finally:
        await lookup.close()
    return {
        "one_caller": percentiles(alone, "ms"),
        f"{IN_FLIGHT}_callers": {"per_second": round(len(together) / seconds), **percentiles(together, "ms")},
        "permitted": round(1 - effects["deny"] / effects.total(), 2),
        "rss_mib": rss_mib(),
    }


def load_consents(url: str, persons: Sequence[tuple[UUID, list[ConsentFact]]]) -> None:
    """Store the consents of the persons who will be asked about."""
    columns = "id, subject, agreement, purposes, fields, labels, state, text_version, language, channel"
    copy = f"COPY consent.consent_record ({columns}, proof_reference, scope_sha256, given_at) FROM STDIN"
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        # Nobody listens, and a notice for each of millions would fill the queue.
        cursor.execute("ALTER TABLE consent.consent_record DISABLE TRIGGER USER")
        with cursor.copy(copy) as rows:
            _write(rows, persons)


def _write(rows: psycopg.Copy, persons: Sequence[tuple[UUID, list[ConsentFact]]]) -> None:
    for person, facts in persons:
        for fact in facts:
            named = (list(fact.purposes), list(fact.fields), list(fact.labels), fact.state, "1", "es", "in-person")
            rows.write_row((fact.id, person, fact.agreement, *named, "form", fact.scope_sha256, fact.given_at))


def load_others(url: str, number: int) -> None:
    """Store consents of other persons, copies of what is there, two each."""
    with psycopg.connect(url, autocommit=True) as connection:
        for start in range(0, number, 1_000_000):
            connection.execute(
                """
                INSERT INTO consent.consent_record (id, subject, agreement, purposes, fields, labels, state,
                    text_version, language, channel, proof_reference, scope_sha256, given_at)
                SELECT gen_random_uuid(), md5((%(start)s + n / 2)::text)::uuid, agreement, purposes, fields, labels,
                    state, text_version, language, channel, proof_reference, scope_sha256, given_at
                FROM generate_series(0, %(count)s - 1) AS n
                JOIN (
                    SELECT row_number() OVER () - 1 AS place, * FROM consent.consent_record LIMIT 1000
                ) AS copied ON copied.place = n %% 1000
                """,
                {"start": start, "count": min(1_000_000, number - start)},
            )
        connection.execute("VACUUM ANALYZE consent.consent_record")


def main(many: int) -> None:
    random = Random(1)
    policy = make_policy(random)
    agreements = list(policy.agreements.values())
    given = {each.code: consented(each) for each in agreements}
    people = []
    for _ in range(PERSONS):
        signed = random.sample(agreements, CONSENTS // PERSONS)
        people.append((uuid7(), signed, request_for(signed[0], random)))
    cases = [
        (
            request,
            SubjectFacts(
                subject=person, birth_date=date(1980, 1, 1), consents=tuple(given[each.code] for each in signed)
            ),
            policy,
        )
        for person, signed, request in people
    ]
    told: dict[str, Any] = {"benchmark": "decision", "agreements": AGREEMENTS, "labels": LABELS, "consents": CONSENTS}
    told["in_memory"] = in_memory(cases, decide)
    told["empty_call"] = in_memory(cases, nothing)
    told["permitted"] = round(sum(decide(*case).permit is not None for case in cases) / len(cases), 2)
    del cases
    with tempfile.TemporaryDirectory(prefix="siis-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = embedded.start(folder)
        try:
            url = server.url(embedded.OWNER)
            migrations.upgrade(url)
            rows = [(person, [consented(each) for each in signed]) for person, signed, _request in people]
            load_consents(url, rows)
            del rows
            asked = [(person, request) for person, _signed, request in people]
            told["read"] = asyncio.run(_read(server.url(embedded.APPLICATION), url, asked, policy, random, many))
        finally:
            embedded.stop(folder)
    print(json.dumps({**told, "machine": machine()}))


async def _read(
    application: str,
    owner: str,
    asked: Sequence[tuple[UUID, Request]],
    policy: Policy,
    random: Random,
    many: int,
) -> dict[str, Any]:
    database = Database(application)
    try:
        async with database.transaction() as connection:
            vault = await open_vault(connection, bytes(32))
            for start in range(0, len(asked), 5_000):
                born = date(1980, 1, 1)
                new = [NewPerson(each, "A", "B", (), birth_date=born) for each, _ in asked[start : start + 5_000]]
                await register(connection, vault, new)
        load_others(owner, 0)
        few = await with_facts(database, asked, policy, random)
        started = time.perf_counter()
        await asyncio.to_thread(load_others, owner, many - CONSENTS)
        loaded = round(time.perf_counter() - started)
        again = await with_facts(database, asked, policy, random)
    finally:
        await database.close()
    return {f"among_{CONSENTS}": few, f"among_{many}": again, "seconds_to_load": loaded}


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2] or ["10000000"]))
