"""Referrals over the real services and a real database: persons, callers, and every door by which one is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import insert

from adapters.models import Reply
from consent import agreements
from consent.models import Caller
from gateway import embedded
from gateway.cli.db import bring_up
from gateway.commands import Command, Done
from gateway.referrals import moves, states, store
from gateway.referrals.models import NewPart, NewParts, NewReferral, Referral, ReferralEvent, Step
from gateway.referrals.service import ReferralService
from gateway.registry import service as registry
from gateway.registry.models import NewPerson
from gateway.registry.tables import household
from gateway.runtime import Runtime, open_runtime
from gateway.settings import Settings
from schemas.codes import code_list
from schemas.ids import uuid7

START = datetime(2027, 3, 1, 13, 0, tzinfo=UTC)
#: A service of each institution that the demonstration's agreements let UTGS refer to.
OWN = {"MSPBS": "vaccination", "MDS": "tekopora", "MINNA": "abrazo"}
#: A service that takes few, for the tests of capacity.
SMALL, ROOM = "growth-control", 3


class Desk:
    """The service under test; ``at`` is what its clock says, and moves on a minute with every command."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.at = runtime, START
        self.referrals = ReferralService(
            database=runtime.database,
            vault=runtime.vault,
            catalogue=runtime.referrals._desk.catalogue,
            subjects=runtime.subjects,
            audit=runtime.audit,
            policies=runtime.policies,
            volume=runtime.referrals._desk.volume,
            now=self._now,
        )

    def _now(self) -> datetime:
        self.at += timedelta(minutes=1)
        return self.at

    async def person(self, **changes: Any) -> UUID:
        """Register a person of a poor household in Limpio."""
        home = uuid7()
        values: dict[str, Any] = {
            "given_names": "Ña Eme",
            "surnames": "Ficticia",
            "identifiers": (),
            "birth_date": date(1950, 5, 1),
            "sex": "F",
            "department": "11",
            "district": "1113",
            "household_id": home,
            **changes,
        }
        async with self.runtime.database.transaction() as connection:
            await connection.execute(insert(household).values(id=home, attributes={"poverty": True}))
            new = NewPerson(id=uuid7(), **values)
            await registry.register(connection, self.runtime.vault, [new])
        return new.id

    async def refer(self, person: UUID | None = None, *, requester: str = "UTGS", **changes: Any) -> Done:
        """Send a referral of a person, of a new one by default, to the vaccination service."""
        who = person or await self.person()
        values: dict[str, Any] = {
            "service": "vaccination",
            "reason_code": "protection-gap",
            "reason_text": "Sin controles",
            "priority": "routine",
            "purpose": "service-provision",
            "basis": "official-authority",
            **changes,
        }
        new = NewReferral(identifiers=(("siis", str(who)),), **values)
        return await self.referrals.create(caller(requester), command(), new)

    async def open(self, services: tuple[str, ...] = ("vaccination", "tekopora"), person: UUID | None = None) -> UUID:
        """Send a referral that any of these services may claim."""
        done = await self.refer(person, service=services[0], candidates=services)
        return UUID(done.answer["id"])

    async def report(self, referral: UUID, event: str, by: str = "MSPBS", **changes: Any) -> Done:
        """Report an event as the recipient does, with what it has to say for it."""
        needs: dict[str, dict[str, Any]] = {
            "decline": {"reason_code": "not-eligible"},
            "hold": {"reason_code": "person-absent"},
            "outcome": {"outcome": "provided"},
        }
        values: dict[str, Any] = {"message_id": str(uuid7()), **needs.get(event, {}), **changes}
        told = Reply(referral_id=referral, event=event, occurred_on=self.at.date(), **values)
        return await self.referrals.reply(caller(by), command(), told)

    async def step(self, referral: UUID, event: str, by: str = "UTGS") -> Done:
        """Take a step as the requester does."""
        needs: dict[str, dict[str, Any]] = {
            "request_cancel": {"reason_code": "sent-by-mistake"},
            "withdraw": {"reason_code": "sent-by-mistake"},
            "reopen": {"note": "Falta una dosis"},
            "note": {"note": "Atiende por la tarde"},
        }
        return await self.referrals.step(caller(by), command(), referral, Step(event=event, **needs[event]))

    async def claim(self, referral: UUID, by: str = "MSPBS", service: str | None = None) -> Done:
        """Claim an open referral for a service of an institution."""
        return await self.referrals.claim(caller(by), command(), referral, service or OWN[by])

    async def split(self, referral: UUID, services: tuple[str, ...], by: str = "MINNA") -> list[UUID]:
        """Split a referral over services; return the numbers of the parts."""
        parts = tuple(
            NewPart(service=each, reason_code="protection-gap", reason_text="", priority="routine") for each in services
        )
        asked = NewParts(parts=parts, purpose="service-provision", basis="official-authority")
        done = await self.referrals.split(caller(by), command(), referral, asked)
        return [UUID(each["id"]) for each in done.answer["parts"]]

    async def do(self, referral: UUID, event: str) -> Done:
        """Let an event happen through the door by which it comes."""
        if event == "claim":
            return await self.claim(referral)
        if event == "send":
            return await self._send(referral)
        if code_list("referral-events")[event]["actor"] == moves.INITIATOR:
            return await self.step(referral, event)
        return await self.report(referral, event)

    async def bring(self, state: str) -> UUID:
        """Make a referral and bring it to a state by the shortest way."""
        first, way = _shortest(state)
        referral = await self.open() if first == states.OPEN else UUID((await self.refer()).answer["id"])
        for event in way:
            await self.do(referral, event)
        return referral

    async def seen(self, referral: UUID) -> tuple[Referral, list[ReferralEvent], dict[str, Any]]:
        """Return a referral as it stands: its state, its history, and its whole row."""
        async with self.runtime.database.connection() as connection:
            current = await store.by_id(connection, referral)
            assert current is not None
            happened = await store.events(connection, self.runtime.vault, referral)
            result = await connection.exec_driver_sql("SELECT * FROM siis.referral WHERE id = %s", (referral,))
            return current, happened, dict(result.one()._mapping)

    async def _send(self, referral: UUID) -> Done:
        """Record that the message was transmitted, as delivery does."""
        async with self.runtime.database.transaction() as connection:
            current = await store.by_id(connection, referral, lock=True)
            assert current is not None
            at = self._now()
            moves.reached(current, "send", moves.INITIATOR)
            entry = self.referrals._desk.entry("referral.transmitted", caller("UTGS"), at, referral=str(referral))
            receipt = await moves.perform(
                connection, self.runtime.vault, self.runtime.audit, current, "send", entry, actor="UTGS", at=at
            )
        return Done(201, {"receipt": receipt.entry_id}, replayed=False)


def caller(institution: str) -> Caller:
    """Return an institution's own system."""
    return Caller(client_id=f"{institution.lower()}-1", institution=institution, roles=frozenset({"system"}))


def command() -> Command:
    """Return a command that nobody gave before."""
    return Command("test", str(uuid7()), b"{}")


def prepare(settings: Settings) -> None:
    """Migrate a database, with the demonstration's agreements and one service of little capacity."""
    bring_up(settings, demonstration=True)
    with psycopg.connect(embedded.start(settings.data_dir).url(embedded.OWNER)) as connection:
        connection.execute(
            "UPDATE siis.service SET document = document || jsonb_build_object('capacity', %s::int) WHERE code = %s",
            (ROOM, SMALL),
        )


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[Desk]:
    """Open the service over a prepared database; MINNA may refer to MSPBS too, as whoever splits a referral must."""
    async with open_runtime(settings) as runtime:
        known = {each.code: each for each in agreements.demonstration_agreements()}
        ours = replace(known["DEMO-UTGS-MSPBS-REFERRAL"], code="MINNA-MSPBS", requester="MINNA")
        async with runtime.database.transaction() as connection:
            await agreements.put_agreement(connection, ours, at=START)
        async with runtime.database.connection() as connection:
            await runtime.policies.load(connection)
        yield Desk(runtime)


def _shortest(state: str) -> tuple[str, list[str]]:
    """Return where to start and which events lead to a state, by way of a chosen recipient."""
    first = states.OPEN if state == states.OPEN else states.CREATED
    ways: dict[str, list[str]] = {first: []}
    waiting = [first]
    while state not in ways:
        at = waiting.pop(0)
        for (before, event), after in states.TRANSITIONS.items():
            if before == at and after not in ways:
                ways[after] = [*ways[at], event]
                waiting.append(after)
    return first, ways[state]
