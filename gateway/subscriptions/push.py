"""Hands events on and calls webhooks, in every worker: shared out by locks in the database, so any may be killed.

An event is called until it was taken, each referral in its order; an address that fails is asked ever less often, with
one event at a time, and given up after days, with a notice to its institution.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import Row, and_, case, exists, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.errors import AuditError
from audit.service import AuditLog
from consent.policy import PolicyStore
from gateway import evidence
from gateway.clock import utc_now
from gateway.database import Database
from gateway.events.calls import WITHIN_S, Post, Reply, calling
from gateway.events.tables import event
from gateway.governance import notices
from gateway.governance.notices import NewNotice
from gateway.subscriptions import queue
from gateway.subscriptions.audience import Boards
from gateway.subscriptions.models import ACTIVE, DISABLED, UNVERIFIED
from gateway.subscriptions.queue import Item
from gateway.subscriptions.service import OLD_SECRET, SECRET
from gateway.subscriptions.signing import signed_headers
from gateway.subscriptions.tables import subscription, waiting
from gateway.vault import Vault
from schemas.canonical import canonical_json
from schemas.errors import DecryptionError, SchemaError
from schemas.ids import uuid7
from schemas.validation import parse_json

KEPT_DAYS = 30
_GIVEN_UP_AFTER = timedelta(days=5)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 6 * 3600.0
_IDLE_S, _MEASURE_S, _PRUNE_S = 0.5, 60.0, 3600.0
_AT_ONCE, _PER_ROUND = 8, 16
# All calls of a round run at the same time; a worker that dies in the middle is waited for no longer than this.
_BUSY = timedelta(seconds=2 * WITHIN_S)
_GONE = 410
_AWAY = (SQLAlchemyError, psycopg.Error, OSError)

_log = structlog.get_logger(__name__)
_handed_on = Counter("siis_events_handed_on_total", "Events given to the subscriptions that want them")
_calls = Counter("siis_subscription_calls_total", "Calls to webhooks of subscriptions", ["institution", "outcome"])
_backlog = Gauge("siis_subscription_waiting", "Events not taken yet", ["institution", "channel"])
_oldest = Gauge(
    "siis_subscription_oldest_timestamp_seconds",
    "When the oldest event not taken yet happened; 0: none waits",
    ["institution", "channel"],
)
_disabled = Gauge("siis_subscriptions_disabled", "Subscriptions disabled because their address failed", ["institution"])


class Push:
    """The part of a worker that tells others what happened."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        audit: AuditLog,
        policies: PolicyStore,
        boards: Boards,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database, self._vault, self._audit, self._policies = database, vault, audit, policies
        self._boards, self._now = boards, now
        self._labels: set[tuple[str, str]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Hand events on and call webhooks until ``stop``; a database that goes away is waited for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._again(stop, self.hand_on, _IDLE_S))
            tasks.create_task(self._call_all(stop))
            tasks.create_task(self._again(stop, self.measure, _MEASURE_S))
            tasks.create_task(self._again(stop, self.drop_old, _PRUNE_S))

    async def _again(self, stop: asyncio.Event, step: Callable[[], Awaitable[bool]], pause_s: float) -> None:
        while not stop.is_set():
            more = False
            try:
                more = await step()
            except _AWAY as error:
                _log.warning("push.database_away", error=type(error).__name__)
            if not more:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause_s)

    async def hand_on(self) -> bool:
        """Give what is pending to the subscriptions; say whether there was any."""
        async with self._database.transaction() as connection:
            handed = await queue.hand_on(connection, self._boards, self._now())
        _handed_on.inc(handed)
        return handed > 0

    async def measure(self) -> bool:
        """Set what is shown of the backlog."""
        of = (subscription.c.institution, subscription.c.channel)
        depth = (
            select(*of, func.count(waiting.c.position).label("depth"), func.min(event.c.at).label("oldest"))
            .outerjoin_from(subscription, waiting, waiting.c.subscription_id == subscription.c.id)
            .outerjoin(event, event.c.id == waiting.c.event_id)
            .group_by(*of)
        )
        off = select(
            subscription.c.institution, func.count(case((subscription.c.state == DISABLED, 1))).label("disabled")
        ).group_by(subscription.c.institution)
        async with self._database.connection() as connection:
            rows = (await connection.execute(depth)).all()
            disabled = (await connection.execute(off)).all()
        shown = {(row.institution, row.channel) for row in rows}
        for gone in self._labels - shown:
            _backlog.remove(*gone)
            _oldest.remove(*gone)
        self._labels = shown
        for row in rows:
            _backlog.labels(row.institution, row.channel).set(row.depth)
            _oldest.labels(row.institution, row.channel).set(0 if row.oldest is None else row.oldest.timestamp())
        for row in disabled:
            _disabled.labels(row.institution).set(row.disabled)
        return False

    async def drop_old(self) -> bool:
        """Drop events that nobody took for :data:`KEPT_DAYS` days; who missed some is told of the gap."""
        at = self._now()
        async with self._database.transaction() as connection:
            await queue.drop_old(connection, at - timedelta(days=KEPT_DAYS), at)
        return False

    async def _call_all(self, stop: asyncio.Event) -> None:
        """Call the webhooks that are due, several at once, so that a slow one keeps nobody waiting."""
        running: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            try:
                claimed = await self._claim(_AT_ONCE - len(running)) if len(running) < _AT_ONCE else []
            except _AWAY as error:
                _log.warning("push.database_away", error=type(error).__name__)
                claimed = []
            running |= {asyncio.create_task(self._call(row)) for row in claimed}
            if running:
                done, running = await asyncio.wait(running, timeout=_IDLE_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _IDLE_S)
        await asyncio.gather(*running)

    async def _claim(self, limit: int) -> list[Row[Any]]:
        """Return webhooks that are due, and nobody else's for the time of a round of calls."""
        row, at = subscription.c, self._now()
        something = exists().where(waiting.c.subscription_id == row.id, waiting.c.due_at <= at, queue.FIRST)
        due = (
            select(row.id)
            .where(
                row.channel == "webhook",
                row.state != DISABLED,
                or_(row.busy_until.is_(None), row.busy_until < at),
                or_(row.retry_at.is_(None), row.retry_at <= at),
                or_(row.state == UNVERIFIED, something),
                # A suspended institution is told nothing; what it may still learn waits for the end of that.
                row.institution.not_in(sorted(self._policies.current.suspended)),
            )
            .order_by(row.retry_at.asc().nulls_first(), row.taken_at.asc().nulls_first())
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        claim = update(subscription).where(row.id.in_(due)).values(busy_until=at + _BUSY).returning(subscription)
        async with self._database.transaction() as connection:
            return list((await connection.execute(claim)).all())

    async def _call(self, row: Row[Any]) -> None:
        try:
            async with calling(row.url) as post:
                await (self._verify(row, post) if row.state == UNVERIFIED else self._tell(row, post))
        except (*_AWAY, AuditError, DecryptionError) as error:
            # Left as it is until it is nobody's again; what was taken and could not be noted is repeated under its id.
            _log.warning("push.call_not_noted", subscription=str(row.id), error=type(error).__name__)

    async def _verify(self, row: Row[Any], post: Post) -> None:
        """Ask an address to repeat a word, which shows that whoever is there expects events."""
        word = secrets.token_urlsafe(24)
        ping_id, at = str(uuid7()), self._now()
        said = {
            "id": ping_id,
            "type": "subscription.ping",
            "timestamp": at.isoformat(),
            "data": {"subscription": str(row.id), "challenge": word},
        }
        body = canonical_json(said)
        reply = await post(body, signed_headers(ping_id, at, body, self._secrets(row, at)))
        verified = reply.taken and _repeats(reply, word)
        values = _well(at) | {"state": ACTIVE} if verified else self._ill(row, [reply], at)
        async with self._database.transaction() as connection:
            if await queue.lock(connection, row.id):
                await self._note(connection, row, values, at)

    async def _tell(self, row: Row[Any], post: Post) -> None:
        """Call an address with the next events, and note what came of it."""
        at = self._now()
        # An address that fails is tried with one event, not with all that wait.
        limit = 1 if row.failing_since is not None else _PER_ROUND
        async with self._database.transaction() as connection:
            if not await queue.lock(connection, row.id):
                return
            items = await queue.take(connection, row, self._boards, at, limit=limit, heads=True)
        replies = await asyncio.gather(*(self._send(row, post, item, at) for item in items))
        both = list(zip(items, replies, strict=True))
        taken = [item for item, reply in both if reply.taken]
        failed = [(item, reply) for item, reply in both if not reply.taken]
        _calls.labels(row.institution, "taken").inc(len(taken))
        at, values = self._now(), dict[str, Any]()
        if taken:
            values = _well(at)
        elif failed:
            values = self._ill(row, [reply for _item, reply in failed], at)
        async with self._database.transaction() as connection:
            if not await queue.lock(connection, row.id):
                return
            await queue.confirm(connection, row.id, [item.event_id for item in taken])
            for item, _reply in failed:
                await queue.put_off(connection, row.id, [item], at + _wait(item.attempts))
            await self._note(connection, row, values, at)

    async def _send(self, row: Row[Any], post: Post, item: Item, at: datetime) -> Reply:
        body = canonical_json(item.message)
        return await post(body, signed_headers(str(item.event_id), at, body, self._secrets(row, at)))

    def _secrets(self, row: Row[Any], at: datetime) -> list[str]:
        using = [self._vault.open(SECRET, row.id, bytes(row.secret))]
        if row.old_secret is not None and row.old_secret_until > at:
            using.append(self._vault.open(OLD_SECRET, row.id, bytes(row.old_secret)))
        return using

    def _ill(self, row: Row[Any], failures: list[Reply], at: datetime) -> dict[str, Any]:
        """Return what a round in which nothing was taken makes of a subscription."""
        _calls.labels(row.institution, "failed").inc(len(failures))
        _log.warning("subscription.not_taken", subscription=str(row.id), status=failures[0].status)
        since = row.failing_since or at
        values = {"failures": row.failures + 1, "failing_since": since, "retry_at": at + _wait(row.failures)}
        if at - since >= _GIVEN_UP_AFTER or any(reply.status == _GONE for reply in failures):
            values["state"] = DISABLED
        return values

    async def _note(self, connection: AsyncConnection, row: Row[Any], values: dict[str, Any], at: datetime) -> None:
        # Whoever changed the subscription meanwhile has the last word on its state.
        same = and_(subscription.c.id == row.id, subscription.c.state == row.state)
        changed = await connection.execute(update(subscription).where(same).values(busy_until=None, **values))
        if changed.rowcount and values.get("state") == DISABLED:
            await self._give_up(connection, row, at)

    async def _give_up(self, connection: AsyncConnection, row: Row[Any], at: datetime) -> None:
        entry = evidence.entry(
            "subscription.disabled",
            "failed",
            at=at,
            policy_version="none",
            what={"subscription": str(row.id), "institution": row.institution},
        )
        await self._audit.stage(connection, entry)
        told = NewNotice(
            kind="subscription-disabled",
            origin=row.institution,
            reference=row.id,
            entry_id=entry.id,
            audience_institution=row.institution,
            audience_role="supervisor",
        )
        await notices.write(connection, [told], at=at)


def _well(at: datetime) -> dict[str, Any]:
    return {"failures": 0, "failing_since": None, "retry_at": None, "taken_at": at}


def _wait(failures: int) -> timedelta:
    """Return the pause after so many failures before this one: doubled each time, with a tenth of jitter."""
    seconds = min(_FIRST_WAIT_S * 2.0 ** min(failures, 32), _LONGEST_WAIT_S)
    return timedelta(seconds=seconds * random.uniform(0.9, 1.1))  # noqa: S311


def _repeats(reply: Reply, word: str) -> bool:
    try:
        answer = parse_json(reply.body)
    except SchemaError:
        return False
    return isinstance(answer, dict) and answer.get("challenge") == word
