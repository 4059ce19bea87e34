"""Pruning the log: the oldest entries go, and what was proven stays proven; killed half-way, the next call ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from rights_office import Office

from audit import retention
from audit.check import check_log
from audit.integrator import integrate_once
from audit.models import Report
from audit.proofs import Proof, prove, signed_head
from audit.service import AuditLog
from audit.tiles import TileReader
from audit.verify import verify_consistency, verify_inclusion
from gateway import embedded, errors, evidence
from gateway.cli.db import bring_up
from gateway.database import Database
from gateway.erasure.pruning import Pruned, prune
from gateway.runtime import load_signer
from gateway.settings import Settings, load_settings
from schemas.ids import uuid7

OLD = datetime(2016, 2, 3, 12, tzinfo=UTC)
NEW = datetime(2016, 9, 1, 12, tzinfo=UTC)
NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
NORM, BEFORE = "Ley 7593/2025, art. 4", date(2016, 6, 1)


@pytest.fixture
def settings(folders: Callable[[str], Path]) -> Iterator[Settings]:
    chosen = load_settings(data_dir=folders("retention") / "data")
    bring_up(chosen, demonstration=False)
    yield chosen
    embedded.stop(chosen.data_dir)


async def written(office: Office, count: int, at: datetime, *, by: int = 3) -> list[Proof]:
    """Write entries by several processes, number them in the log of the year, and prove each."""
    entries = []
    for number in range(by):
        log = AuditLog(office.context.database.engine, office.context.epochs, f"gateway-{number}")
        group = [
            evidence.entry("disclosure.denied", "deny", at=at + timedelta(seconds=n), policy_version="v1")
            for n in range(number, count, by)
        ]
        await log.append_many(group)
        await log.close()
        entries += group
    await numbered(office, at)
    async with office.context.database.connection() as connection:
        found = [await prove(connection, entry.id) for entry in entries]
    return [proof for proof in found if proof is not None]


async def numbered(office: Office, at: datetime) -> None:
    async with office.context.database.connection() as connection:
        signer = load_signer(office.context.settings)
        while await integrate_once(connection, signer, office.context.audit, lambda: at):
            pass


async def checked(office: Office) -> Report:
    signer = load_signer(office.context.settings)
    async with office.context.database.connection() as connection:
        return await check_log(connection, signer)


async def pruned(office: Office, owner: Database, before: date = BEFORE, now: datetime = NOW) -> list[Pruned]:
    return await prune(
        owner=owner, audit=office.context.audit, before=before, norm=NORM, reference="Res. 9", now=lambda: now
    )


def holds(proof: Proof) -> bool:
    place, head = proof.place, proof.head
    return verify_inclusion(place.leaf_hash, place.index, head.size, proof.hashes, head.root)


async def test_what_was_proven_stays_proven_and_the_check_passes(office: Office, owner: Database) -> None:
    old = await written(office, 600, OLD)
    new = await written(office, 300, NEW)
    [done] = await pruned(office, owner)
    assert (done.log, done.minimum, done.entries) == (2016, 512, 512)
    assert await office.rows("SELECT min(index) FROM audit.sequence WHERE log = 2016") == [(512,)]
    left = await office.rows("SELECT count(*) FROM audit.entry AS e JOIN audit.sequence AS s ON s.entry_id = e.id")
    assert left == await office.rows("SELECT count(*) FROM audit.sequence")
    assert all(map(holds, [*old, *new]))
    await numbered(office, NOW)
    report = await checked(office)
    assert report.ok, report.problems
    [entry] = await office.entries("log.pruned")
    assert entry.envelope["statement"] == {"log": 2016, "minimum": 512, "root": done.root.hex(), "norm": NORM}
    before, after = old[0].head, new[0].head
    async with office.context.database.connection() as connection:
        reader = TileReader(connection, 2016, after.size)
        assert await TileReader(connection, 2016, done.minimum).root() == done.root
        path = await reader.consistency(before.size)
        assert verify_consistency(before.size, after.size, before.root, after.root, path)
        again = await prove(connection, await _id_at(office, 700))
        assert again is not None
        assert holds(again)
        assert await signed_head(connection, 2016) is not None


async def _id_at(office: Office, index: int) -> UUID:
    [(entry_id,)] = await office.rows("SELECT entry_id FROM audit.sequence WHERE log = 2016 AND index = %s", index)
    return UUID(str(entry_id))


async def test_an_entry_changed_or_missing_above_the_minimum_is_still_found(
    office: Office, owner: Database, settings: Settings
) -> None:
    await written(office, 600, OLD)
    await written(office, 300, NEW)
    await pruned(office, owner)
    url = embedded.start(settings.data_dir).url(embedded.SUPERUSER)
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM audit.entry WHERE id = (SELECT entry_id FROM audit.sequence WHERE index = 515)")
    report = await checked(office)
    assert not report.ok
    assert (report.problems[0].kind, report.problems[0].index) == ("missing", 515)


async def test_a_second_pruning_goes_on_from_the_first(office: Office, owner: Database) -> None:
    await written(office, 600, OLD, by=2)
    await written(office, 600, NEW, by=5)
    await pruned(office, owner)
    await written(office, 100, NEW + timedelta(days=60))
    later = datetime(2030, 1, 2, tzinfo=UTC)
    done = await pruned(office, owner, date(2016, 10, 1), later)
    assert [(each.log, each.minimum, each.entries) for each in done] == [(2016, 1024, 512)]
    assert await pruned(office, owner, date(2016, 10, 1), later) == []
    report = await checked(office)
    assert report.ok, report.problems


async def test_a_pruning_that_was_cut_off_is_ended_by_the_next_call(office: Office, owner: Database) -> None:
    await written(office, 900, OLD)
    async with owner.transaction() as connection:
        [plan] = await retention.plan(connection, NEW)
        await retention.begin(connection, plan, NOW)
    async with owner.transaction() as connection:
        assert await retention.take(connection, 2016, 100) == 100
    # Nothing says who ordered it: that is named, and nothing else.
    report = await checked(office)
    assert [(problem.kind, problem.log, problem.index) for problem in report.problems] == [("missing", 2016, 0)]
    assert await pruned(office, owner) == []
    assert await office.rows("SELECT min(index) FROM audit.sequence WHERE log = 2016") == [(768,)]
    assert await office.rows("SELECT min(number) FROM audit.block WHERE log = 2016") == [(None,)]


async def test_within_the_term_nothing_is_pruned(office: Office, owner: Database) -> None:
    await written(office, 300, NEW)
    with pytest.raises(errors.Conflict, match="retention"):
        await pruned(office, owner, date(2016, 11, 3))
    with pytest.raises(errors.BadRequest):
        await prune(owner=owner, audit=office.context.audit, before=BEFORE, norm="porque sí; ya", reference="Res. 9")
    assert await pruned(office, owner) == []


async def test_nobody_takes_away_what_was_not_pruned_and_what_was_is_told_apart_from_what_never_was(
    office: Office, owner: Database, settings: Settings
) -> None:
    before = uuid7()
    await written(office, 600, OLD)
    await written(office, 300, NEW)
    ids = [UUID(str(row[0])) for row in await office.rows("SELECT entry_id FROM audit.sequence ORDER BY index")]
    async with owner.connection() as connection:
        assert not await retention.was_pruned(connection, before)
    await pruned(office, owner)
    async with owner.connection() as connection:
        assert await prove(connection, min(ids)) is None
        assert await retention.was_pruned(connection, min(ids))
        assert not await retention.was_pruned(connection, uuid7())
        assert not await retention.was_pruned(connection, uuid4())
    url = embedded.start(settings.data_dir).url(embedded.OWNER)
    for statement in (
        "DELETE FROM audit.entry WHERE id = (SELECT entry_id FROM audit.sequence WHERE index = 512)",
        "DELETE FROM audit.sequence WHERE log = 2016 AND index = 512",
        "DELETE FROM audit.sequence",
        "DELETE FROM audit.block",
        "TRUNCATE audit.entry",
        "DELETE FROM audit.checkpoint",
    ):
        with psycopg.connect(url) as driver, pytest.raises(psycopg.errors.InsufficientPrivilege):
            driver.execute(statement)
