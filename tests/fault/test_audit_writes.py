"""Each write of the log fails in turn: refused by the database, cut with its connection, killed with its process.

Afterwards the independent check passes, nothing acknowledged is missing, nothing that was refused is there, and the
same path goes on working.
"""

# ruff: noqa: S608 — the SQL is put together from constants of these tests

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.check import check_log
from audit.errors import AuditUnavailable
from audit.integrator import run
from audit.service import AuditLog
from tests.audit_writers import (
    APPENDING,
    BUSINESS,
    EPOCHS,
    SIGNER,
    STAGING,
    YEAR,
    an_entry,
    in_the_year,
    kill,
    number_on,
    process,
    told_by,
    until,
    write_on,
    writing,
)
from tests.integration.audit_database import AuditDatabase, fresh_audit_database

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Whoever meets the fault waits for this advisory lock, which the test holds.
GATE = 4711
REFUSE = "RAISE disk_full USING MESSAGE = 'no room'"
WAIT = f"PERFORM pg_advisory_xact_lock({GATE})"


class Step(NamedTuple):
    """A write: the table, the event (COMMIT is that of a transaction which wrote there), and which one of its kind."""

    table: str
    event: str
    number: int = 1

    def __str__(self) -> str:
        return f"{self.table}-{self.event}-{self.number}"


IN = [
    Step("subject_key", "INSERT"),
    Step("entry", "INSERT"),
    Step("pending", "INSERT"),
    Step("writer", "UPDATE"),
    Step("entry", "COMMIT"),
]
NUMBERING = [
    Step("sequence", "INSERT"),
    Step("tile", "INSERT"),
    Step("block", "INSERT"),
    Step("tree", "UPDATE"),
    Step("pending", "DELETE"),
    Step("sequence", "COMMIT"),
    Step("checkpoint", "INSERT"),
    Step("tree", "UPDATE", 2),
    Step("checkpoint", "COMMIT"),
]
NEW_YEAR = [
    Step("tree", "INSERT"),
    Step("entry", "INSERT"),
    Step("writer", "UPDATE"),
    Step("sequence", "INSERT"),
    Step("tile", "INSERT"),
    Step("tree", "UPDATE"),
    Step("entry", "COMMIT"),
]
HARMS = ["refused", "cut", "killed"]


@dataclass
class House:
    """A log that goes through all the cases, and what its writers were told."""

    db: AuditDatabase
    year: int = YEAR
    acknowledged: dict[UUID, bytes] = field(default_factory=dict)
    refused: set[UUID] = field(default_factory=set)

    @property
    def url(self) -> str:
        return self.db.app_url.render_as_string(hide_password=False)

    async def write(self, way: str, count: int = 1) -> None:
        """Write entries, which must be acknowledged."""
        async with writing(self.url, way) as write:
            for receipt in await asyncio.gather(*(write(an_entry()) for _ in range(count))):
                self.acknowledged[receipt.entry_id] = receipt.leaf_hash

    async def scalar(self, query: str) -> object:
        async with self.db.admin.connect() as conn:
            return (await conn.exec_driver_sql(query)).scalar_one()

    async def ids(self, query: str) -> set[UUID]:
        async with self.db.admin.connect() as conn:
            return set((await conn.exec_driver_sql(query)).scalars())

    async def all_signed(self) -> bool:
        """Say whether nothing waits and the log of the year is signed to its end."""
        query = f"""
            SELECT NOT EXISTS (SELECT FROM audit.pending) AND coalesce((
                SELECT size = (SELECT max(c.size) FROM audit.checkpoint AS c WHERE c.log = t.log)
                FROM audit.tree AS t WHERE log = {self.year}), false)
        """
        return bool(await self.scalar(query))

    @asynccontextmanager
    async def integrating(self) -> AsyncIterator[None]:
        """Run an integrator here."""
        stop, log = asyncio.Event(), AuditLog(self.db.app, EPOCHS, "integrator")
        running = asyncio.create_task(run(self.db.app, SIGNER, log, stop, 0.01, lambda: in_the_year(self.year)))
        try:
            yield
        finally:
            stop.set()
            await running
            await log.close()

    @asynccontextmanager
    async def fault(self, step: Step, what: str) -> AsyncIterator[AsyncConnection]:
        """Make one write meet a fault, once; the connection lent holds the gate shut."""
        deferred = step.event == "COMMIT"
        kind = "CONSTRAINT TRIGGER" if deferred else "TRIGGER"
        event = "INSERT OR UPDATE" if deferred else step.event
        each = "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW" if deferred else "FOR EACH STATEMENT"
        async with self.db.admin.connect() as gate:
            await gate.exec_driver_sql(f"SELECT pg_advisory_lock({GATE})")
            async with self.db.admin.begin() as conn:
                # A sequence does not roll back: it counts the writes that failed too.
                await conn.exec_driver_sql("CREATE SEQUENCE public.writes")
                await conn.exec_driver_sql(
                    f"""
                    CREATE FUNCTION public.fault() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
                    BEGIN
                        IF nextval('public.writes') = {step.number} THEN {what}; END IF;
                        RETURN NULL;
                    END $$
                    """
                )
                await conn.exec_driver_sql(
                    f"CREATE {kind} fault AFTER {event} ON audit.{step.table} {each} EXECUTE FUNCTION public.fault()"
                )
            yield gate
            await self.open(gate)
            async with self.db.admin.begin() as conn:
                met = await conn.exec_driver_sql("SELECT last_value FROM public.writes WHERE is_called")
                assert (met.scalar_one_or_none() or 0) >= step.number, "the write that was to fail was not made"
                await conn.exec_driver_sql("DROP FUNCTION public.fault CASCADE")
                await conn.exec_driver_sql("DROP SEQUENCE public.writes")

    async def at_the_gate(self) -> int:
        """Wait until somebody stands at the gate; return the backend's process id."""
        query = (
            f"SELECT coalesce(max(pid), 0) FROM pg_locks WHERE locktype = 'advisory' AND objid = {GATE} AND NOT granted"
        )

        async def stands() -> bool:
            return bool(await self.scalar(query))

        await until(stands)
        return int(str(await self.scalar(query)))

    async def cut(self, gate: AsyncConnection) -> None:
        """End the backend that stands at the gate, and open the gate."""
        await self.scalar(f"SELECT pg_terminate_backend({await self.at_the_gate()}, 5000)")
        await self.open(gate)

    async def open(self, gate: AsyncConnection) -> None:
        await gate.exec_driver_sql("SELECT pg_advisory_unlock_all()")

    async def gone(self, backend: int) -> None:
        """Wait until a backend has noticed that nobody is there any more."""

        async def ended() -> bool:
            return not await self.scalar(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {backend}")

        await until(ended)

    async def sound(self) -> None:
        """Number and sign what is left; the log must hold all that was acknowledged and nothing that was refused."""
        async with self.integrating():
            await until(self.all_signed)
        async with self.db.admin.connect() as conn:
            report = await check_log(conn, SIGNER)
            assert (report.problems, report.pending) == ((), 0)
            rows = await conn.exec_driver_sql("SELECT entry_id, leaf_hash FROM audit.sequence")
            numbered = {row.entry_id: bytes(row.leaf_hash) for row in rows}
        assert {entry: numbered.get(entry) for entry in self.acknowledged} == self.acknowledged
        assert not self.refused & await self.ids("SELECT id FROM audit.entry")
        staged = f"SELECT id FROM audit.entry WHERE convert_from(envelope, 'UTF8')::json->>'recorder' = '{STAGING}'"
        assert await self.ids(staged) == await self.ids("SELECT id FROM public.business")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    async with fresh_audit_database() as database:
        async with database.admin.begin() as conn:
            for statement in BUSINESS:
                await conn.exec_driver_sql(statement)
        yield House(database)


@pytest.fixture(autouse=True)
def _tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.integrator.CHECKPOINT_EVERY_S", 0.02)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("step", IN, ids=str)
@pytest.mark.parametrize("way", [STAGING, APPENDING])
async def test_a_write_on_the_way_in_fails(house: House, way: str, step: Step, harm: str, tmp_path: Path) -> None:
    if harm == "killed":
        told = tmp_path / "told"
        # Some are acknowledged before: a write is a statement, or at COMMIT each of the five rows of a group.
        async with house.fault(step._replace(number=8 if step.event == "COMMIT" else 3), WAIT) as gate:
            with process(write_on, house.url, way, str(told), str(tmp_path / "stop")) as child:
                backend = await house.at_the_gate()
                kill(child)
            await house.open(gate)
            await house.gone(backend)
        acknowledged, _ = told_by(told)
        assert acknowledged
        house.acknowledged.update(acknowledged)
        await house.write(way)
    else:
        async with writing(house.url, way) as write:
            entry = an_entry()
            async with house.fault(step, REFUSE if harm == "refused" else WAIT) as gate:
                trying = asyncio.create_task(write(entry))
                if harm == "cut":
                    await house.cut(gate)
                with pytest.raises((AuditUnavailable, SQLAlchemyError)):
                    await trying
                house.refused.add(entry.id)
                # The same log writes on, through a new connection where the old one is gone.
                receipt = await write(an_entry())
                house.acknowledged[receipt.entry_id] = receipt.leaf_hash
    await house.sound()


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("step", NUMBERING, ids=str)
async def test_a_write_of_who_numbers_fails(house: House, step: Step, harm: str) -> None:
    # A block of the search index is written when 256 entries are full.
    await house.write(APPENDING, 256 if step.table == "block" else 20)
    await _number_with_a_fault(house, step, harm)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("step", NEW_YEAR, ids=str)
async def test_a_write_of_who_opens_a_new_year_fails(house: House, step: Step, harm: str) -> None:
    house.year += 1
    await _number_with_a_fault(house, step, harm)
    opened = "SELECT count(*) FROM audit.entry WHERE type = 'log.opened'"
    assert await house.scalar(opened) == house.year - YEAR


async def _number_with_a_fault(house: House, step: Step, harm: str) -> None:
    async with house.fault(step, REFUSE if harm == "refused" else WAIT) as gate:
        if harm == "killed":
            with process(number_on, house.url, house.year) as child:
                backend = await house.at_the_gate()
                kill(child)
            await house.open(gate)
            await house.gone(backend)
        else:
            async with house.integrating():
                if harm == "cut":
                    await house.cut(gate)
                await until(house.all_signed)
    await house.write(STAGING)
    await house.sound()
