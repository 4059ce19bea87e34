"""What one instance is told, another decides by within a second: withdrawal, objection, suspension, seal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import pytest
from governed import AT, MACHINE, migrated, opened
from house import until
from sqlalchemy.ext.asyncio import AsyncConnection

from consent import agreements, people, records
from consent.decision import decide
from consent.models import FETCH, Caller, Request
from consent.policy import PolicyStore
from gateway.database import Database
from gateway.registry import service as registry
from gateway.registry.lookup import SubjectLookup
from gateway.registry.models import NewPerson
from gateway.vault import open_vault
from schemas.ids import uuid7

# What the issue promises; a deadline for a condition that is looked at all the time.
WITHIN_S = 1.0
KEK = bytes(32)
CODE, CEDULA = "DEMO-SNPP-IDENT", "4123456"
LATER = AT + timedelta(days=1)
PERSON = uuid7()
APPLICANT = records.NewConsent(
    agreement=CODE,
    purposes=frozenset({"service-provision"}),
    fields=frozenset({"cedula"}),
    text_version="2026-1",
    language="es",
    channel="in-person",
    proof_reference="form-17",
)

# Of two answers of the same instant the one that refuses would count.
INSTANTS = (AT + timedelta(seconds=second) for second in count())

Change = Callable[[AsyncConnection], Awaitable[object]]


@dataclass(frozen=True)
class Instance:
    """What a gateway process decides with, and its connections."""

    database: Database
    policies: PolicyStore
    subjects: SubjectLookup

    async def permits(self) -> bool:
        who, facts = await self.subjects.find("cedula", CEDULA)
        assert who is not None
        request = Request(
            action=FETCH,
            caller=Caller(client_id="c", institution="SNPP", roles=frozenset({"operator"})),
            holder="PN-IDENT",
            dataset="identity",
            fields=("cedula",),
            purpose="service-provision",
            basis="consent",
            at=LATER,
        )
        return decide(request, facts, self.policies.current).permit is not None

    async def change(self, work: Change) -> None:
        async with self.database.transaction() as connection:
            await work(connection)


@pytest.fixture(scope="module")
def url(folders: Callable[[str], Path]) -> Iterator[str]:
    with migrated(folders("seen")) as address:
        yield address


@pytest.fixture
async def instances(url: str) -> AsyncIterator[tuple[Instance, Instance]]:
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(2):
            database = await stack.enter_async_context(opened(url))
            async with database.transaction() as connection:
                vault = await open_vault(connection, KEK)
                await agreements.load_demonstration(connection, at=AT)
                if await registry.find_person(connection, vault, "cedula", CEDULA) is None:
                    new = NewPerson(PERSON, "Ana", "Ruiz", (("cedula", CEDULA),), birth_date=date(1990, 5, 5))
                    await registry.register(connection, vault, [new])
            subjects = SubjectLookup(database, vault)
            stack.push_async_callback(subjects.close)
            made.append(Instance(database, PolicyStore(database.engine), subjects))
        following = [asyncio.create_task(each.policies.run(stop)) for each in made]
        for each in made:
            async with each.database.connection() as connection:
                await each.policies.load(connection)
        yield made[0], made[1]
        stop.set()
        await asyncio.gather(*following)


async def give(connection: AsyncConnection) -> None:
    await records.record_consent(
        connection, PERSON, APPLICANT, birth_date=date(1990, 5, 5), recorded_by="SNPP/op-1", at=next(INSTANTS)
    )


async def withdraw(connection: AsyncConnection) -> None:
    newest = await records.newest_of(connection, PERSON, [CODE])
    await records.end_consent(connection, next(iter(newest)), step="withdraw", reason="person", at=next(INSTANTS))


CHANGES: dict[str, tuple[Change, Change]] = {
    "withdrawal": (withdraw, give),
    "suspension of the agreement": (
        lambda conn: agreements.take_step(conn, CODE, "suspend", actor=MACHINE, party="SNPP", at=AT),
        lambda conn: agreements.take_step(conn, CODE, "resume", actor=MACHINE, party="SNPP", at=AT),
    ),
    "suspension of the institution": (
        lambda conn: agreements.suspend_institution(conn, "SNPP", reason="Resolución 1/2026", at=AT),
        lambda conn: agreements.resume_institution(conn, "SNPP", at=AT),
    ),
    "objection": (
        lambda conn: people.object_to(conn, PERSON, "service-provision", at=AT),
        lambda conn: people.withdraw_objection(conn, PERSON, "service-provision", at=AT),
    ),
    "seal": (
        lambda conn: people.set_flag(conn, PERSON, "sealed", at=AT),
        lambda conn: people.lift_flag(conn, PERSON, "sealed", at=AT),
    ),
}


async def test_two_instances_see_a_withdrawal_within_one_second_of_each_other(
    instances: tuple[Instance, Instance],
) -> None:
    one, other = instances
    await one.change(give)
    for stopped, renewed in CHANGES.values():
        for teller in instances:
            assert await _permitted(one, other)
            await teller.change(stopped)
            await until(lambda: _denied(one, other), within_s=WITHIN_S)
            await teller.change(renewed)
            await until(lambda: _permitted(one, other), within_s=WITHIN_S)


async def _denied(*instances: Instance) -> bool:
    return not any([await each.permits() for each in instances])


async def _permitted(*instances: Instance) -> bool:
    return all([await each.permits() for each in instances])
