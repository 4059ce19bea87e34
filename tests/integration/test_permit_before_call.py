"""No producer is asked without a permit committed before: random requests through the exchange, with a real log."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from governed import hold, migrated, opened
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.models import EntryReceipt, FetchOutcome, Found, Identifier, NotFound, Provenance, Unavailable
from audit.keys import Epochs
from audit.models import LoggedEntry
from audit.search import recent
from audit.service import AuditLog
from consent import agreements, people, records
from consent.models import AgreedBasis, Agreement, Caller, EmergencyClaim
from consent.policy import PolicyStore
from consent.volume import Volume
from gateway import errors
from gateway.clock import utc_now
from gateway.database import Database
from gateway.exchange import DisclosureRequest, Exchange
from gateway.registry import service as registry
from gateway.registry.lookup import SubjectLookup
from gateway.registry.models import NewPerson
from gateway.vault import open_vault
from schemas.ids import uuid7
from schemas.permit import Permit

KEK = bytes(32)
EPOCHS = Epochs(1, {1: KEK})
REQUESTS = 250
FIELDS = ("cedula", "given_names", "birth_date", "sex", "profession")
# In the past, for the exchange asks the true clock.
AT = datetime.now(UTC) - timedelta(days=1)
IDENTITY = Agreement(
    code="A",
    es="Acuerdo",
    en="Agreement",
    requester="MDS",
    holder="PN-IDENT",
    datasets={"identity": frozenset(FIELDS)},
    purposes=frozenset({"service-provision", "official-statistics"}),
    bases=(AgreedBasis("official-authority", "norm"), AgreedBasis("consent", "norm")),
    channels=frozenset({"api"}),
    minimum_assurance=1,
    labels=frozenset({"identifying"}),
    roles=frozenset({"operator", "system"}),
    valid_from=AT,
    valid_to=None,
    status="active",
)
AGREEMENTS = (
    IDENTITY,
    replace(IDENTITY, code="B", bases=(AgreedBasis("consent", "norm"),), datasets={"identity": frozenset(FIELDS[:3])}),
    replace(IDENTITY, code="C", requester="MINNA", bases=(AgreedBasis("legal-obligation", "norm"),), volume_per_day=20),
    replace(IDENTITY, code="D", requester="MINNA", status="suspended"),
    replace(
        IDENTITY,
        code="E",
        bases=(AgreedBasis("vital-interest", "norm"),),
        minimum_assurance=2,
        roles=frozenset({"emergency"}),
    ),
)
# One person of each kind, by the card number; nobody is registered under the last.
PERSONS = {"1000001": "consents", "1000002": "silent", "1000003": "withdrew", "1000004": "sealed", "1000005": "objects"}
UNKNOWN = "1000009"


@dataclass
class Producer:
    """Answers as it likes; at every call it looks, over a connection of its own, what is committed in the log."""

    looks: Database
    random: Random
    calls: list[tuple[Permit, list[LoggedEntry]]] = field(default_factory=list)
    name: str = "producer"
    kind: str = "rest"

    def asks_by(self, dataset: str) -> str:
        return "cedula"

    async def fetch(
        self,
        permit: Permit,
        dataset: str,
        identifier: Identifier,
        presented: Mapping[str, str],
        *,
        receipt: EntryReceipt,
    ) -> FetchOutcome:
        async with self.looks.connection() as connection:
            self.calls.append((permit, await recent(connection, EPOCHS, 50, type="disclosure.intent")))
        told = Provenance(self.name, "PN-IDENT", utc_now(), None, 1, 1)
        # Often silent, so that the second source is asked too.
        down = Unavailable("down", told)
        answers = (Found({"cedula": identifier.value}, told), NotFound(told), down, down)
        return self.random.choice(answers)

    def holding(self, dataset: str) -> tuple[Producer, ...]:
        """All there is to ask, once more where the first is silent."""
        return (self, self)


@dataclass(frozen=True)
class World:
    exchange: Exchange
    producer: Producer
    looks: Database


@pytest.fixture(scope="module")
def url(folders: Callable[[str], Path]) -> Iterator[str]:
    with migrated(folders("permit")) as address:
        yield address


@pytest.fixture
async def seed() -> int:
    return int(os.environ.get("SIIS_TEST_SEED", secrets.randbits(32)))


@pytest.fixture
async def world(url: str, seed: int) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(opened(url))
        looks = await stack.enter_async_context(opened(url))
        async with database.transaction() as connection:
            vault = await open_vault(connection, KEK)
            for agreement in AGREEMENTS:
                await agreements.put_agreement(connection, agreement, at=AT)
            await hold(connection, "MDS", "ana", "emergency", AT)
            born = date(1990, 5, 5)
            for cedula, kind in PERSONS.items():
                who = uuid7()
                new = NewPerson(who, "Ana", "Ruiz", (("cedula", cedula),), birth_date=born)
                await registry.register(connection, vault, [new])
                await _live(connection, who, kind, born)
        audit = AuditLog(database.engine, EPOCHS, "test")
        stack.push_async_callback(audit.close)
        await audit.start()
        policies = PolicyStore(database.engine)
        async with database.connection() as connection:
            await policies.load(connection)
        subjects = SubjectLookup(database, vault)
        stack.push_async_callback(subjects.close)
        producer = Producer(looks, Random(seed))
        exchange = Exchange(
            database=database,
            subjects=subjects,
            audit=audit,
            policies=policies,
            volume=Volume(database.engine, policies, utc_now),
            adapters=producer,  # type: ignore[arg-type]
            public_address="https://siis.example",
        )
        yield World(exchange, producer, looks)


async def _live(connection: AsyncConnection, who: UUID, kind: str, born: date) -> None:
    """Let a person do what makes them what they are."""
    if kind in ("consents", "withdrew"):
        new = records.NewConsent(
            agreement="A",
            purposes=frozenset({"service-provision"}),
            fields=frozenset(FIELDS[:4]),
            text_version="1",
            language="es",
            channel="in-person",
            proof_reference="form-1",
        )
        said = await records.record_consent(connection, who, new, birth_date=born, recorded_by=None, at=AT)
        if kind == "withdrew":
            await records.end_consent(connection, UUID(said["consent"]), step="withdraw", reason="person", at=AT)
    elif kind == "sealed":
        await people.set_flag(connection, who, "sealed", at=AT)
    elif kind == "objects":
        await people.object_to(connection, who, "service-provision", at=AT)


def draw(random: Random) -> tuple[Caller, DisclosureRequest]:
    operator, hurries = random.random() < 0.7, random.random() < 0.3
    caller = Caller(
        client_id="c",
        institution=random.choice(("MDS", "MDS", "MDS", "MDS", "MINNA", "MEC")),
        user="ana" if operator else None,
        user_verified=operator and random.random() < 0.9,
        roles=frozenset({"operator", *random.choices(("emergency", "auditor"), (4, 1))} if operator else {"system"}),
        assurance=random.choice((1, 2, 3, 3)),
        authenticated_at=utc_now() - timedelta(minutes=random.choice((0, 1, 1, 60))),
    )
    bases = ("official-authority", "official-authority", "legal-obligation", "consent", "consent", "vital-interest")
    claim = EmergencyClaim(reason="danger-to-life", incident=f"147-{random.randint(1, 3)}")
    asked = DisclosureRequest(
        system="cedula",
        identifier=random.choice((*PERSONS, "1000001", UNKNOWN)),
        dataset="identity",
        fields=tuple(random.sample(FIELDS, random.randint(1, len(FIELDS)))),
        purpose=random.choices(("service-provision", "official-statistics", "public-benefit"), (8, 1, 1))[0],
        basis="vital-interest" if hurries else random.choice(bases),
        agreement=random.choice((None, None, None, None, "A", "E")),
        case=None,
        correlation=None,
        on_behalf_of="MINNA" if random.random() < 0.05 else None,
        emergency=claim if hurries else None,
    )
    return caller, asked


async def outcome_of(world: World, caller: Caller, asked: DisclosureRequest) -> str:
    try:
        await world.exchange.disclose(caller, asked)
    except errors.Denied:
        return "denied"
    except errors.NotFound:
        return "not-found"
    except errors.ProducerFailed:
        return "failed"
    return "released"


async def test_every_call_finds_its_intent_committed_and_a_denial_makes_none(world: World, seed: int) -> None:
    random = Random(seed)
    seen: dict[str, int] = {}
    for _ in range(REQUESTS):
        caller, asked = draw(random)
        world.producer.calls.clear()
        outcome = await outcome_of(world, caller, asked)
        async with world.looks.connection() as connection:
            found = await recent(connection, EPOCHS, 2)
        # Behind a denial that is told as a person not found another entry stands.
        last = next(entry for entry in found if entry.envelope["type"] != "disclosure.concealed")
        assert last.detail is not None
        decision: dict[str, Any] = last.detail["decision"]
        told = (seed, outcome, caller, asked, decision)
        permitted = decision["effect"] != "deny"
        seen[outcome] = seen.get(outcome, 0) + 1
        seen["emergency"] = seen.get("emergency", 0) + (permitted and decision["obligations"].count("review-due-72h"))
        # Denied: nobody was asked. Permitted: the entry that says how it went belongs to the permit of every call.
        assert bool(world.producer.calls) == permitted, told
        for permit, intents in world.producer.calls:
            committed = [each.detail["decision"]["id"] for each in intents if each.detail is not None]
            assert str(permit.decision_id) in committed, told
            assert str(permit.decision_id) == decision["id"], told
            assert permit.released == frozenset(last.detail["what"]["released"]), told
    kinds = ("denied", "not-found", "failed", "released", "emergency")
    assert all(seen.get(kind, 0) for kind in kinds), (seed, seen)
