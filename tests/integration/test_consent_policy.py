"""How a change committed elsewhere reaches the policy in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
from consent_database import consent_database
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from consent import agreements, people, records
from consent import policy as policies
from consent.errors import PolicyUnavailable
from consent.policy import Policy, PolicyStore
from schemas.ids import uuid7

AT = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
DEADLINE_S = 20


class Watched(PolicyStore):
    """A store that hands every policy it loads to the test."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.loaded: asyncio.Queue[Policy] = asyncio.Queue()

    async def load(self, conn: AsyncConnection) -> Policy:
        policy = await super().load(conn)
        self.loaded.put_nowait(policy)
        return policy

    async def next(self) -> Policy:
        return await asyncio.wait_for(self.loaded.get(), DEADLINE_S)


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    async with consent_database() as made:
        async with made.begin() as conn:
            await agreements.load_demonstration(conn, at=AT)
        yield made


@asynccontextmanager
async def running(store: PolicyStore) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(store.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, DEADLINE_S)


async def test_a_policy_never_loaded_decides_nothing(engine: AsyncEngine) -> None:
    with pytest.raises(PolicyUnavailable):
        _ = PolicyStore(engine).current


async def test_a_policy_not_confirmed_in_time_decides_nothing(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PolicyStore(engine)
    async with engine.connect() as conn:
        loaded = await store.load(conn)
    assert store.current is loaded
    monkeypatch.setattr(policies, "MAX_AGE_S", -1)
    with pytest.raises(PolicyUnavailable):
        _ = store.current


async def test_committed_changes_reach_every_store_and_rolled_back_ones_none(engine: AsyncEngine) -> None:
    one, other = Watched(engine), Watched(engine)
    async with running(one), running(other):
        first = await one.next()
        assert (await other.next()).version == first.version
        async with engine.connect() as conn:
            await agreements.suspend_institution(conn, "MEC", reason="Resolución 1/2026", at=AT)
            await conn.rollback()
        async with engine.begin() as conn:
            await agreements.suspend_institution(conn, "MDS", reason="Resolución 2/2026", at=AT)
        for store in (one, other):
            assert (await store.next()).suspended == {"MDS"}
            assert store.current.version != first.version
        async with engine.begin() as conn:
            agreement = store.current.agreements["DEMO-SNPP-IDENT"]
            await agreements.put_agreement(conn, replace(agreement, status="suspended"), at=AT)
        for store in (one, other):
            assert (await store.next()).agreements["DEMO-SNPP-IDENT"].status == "suspended"


async def test_a_change_committed_while_the_policy_is_read_is_not_missed(engine: AsyncEngine) -> None:
    class Slow(Watched):
        async def load(self, conn: AsyncConnection) -> Policy:
            policy = await super().load(conn)
            if self.loaded.qsize() == 1 and not policy.suspended:
                async with engine.begin() as own:
                    await agreements.suspend_institution(own, "MDS", reason="Resolución 1/2026", at=AT)
                await conn.execute(text("SELECT 1"))  # lets the driver read the notice before it listens again
            return policy

    store = Slow(engine)
    async with running(store):
        assert (await store.next()).suspended == frozenset()
        assert (await store.next()).suspended == {"MDS"}


async def test_the_policy_is_confirmed_again_even_when_nothing_is_announced(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "REFRESH_S", 0.01)
    store = Watched(engine)
    async with running(store):
        versions = {(await store.next()).version for _ in range(3)}
    assert len(versions) == 1


async def test_a_lost_connection_is_made_again(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "_RETRY_S", 0)
    store = Watched(engine)
    async with running(store):
        await store.next()
        async with engine.begin() as conn:
            await conn.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
            await agreements.suspend_institution(conn, "MDS", reason="Resolución 1/2026", at=AT)
        while not (await store.next()).suspended:
            pass


async def test_the_connection_that_listened_does_not_return_to_the_pool(engine: AsyncEngine) -> None:
    store = Watched(engine)
    async with running(store):
        await store.next()
        assert engine.sync_engine.pool.checkedout() == 0
    async with engine.connect() as conn:
        assert (await conn.scalars(text("SELECT pg_listening_channels()"))).all() == []


async def test_changes_about_a_person_are_announced_with_their_id(engine: AsyncEngine) -> None:
    subject = uuid7()
    async with engine.connect() as listening:
        await listening.execution_options(isolation_level="AUTOCOMMIT")
        await listening.execute(text("LISTEN consent_subject"))
        driver = (await listening.get_raw_connection()).driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)

        async def announced() -> list[UUID]:
            return [UUID(each.payload) async for each in driver.notifies(timeout=DEADLINE_S, stop_after=1)]

        async with engine.begin() as conn:
            new = records.NewConsent(
                agreement="DEMO-SNPP-IDENT",
                purposes=frozenset({"service-provision"}),
                fields=frozenset({"cedula"}),
                text_version="2026-1",
                language="es",
                channel="web",
                proof_reference="form-17",
            )
            fact = await records.record_consent(conn, subject, new, birth_date=None, recorded_by=None, at=AT)
        assert await announced() == [subject]
        for change in (
            lambda conn: records.end_consent(conn, UUID(fact["consent"]), step="withdraw", reason="person", at=AT),
            lambda conn: people.set_flag(conn, subject, "sealed", at=AT),
            lambda conn: people.lift_flag(conn, subject, "sealed", at=AT),
            lambda conn: people.object_to(conn, subject, "public-benefit", at=AT),
        ):
            async with engine.begin() as conn:
                await change(conn)
            assert await announced() == [subject]
        await listening.execute(text("UNLISTEN *"))
