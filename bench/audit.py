"""What the log costs and what it takes: writers with and without it, entries/s, integration, checks, proofs, bytes.

``staged``: processes that commit a business transaction of two rows, with and without an entry staged in it, side by
side. ``appended``: callers that each wait for their own entry, sharing commits. Then the integrator on a backlog, the
time from an append to its number, the whole check with its memory, proofs made and verified, bytes per entry.
Usage: ``python -m bench.audit [SECONDS] [ENTRIES]``. One JSON line.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from audit.check import check_log
from audit.checkpoint import Signer
from audit.integrator import integrate_once, run
from audit.keys import Epochs
from audit.models import Entry
from audit.proofs import prove
from audit.service import AuditLog
from audit.verify import check_proof, format_key, format_proof, parse_policy, verify_inclusion
from bench.common import machine
from gateway import embedded, migrations
from gateway.database import sqlalchemy_url
from schemas.ids import uuid7

WRITERS, WAITING, PERSONS = 8, 64, 1_000
SIGNER = Signer("siis.example/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
EPOCHS = Epochs(1, {1: bytes(range(32))})
_BUSINESS = (
    "CREATE TABLE business (id uuid PRIMARY KEY, state text, content bytea)",
    "CREATE TABLE business_event (id uuid PRIMARY KEY, business_id uuid, state text, at timestamptz)",
    "GRANT INSERT, SELECT ON business, business_event TO siis_app",
)
_ROW = text("INSERT INTO public.business VALUES (:id, 'sent', :content)")
_EVENT = text("INSERT INTO public.business_event VALUES (:event, :id, 'sent', now())")


def an_entry(subject: UUID) -> Entry:
    """Make an entry as a disclosure makes it."""
    return Entry(
        at=datetime.now(UTC),
        type="disclosure.released",
        outcome="permit_redacted",
        policy_version="2026.1",
        subject=subject,
        correlation=os.urandom(16).hex(),
        groups={
            "actor": {"client": "mds-produccion", "institution": "MDS", "user": "operadora-7", "roles": ["operator"]},
            "why": {"purpose": "service-access-determination", "basis": "official-authority", "norm": "Ley 6534/2020"},
            "what": {
                "holder": "PN-IDENT",
                "dataset": "identity",
                "asked": ["birth_date", "given_names", "surnames"],
                "released": ["birth_date", "given_names"],
                "withheld": {"surnames": "label"},
            },
            "decision": {"id": str(uuid7()), "effect": "permit_redacted", "reasons": [], "obligations": ["audit"]},
            "exchange": {"outcome": "Found", "adapter": "identificaciones", "attempts": 1, "duration_ms": 12},
        },
    )


def main(seconds: int, entries: int) -> None:
    told: dict[str, Any] = {"benchmark": "audit", "writers": WRITERS, "waiting": WAITING, "machine": machine()}
    with tempfile.TemporaryDirectory(prefix="siis-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = embedded.start(folder / "data")
        try:
            migrations.upgrade(server.url(embedded.OWNER))
            asyncio.run(_tables(sqlalchemy_url(server.url(embedded.OWNER))))
            url = sqlalchemy_url(server.url(embedded.APPLICATION))
            told["staged"] = _staged(url, seconds)
            told.update(asyncio.run(_measure(url, seconds, entries)))
        finally:
            embedded.stop(folder / "data")
    print(json.dumps(told))


async def _tables(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as conn:
        await conn.exec_driver_sql("SET search_path TO public")
        for statement in _BUSINESS:
            await conn.exec_driver_sql(statement)
    await engine.dispose()


def _staged(url: str, seconds: int) -> dict[str, Any]:
    """Compare the same business transaction without and with its entry, in rounds side by side."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    with multiprocessing.get_context("spawn").Pool(WRITERS) as pool:
        for _round in range(3):
            for audited in rates:
                counts = pool.starmap(_write, [(url, seconds, audited)] * WRITERS)
                rates[audited].append(sum(counts) / seconds)
    plain, audited = (statistics.median(rates[kind]) for kind in (False, True))
    return {"two_rows_per_s": round(plain), "with_entry_per_s": round(audited), "ratio": round(audited / plain, 2)}


def _write(url: str, seconds: int, audited: bool) -> int:
    return asyncio.run(_write_for(url, seconds, audited))


async def _write_for(url: str, seconds: int, audited: bool) -> int:
    engine = create_async_engine(url)
    log = AuditLog(engine, EPOCHS, "bench")
    subjects = [uuid7() for _ in range(20)]
    for subject in subjects:
        if audited:
            await log.append(an_entry(subject))
    done, end = 0, time.monotonic() + seconds
    async with engine.connect() as conn:
        while time.monotonic() < end:
            await _business(conn)
            if audited:
                await log.stage(conn, an_entry(random.choice(subjects)))
            await conn.commit()
            done += 1
    await log.close()
    await engine.dispose()
    return done


async def _business(conn: AsyncConnection) -> None:
    business = uuid7()
    await conn.execute(_ROW, {"id": business, "content": bytes(500)})
    await conn.execute(_EVENT, {"event": uuid7(), "id": business})


async def _measure(url: str, seconds: int, entries: int) -> dict[str, Any]:
    engine = create_async_engine(url)
    log = AuditLog(engine, EPOCHS, "bench")
    subjects = [uuid7() for _ in range(PERSONS)]
    await log.append_many([an_entry(subject) for subject in subjects])
    told = {"appended": await _appended(log, subjects, seconds)}
    told["integrated_per_s"] = await _integrated(engine, log)
    told["staged_to_integrated_ms"] = await _latency(engine, log, subjects)
    before = await _bytes(engine)
    while await _count(engine) < entries:
        await log.append_many([an_entry(random.choice(subjects)) for _ in range(5_000)])
        await _integrate(engine, log)
    grown = await _bytes(engine)
    told["bytes_per_entry"] = {
        name: round((grown[name] - before[name]) / max(1, grown["entries"] - before["entries"]))
        for name in grown
        if name != "entries"
    }
    told["check"] = await _checked(engine)
    told["proofs"] = await _proofs(engine)
    await log.close()
    await engine.dispose()
    return told


async def _appended(log: AuditLog, subjects: list[UUID], seconds: int) -> dict[str, Any]:
    waits: list[float] = []
    end = time.monotonic() + seconds

    async def caller() -> None:
        while time.monotonic() < end:
            start = time.monotonic()
            await log.append(an_entry(random.choice(subjects)))
            waits.append(time.monotonic() - start)

    await asyncio.gather(*(caller() for _ in range(WAITING)))
    return {"per_s": round(len(waits) / seconds), **_percentiles(waits)}


async def _integrated(engine: AsyncEngine, log: AuditLog) -> int:
    start = time.monotonic()
    done = await _integrate(engine, log)
    return round(done / (time.monotonic() - start))


async def _integrate(engine: AsyncEngine, log: AuditLog) -> int:
    total = 0
    async with engine.connect() as conn:
        while done := await integrate_once(conn, SIGNER, log):
            total += done
    return total


async def _latency(engine: AsyncEngine, log: AuditLog, subjects: list[UUID]) -> dict[str, float]:
    """Append some twenty entries a second and see when each has its number."""
    stop, waits = asyncio.Event(), []
    integrating = asyncio.create_task(run(engine, SIGNER, log, stop))
    query = text("SELECT 1 FROM audit.sequence WHERE entry_id = :id")
    async with engine.connect() as conn:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        for _number in range(100):
            await asyncio.sleep(random.uniform(0, 0.1))
            receipt = await log.append(an_entry(random.choice(subjects)))
            start = time.monotonic()
            while (await conn.execute(query, {"id": receipt.entry_id})).first() is None:  # noqa: ASYNC110 — its own look
                await asyncio.sleep(0.005)
            waits.append(time.monotonic() - start)
    stop.set()
    await integrating
    return _percentiles(waits)


async def _count(engine: AsyncEngine) -> int:
    async with engine.connect() as conn:
        return int((await conn.execute(text("SELECT coalesce(max(size), 0) FROM audit.tree"))).scalar_one())


async def _bytes(engine: AsyncEngine) -> dict[str, int]:
    found = {"entries": await _count(engine)}
    async with engine.connect() as conn:
        for table in ("entry", "sequence", "tile", "block"):
            size = await conn.execute(text(f"SELECT pg_total_relation_size('audit.{table}')"))
            found[table] = int(size.scalar_one())
    return found


async def _checked(engine: AsyncEngine) -> dict[str, Any]:
    peaks: list[int] = []

    def note(done: int, _total: int) -> None:
        if done % 50_000 < 4_000:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    async with engine.connect() as conn:
        report = await check_log(conn, SIGNER, note)
    assert report.ok, report.problems
    spent = time.monotonic() - start
    return {
        "entries": report.entries,
        "per_s": round(report.entries / spent),
        "peak_growth_mib": round((max([before, *peaks]) - before) / 1024, 1),
    }


async def _proofs(engine: AsyncEngine) -> dict[str, Any]:
    async with engine.connect() as conn:
        rows = await conn.execute(text("SELECT entry_id FROM audit.sequence ORDER BY random() LIMIT 300"))
        ids = [row.entry_id for row in rows]
        made = [proof for entry_id in ids if (proof := await prove(conn, entry_id)) is not None]
        making = await _timed(ids, lambda entry_id: prove(conn, entry_id))
    key = SIGNER.of(made[0].place.log).verifier
    policy = parse_policy(f"log {format_key(key.name, key.kind, key.key)}\nquorum none\n")
    files = [(format_proof(proof.place.index, proof.hashes, proof.head.note), proof.place.leaf_hash) for proof in made]
    start = time.monotonic()
    for content, leaf in files:
        check_proof(content, leaf, policy)
    whole = (time.monotonic() - start) / len(files)
    start = time.monotonic()
    for proof in made:
        place = proof.place
        assert verify_inclusion(place.leaf_hash, place.index, proof.head.size, proof.hashes, proof.head.root)
    path = (time.monotonic() - start) / len(made)
    return {
        "making_ms": making,
        "verifying_file_ms": round(whole * 1e3, 3),
        "verifying_path_ms": round(path * 1e3, 3),
        "file_bytes": max(len(content) for content, _leaf in files),
    }


async def _timed(items: list[Any], work: Callable[[Any], Awaitable[Any]]) -> dict[str, float]:
    waits = []
    for item in items:
        start = time.monotonic()
        await work(item)
        waits.append(time.monotonic() - start)
    return _percentiles(waits)


def _percentiles(waits: list[float]) -> dict[str, float]:
    ordered = sorted(waits)
    return {
        "p50_ms": round(ordered[len(ordered) // 2] * 1e3, 2),
        "p99_ms": round(ordered[len(ordered) * 99 // 100] * 1e3, 2),
    }


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, int(sys.argv[2]) if len(sys.argv) > 2 else 200_000)
