"""Witnesses missing too long: ordinary disclosures stop before anybody is asked, emergencies go on, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from audit_examples import EPOCHS, LOG, SIGNER, in_the_year
from governed import hold, migrated, opened

from adapters.models import FetchOutcome, Found, Identifier, Provenance
from audit.integrator import integrate_once
from audit.models import LoggedEntry
from audit.search import recent
from audit.service import AuditLog
from audit.verify import format_key
from audit.witness import Witness, add_log
from consent import agreements, people
from consent.models import AgreedBasis, Agreement, Caller, EmergencyClaim
from consent.policy import PolicyStore
from consent.volume import Volume
from gateway import errors
from gateway.api import problems
from gateway.database import Database
from gateway.delivery.plan import Plan
from gateway.delivery.queue import Job
from gateway.delivery.service import Delivery
from gateway.exchange import DisclosureRequest, Exchange
from gateway.registry import service as registry
from gateway.registry.lookup import SubjectLookup
from gateway.registry.models import NewPerson
from gateway.registry.query import StatusQuery, StatusService
from gateway.vault import Vault, open_vault
from gateway.witnesses.policy import read_witnesses
from gateway.witnesses.quorum import Quorum, QuorumWatch
from gateway.witnesses.service import Witnessing
from schemas.ids import uuid7
from schemas.permit import Permit
from tests.integration.audit_database import fresh_audit_database
from tests.witnessing import NOON, Clock, a_witness, vkey_of, witness_server

AT = NOON - timedelta(days=1)
LIMIT = timedelta(hours=4)
KEK = bytes(32)
FIELDS = ("cedula", "given_names", "birth_date")
KNOWN, SEALED, UNKNOWN = "1000001", "1000004", "1000009"
ORDINARY = Agreement(
    code="A",
    es="Acuerdo",
    en="Agreement",
    requester="MDS",
    holder="PN-IDENT",
    datasets={"identity": frozenset(FIELDS)},
    purposes=frozenset({"service-provision"}),
    bases=(AgreedBasis("official-authority", "norm"),),
    channels=frozenset({"api"}),
    minimum_assurance=1,
    labels=frozenset({"identifying"}),
    roles=frozenset({"operator", "system"}),
    valid_from=AT,
    valid_to=None,
    status="active",
)
EMERGENCY = replace(
    ORDINARY,
    code="E",
    bases=(AgreedBasis("vital-interest", "norm"),),
    minimum_assurance=2,
    roles=frozenset({"emergency"}),
)


@dataclass
class Producer:
    """Answers everything, and counts."""

    asked: int = 0
    name: str = "producer"
    kind: str = "rest"

    def asks_by(self, dataset: str) -> str:
        return "cedula"

    async def fetch(
        self, permit: Permit, dataset: str, identifier: Identifier, presented: Mapping[str, str], **_receipt: Any
    ) -> FetchOutcome:
        self.asked += 1
        return Found({"cedula": identifier.value}, Provenance(self.name, "PN-IDENT", NOON, None, 1, 1))

    def holding(self, dataset: str) -> tuple[Producer, ...]:
        return (self,)


@dataclass
class World:
    database: Database
    vault: Vault
    audit: AuditLog
    policies: PolicyStore
    exchange: Exchange
    statuses: StatusService
    delivery: Delivery
    producer: Producer
    witnessing: Witnessing
    watch: QuorumWatch
    quorum: Quorum
    clock: Clock
    server: AsyncExitStack
    witness: Witness
    seen: dict[str, Any] = field(default_factory=dict)

    async def minute(self) -> None:
        """Integrate, ask the witness, and learn how it stands."""
        async with self.database.engine.connect() as conn:
            await integrate_once(conn, SIGNER, self.audit, in_the_year(LOG))
        await self.witnessing.round()
        await self.watch.look()

    async def last(self, limit: int = 1) -> list[LoggedEntry]:
        async with self.database.connection() as connection:
            return await recent(connection, EPOCHS, limit)

    async def asks(self, cedula: str, *, hurries: bool = False, basis: str | None = None, **changes: Any) -> str:
        """Ask as an operator who is on emergency duty; say what came of it."""
        caller = Caller(
            client_id="c",
            institution="MDS",
            user="ana",
            user_verified=True,
            roles=frozenset({"operator", "emergency"}),
            assurance=2,
            authenticated_at=self.clock.at - timedelta(minutes=1),
        )
        asked = DisclosureRequest(
            system="cedula",
            identifier=cedula,
            dataset="identity",
            fields=FIELDS,
            purpose="service-provision",
            basis=basis or ("vital-interest" if hurries else "official-authority"),
            agreement=None,
            case=None,
            correlation=None,
            emergency=EmergencyClaim(reason="danger-to-life", incident="147-1") if hurries else None,
        )
        try:
            await self.exchange.disclose(replace(caller, **changes), asked)
        except errors.Refusal as refusal:
            self.seen["refusal"] = refusal
            return refusal.code
        return "released"


@pytest.fixture(scope="module")
def url(folders: Callable[[str], Path]) -> Iterator[str]:
    """A database with agreements, roles and persons."""
    with migrated(folders("stop")) as address:
        asyncio.run(_filled(address))
        yield address


async def _filled(url: str) -> None:
    async with opened(url) as database, database.transaction() as connection:
        vault = await open_vault(connection, KEK)
        for agreement in (ORDINARY, EMERGENCY):
            await agreements.put_agreement(connection, agreement, at=AT)
        await hold(connection, "MDS", "ana", "emergency", AT)
        born = date(1990, 5, 5)
        for cedula in (KNOWN, SEALED):
            who = uuid7()
            new = NewPerson(who, "Ana", "Ruiz", (("cedula", cedula),), birth_date=born)
            await registry.register(connection, vault, [new])
            if cedula == SEALED:
                await people.set_flag(connection, who, "sealed", at=AT)


@pytest_asyncio.fixture
async def world(url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(opened(url))
        async with database.transaction() as connection:
            vault = await open_vault(connection, KEK)
        clock, quorum, producer = Clock(), Quorum(), Producer()
        audit = AuditLog(database.engine, EPOCHS, "test")
        stack.push_async_callback(audit.close)
        policies = PolicyStore(database.engine)
        async with database.connection() as connection:
            await policies.load(connection)
        subjects = SubjectLookup(database, vault)
        stack.push_async_callback(subjects.close)
        volume = Volume(database.engine, policies, clock)
        store = await stack.enter_async_context(fresh_audit_database())
        key = SIGNER.of(LOG).verifier
        async with store.app.begin() as conn:
            await add_log(conn, format_key(key.name, key.kind, key.key), NOON)
        witness = a_witness()
        server = await stack.enter_async_context(AsyncExitStack())
        address = await server.enter_async_context(witness_server(store, witness, clock))
        file = tmp_path / "witnesses.txt"
        file.write_text(f"witness w1 {vkey_of(witness)} {address}\nquorum w1\n")
        known = read_witnesses(file)
        common: dict[str, Any] = {"database": database, "audit": audit, "policies": policies, "now": clock}
        delivery = Delivery(
            **common,
            vault=vault,
            adapters=producer,  # type: ignore[arg-type]
            plan=Plan(5, 3),
            public_address="https://siis.example",
            quorum=quorum,
        )
        stack.push_async_callback(delivery.close)
        yield World(
            database=database,
            vault=vault,
            audit=audit,
            policies=policies,
            exchange=Exchange(
                **common,
                subjects=subjects,
                volume=volume,
                adapters=producer,  # type: ignore[arg-type]
                public_address="https://siis.example",
                quorum=quorum,
            ),
            statuses=StatusService(**common, vault=vault, volume=volume, quorum=quorum),
            delivery=delivery,
            producer=producer,
            witnessing=Witnessing(
                database=database, audit=audit, witnesses=known, time_stamps=None, interval_s=60, now=clock
            ),
            watch=QuorumWatch(database, known, quorum, interval_s=60, limit_s=LIMIT.total_seconds(), now=clock),
            quorum=quorum,
            clock=clock,
            server=server,
            witness=witness,
        )


async def stopped(world: World) -> None:
    """Let the witness go away and time pass, until it stops."""
    assert await world.asks(KNOWN) == "released"
    await world.minute()
    assert await world.asks(KNOWN) == "released"
    await world.server.aclose()
    world.clock.at += LIMIT
    await world.minute()
    assert await world.asks(KNOWN) == "released"
    world.clock.at += timedelta(seconds=1)
    world.producer.asked = 0


async def test_ordinary_disclosures_stop_before_anybody_is_asked_and_go_on_with_the_witness(world: World) -> None:
    await stopped(world)
    assert await world.asks(KNOWN) == "evidence-stopped"
    [entry] = await world.last()
    assert (entry.envelope["type"], entry.envelope["outcome"], entry.envelope["subject"]) == (
        "disclosure.stopped",
        "deny",
        None,
    )
    assert entry.detail is not None
    assert entry.detail["decision"]["reasons"] == ["evidence-stopped"]
    assert world.seen["refusal"].receipt.entry_id == entry.entry_id
    answer = problems.of_refusal(world.seen["refusal"])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert world.producer.asked == 0
    known = world.watch._witnesses.known[0]
    async with fresh_audit_database() as store:
        # The institution set its witness up again, from nothing, at a new address.
        key = SIGNER.of(LOG).verifier
        async with store.app.begin() as conn:
            await add_log(conn, format_key(key.name, key.kind, key.key), NOON)
        async with witness_server(store, world.witness, world.clock) as address:
            moved = replace(known, address=address)
            world.witnessing._witnesses = replace(world.watch._witnesses, known=(moved,))
            await world.minute()
    assert await world.asks(KNOWN) == "released"


async def test_the_stop_tells_nothing_about_the_person(world: World) -> None:
    await stopped(world)
    told = {}
    for cedula in (KNOWN, SEALED, UNKNOWN):
        assert await world.asks(cedula) == "evidence-stopped"
        told[cedula] = await world.last()
    [[one], [two], [three]] = told.values()
    assert one.detail == two.detail == three.detail


async def test_emergencies_go_on_committed_and_integrated(world: World) -> None:
    await stopped(world)
    assert await world.asks(KNOWN, hurries=True) == "released"
    assert world.producer.asked == 1
    kinds = [str(entry.envelope["type"]) for entry in await world.last(3)]
    assert kinds == ["disclosure.released", "disclosure.intent", "breakglass.opened"]
    await world.minute()
    assert all(entry.index is not None for entry in await world.last(3))


async def test_a_claim_of_emergency_does_not_open_what_an_agreement_opens_at_other_times(world: World) -> None:
    assert await world.asks(KNOWN, hurries=True, basis="official-authority") == "released"
    assert [str(entry.envelope["type"]) for entry in await world.last(2)] == [
        "disclosure.released",
        "disclosure.intent",
    ]
    await stopped(world)
    assert await world.asks(KNOWN, hurries=True, basis="official-authority") == "released"
    # Now it is an emergency in earnest: with its notices, and with a review to come.
    assert "breakglass" in {str(entry.envelope["type"]).split(".")[0] for entry in await world.last(3)}


async def test_who_may_not_break_the_glass_does_not_pass_by_claiming_an_emergency(world: World) -> None:
    await stopped(world)
    refused: list[dict[str, Any]] = [{"user": "eva"}, {"assurance": 1}, {"authenticated_at": AT}]
    for changes in refused:
        assert await world.asks(KNOWN, hurries=True, **changes) == "evidence-stopped", changes
    assert world.producer.asked == 0


async def test_status_queries_stop_and_deliveries_wait(world: World) -> None:
    await stopped(world)
    asked = StatusQuery(
        system="cedula",
        identifier=KNOWN,
        on=None,
        purpose="service-provision",
        basis="official-authority",
        agreement=None,
        case=None,
        correlation=None,
    )
    caller = Caller(
        client_id="c", institution="MDS", user=None, user_verified=False, roles=frozenset({"system"}), assurance=1
    )
    with pytest.raises(errors.EvidenceStopped):
        await world.statuses.query(caller, asked)
    [entry] = await world.last()
    assert entry.envelope["type"] == "status.stopped"
    referral = uuid7()
    async with world.database.transaction() as connection:
        taken = await connection.exec_driver_sql(
            "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, args, status, attempts)"
            " VALUES ('to:MSPBS', 'deliver', jsonb_build_object('referral_id', %s::text), 'doing', 1) RETURNING id",
            (str(referral),),
        )
        job = Job(taken.scalar_one(), referral, "MSPBS", starts=1, troubled=False)
    await world.delivery.deliver(job)
    async with world.database.connection() as connection:
        jobs = await connection.exec_driver_sql(
            "SELECT args->>'referral_id', status::text, attempts, scheduled_at > now() FROM jobs.procrastinate_jobs"
        )
        assert jobs.all() == [(str(referral), "todo", 0, True)]
    assert (await world.last()) == [entry]
