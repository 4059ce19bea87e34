"""A small world of referrals that walk the real state table, and the funnel counted naively from their events."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import evidence
from gateway.cli.context import Context
from gateway.clock import local_day
from gateway.referrals import moves, store
from gateway.referrals.tables import referral, referral_event
from gateway.registry import service as registry
from gateway.registry.models import NewPerson
from schemas.ids import uuid7

GIVEN = ("provided", "partly_provided")


@dataclass(frozen=True)
class Made:
    """A referral of the world."""

    id: UUID
    person: UUID


class World:
    """Makes persons, referrals and their events through what the gateway itself uses."""

    def __init__(self, context: Context) -> None:
        self.context = context

    async def person(self, cedula: str | None = None) -> UUID:
        """Register a person."""
        known = () if cedula is None else (("cedula", cedula),)
        new = NewPerson(id=uuid7(), given_names="Ña Eme", surnames="Ficticia", identifiers=known)
        async with self.context.database.transaction() as connection:
            await registry.register(connection, self.context.vault, [new])
        return new.id

    async def refer(
        self,
        at: datetime,
        *,
        person: UUID | None = None,
        service: str = "health-control",
        requester: str = "UTGS",
        recipient: str = "MSPBS",
        channel: str = "api",
        gap_since: date | None = None,
        state: str = "created",
        **columns: Any,
    ) -> Made:
        """Make a referral."""
        who = person or await self.person()
        made = Made(uuid7(), who)
        vault = self.context.vault
        texts = vault.seal("referral.texts", made.id, json.dumps({"reason": "", "case": None}))
        async with self.context.database.transaction() as connection:
            await connection.execute(
                insert(referral).values(
                    id=made.id,
                    person_id=who,
                    service=service,
                    requester=requester,
                    recipient=recipient,
                    client_id="test",
                    purpose="service-access-determination",
                    basis="official-authority",
                    caller={"channel": channel},
                    reason_code="protection-gap",
                    texts=texts,
                    priority="routine",
                    state=state,
                    delivery="pending",
                    created_at=at,
                    gap_since=gap_since,
                    additional=True,
                    **columns,
                )
            )
            current = await store.by_id(connection, made.id)
            assert current is not None
            await store.add_event(connection, vault, current, "create", actor=requester, at=at)
        return made

    async def move(
        self, made: Made, event: str, at: datetime, *, outcome: str | None = None, reason: str | None = None
    ) -> str:
        """Move a referral; return its state."""
        facts = {name: value for name, value in (("outcome", outcome), ("reason", reason)) if value is not None}
        async with self.context.database.transaction() as connection:
            current = await store.by_id(connection, made.id, lock=True)
            assert current is not None
            entry = evidence.entry("counterreferral.received", "done", at=at, policy_version="none")
            await moves.perform(
                connection,
                self.context.vault,
                self.context.audit,
                current,
                event,
                entry,
                actor=current.recipient,
                at=at,
                occurred_on=local_day(at),
                facts=facts,
                outcome=outcome,
                reason=reason,
            )
            moved = await store.by_id(connection, made.id)
            assert moved is not None
            return moved.state


@dataclass
class _Story:
    made_at: datetime
    gap_since: date | None
    pair: tuple[UUID, str]
    door: tuple[str, str]
    delivery: str
    received: datetime | None = None
    accepted: datetime | None = None
    closed: datetime | None = None
    outcome: str | None = None
    reason: str | None = None
    state: str = "created"
    changed: datetime | None = None
    no_shows: int = 0
    reopened: int = 0

    def tell(self, event: Any) -> None:
        """Take the next event."""
        self.state = event.state_after
        match event.type:
            case "send":
                self.received = event.at
            case "accept" | "claim":
                self.accepted = event.at
            case "no_show":
                self.no_shows += 1
            case "reopen":
                self.reopened += 1
                self.closed = self.outcome = self.reason = None
        if event.state_after in ("rejected", "cancelled", "completed"):
            self.closed, self.reason = event.at, event.facts.get("reason")
            self.outcome = event.facts.get("outcome")

    @property
    def place(self) -> tuple[str, str]:
        if self.outcome in GIVEN:
            return ("status_changed", "changed") if self.changed else ("delivered", "unchanged")
        step = "accepted" if self.accepted else "received" if self.received else "referred"
        ends = {"rejected": "rejected", "cancelled": "cancelled", "completed": "not_provided"}
        waiting = {"withheld": "withheld", "rejected": "undeliverable"}.get(self.delivery, "waiting")
        return step, ends.get(self.state, waiting if step == "referred" else "waiting")

    @property
    def times(self) -> dict[str, float | None]:
        given = self.outcome in GIVEN
        taken = self.received or self.accepted
        days = None if self.gap_since is None else (local_day(self.made_at) - self.gap_since) / timedelta(seconds=1)
        return {
            "gap_to_referral": None if days is None else max(days, 0.0),
            "referral_to_receipt": _seconds(self.made_at, taken),
            "receipt_to_acceptance": _seconds(taken, self.accepted),
            "acceptance_to_delivery": _seconds(self.accepted, self.closed) if given else None,
            "delivery_to_status": _seconds(self.closed, self.changed) if given else None,
            "referral_to_delivery": _seconds(self.made_at, self.closed) if given else None,
        }


async def naive(connection: AsyncConnection) -> dict[str, Any]:
    """Count everything from the events, one referral after the other; what no event tells comes from the row."""
    stories: dict[UUID, _Story] = {}
    for row in await connection.execute(select(referral).order_by(referral.c.id)):
        stories[row.id] = _Story(
            made_at=row.created_at,
            gap_since=row.gap_since,
            pair=(row.person_id, row.service),
            door=(row.caller["channel"], row.requester),
            delivery=row.delivery,
            changed=row.status_changed_at,
        )
    events = select(referral_event).order_by(referral_event.c.referral_id, referral_event.c.number)
    for event in await connection.execute(events):
        stories[event.referral_id].tell(event)
    every = list(stories.values())
    pairs = Counter(story.pair for story in every)
    return {
        "places": Counter(story.place for story in every),
        "times": {
            code: _median_and_p90([story.times[code] for story in every]) for code in (every[0].times if every else ())
        },
        "reasons": Counter((story.place[1], story.reason) for story in every if story.reason is not None),
        "doors": Counter(story.door for story in every),
        "no_shows": (sum(story.no_shows > 0 for story in every), sum(story.no_shows for story in every)),
        "reopened": (sum(story.reopened > 0 for story in every), sum(story.reopened for story in every)),
        "repeated": (sum(pairs.values()) - len(pairs), sum(n > 1 for n in pairs.values())),
    }


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    if start is None or end is None or end < start:
        return None
    return (end - start) / timedelta(seconds=1)


def _median_and_p90(values: list[float | None]) -> tuple[int, float | None, float | None]:
    known = sorted(value for value in values if value is not None)
    if not known:
        return 0, None, None
    return len(known), known[math.ceil(len(known) / 2) - 1], known[math.ceil(len(known) * 0.9) - 1]
