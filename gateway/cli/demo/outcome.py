"""What the cycle came to: where each referral stands, what was lost, and funnel and achievements before and after."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue import service as catalogue
from gateway.cli.context import Context
from gateway.cli.demo.clients import Caller
from gateway.cli.demo.orientation import Gap
from gateway.cli.demo.processes import Institution
from gateway.cli.demo.story import CHANNELS, Story
from gateway.referrals.states import CANCELLED, TERMINAL
from gateway.referrals.tables import referral, referral_event
from gateway.registry.classify import classify
from gateway.registry.rounds import StatusRounds

_SETTLED_DELIVERY = ("withheld", "rejected", "dead")
_SETTLED_LANE = 12
_LOOK_EVERY_S = 0.3


async def count_status(connection: AsyncConnection) -> tuple[dict[str, int], list[Gap]]:
    """Classify everybody; return counts and the gaps that the three institutions of the demonstration can close."""
    services = await catalogue.services(connection)
    counts: Counter[str] = Counter()
    gaps: list[Gap] = []
    async for item in classify(connection):
        counts[f"{item.kind}s_concurrent"] += item.concurrent
        counts["gaps"] += len(item.gaps)
        counts["services_reached"] += len(item.services) - len(item.gaps)
        for service in item.gaps:
            if service in services and services[service].institution in CHANNELS:
                gaps.append(Gap(item.person_id, service, services[service].institution))
    return dict(counts), gaps


async def keep(context: Context, caller: Caller, kind: str) -> str:
    """Keep the funnel and the achievements as they are now (baseline or follow_up); return the snapshot's number.

    The achievements are those of the newest computation of everybody, so there is one more.
    """
    await StatusRounds(context.database, context.settings.data_dir).everybody("recompute")
    told = await caller.done("/api/v1/statistics/snapshots", {"kind": kind, "scope": {}})
    return str(told["id"])


async def compare(caller: Caller, before: str, after: str) -> dict[str, list[dict[str, Any]]]:
    """Return two snapshots beside each other: ``funnel`` by step, ``achievements`` by category, None where hidden."""
    sides = {"first": {"snapshot": before}, "second": {"snapshot": after}}
    told = await caller.done("/api/v1/statistics/comparison", sides)
    return {
        "funnel": [
            {
                "step": each["step"],
                **{side: each["of_previous"][place]["n"] for side, place in (("before", "first"), ("after", "second"))},
            }
            for each in told["steps"]
        ],
        "achievements": [
            {
                "category": each["category"],
                "before": {name: each["first"][name] for name in ("n", "of")},
                "after": {name: each["second"][name] for name in ("n", "of")},
            }
            for each in told["achievements"]
        ],
    }


async def lanes(caller: Caller) -> list[dict[str, Any]]:
    """Return how delivery stands to each institution that something was sent to, once nothing is under way.

    What a worker transmitted it tells a moment later.
    """
    for _look in range(_SETTLED_LANE):
        found = (await caller.read("/api/v1/delivery"))["lanes"]
        if not any(lane["waiting"] or lane["under_way"] for lane in found):
            break
        await asyncio.sleep(_LOOK_EVERY_S)
    names = ("institution", "waiting", "dead", "transmitted", "retried", "paused")
    busy = [lane for lane in found if lane["waiting"] or lane["dead"] or lane["transmitted"] or lane["retried"]]
    return [{name: lane[name] for name in names} for lane in busy]


async def progress_of(connection: AsyncConnection, ids: list[UUID]) -> dict[str, int]:
    """Count where the acknowledged referrals are; ``open`` is how many may still move by themselves."""
    row = referral.c
    columns = (row.id, row.state, row.delivery, row.attempts, row.received_at, row.outcome, row.status_changed_at)
    rows = (await connection.execute(select(*columns).where(row.id.in_(ids)))).all()
    settled = sum(each.state in TERMINAL or each.delivery in _SETTLED_DELIVERY for each in rows)
    events: dict[str, int] = dict(
        (
            await connection.execute(
                select(referral_event.c.type, func.count(referral_event.c.referral_id.distinct()))
                .where(referral_event.c.referral_id.in_(ids))
                .group_by(referral_event.c.type)
            )
        )
        .tuples()
        .all()
    )
    outcomes = Counter(each.outcome for each in rows)
    return {
        "acknowledged": len(ids),
        "stored": len(rows),
        "transmitted": sum(each.delivery == "transmitted" for each in rows),
        "retried": sum(each.attempts > 1 for each in rows),
        "received": sum(each.received_at is not None for each in rows),
        "accepted": events.get("accept", 0) + events.get("claim", 0),
        "rejected": events.get("decline", 0),
        "appointments": events.get("schedule", 0),
        "no_shows": events.get("no_show", 0),
        "counter_referred": events.get("outcome", 0) + events.get("decline", 0),
        "provided": outcomes["provided"],
        "partly_provided": outcomes["partly_provided"],
        "not_provided": outcomes["not_provided"],
        "status_changed": sum(each.status_changed_at is not None for each in rows),
        "cancelled": sum(each.state == CANCELLED for each in rows),
        "dead_letters": sum(each.delivery in ("dead", "rejected") for each in rows),
        "withheld": sum(each.delivery == "withheld" and each.state != CANCELLED for each in rows),
        "open": len(rows) - settled,
    }


async def delivered_by_channel(connection: AsyncConnection, story: Story) -> dict[str, int]:
    """Count the transmitted referrals by how the system of their recipient is reached."""
    ids = [each for each in story.acknowledged if each not in story.by_hand]
    rows = await connection.execute(
        select(referral.c.recipient, func.count())
        .where(referral.c.id.in_(ids), referral.c.delivery == "transmitted")
        .group_by(referral.c.recipient)
    )
    return {CHANNELS[recipient]: number for recipient, number in rows.tuples()}


async def lost(
    http: httpx.AsyncClient, connection: AsyncConnection, institutions: dict[str, Institution], story: Story
) -> int:
    """Count the obligations not kept: acknowledged ids not stored, sent without their one effect, or left waiting.

    The institutions' own ledgers are the oracle: a referral we say was transmitted must have had its effect once, and
    none where it was taken back before, or claimed by people.
    """
    ids = list(story.acknowledged)
    rows = await connection.execute(select(referral.c.id, referral.c.delivery).where(referral.c.id.in_(ids)))
    stored = {row.id: row.delivery for row in rows}
    effects: Counter[str] = Counter()
    for name in ("mds", "mspbs", "minna"):
        answer = await http.get(f"{institutions[name].control}/_control/ledger")
        answer.raise_for_status()
        effects.update(answer.json()["received"])
    sent = {each for each, delivery in stored.items() if delivery == "transmitted"} - story.by_hand
    never_sent = {each for each, delivery in stored.items() if delivery == "withheld"} | story.by_hand
    missing: int = sum(referral_id not in stored for referral_id in ids)
    wrong: int = sum(effects[str(each)] != 1 for each in sent) + sum(effects[str(each)] for each in never_sent)
    undecided: int = sum(delivery == "pending" for delivery in stored.values())
    return missing + wrong + undecided
