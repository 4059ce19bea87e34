"""Subscriptions for the faces: who may have which, their secrets, and pulling what waits and confirming it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import Actor, Caller
from gateway import errors
from gateway.catalogue.service import institutions, services
from gateway.commands import Command, Done
from gateway.events.calls import may_be_called
from gateway.governance.service import Governance, Work
from gateway.subscriptions import queue, refusals
from gateway.subscriptions.audience import Boards
from gateway.subscriptions.models import ACTIVE, CANDIDATE, UNVERIFIED, Filter, NewSubscription, Subscription
from gateway.subscriptions.signing import new_secret
from gateway.subscriptions.tables import subscription, waiting
from gateway.vault import Vault
from schemas import geography
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier, UnknownCode
from schemas.ids import uuid7

MANAGE, READ = "event.manage", "event.read"
SECRET, OLD_SECRET = "subscription.secret", "subscription.old_secret"
#: For how long the secret before still signs, too.
OVERLAP = timedelta(days=1)
MOST = 20
PARTS = (CANDIDATE, "recipient", "requester")


class Pulled(NamedTuple):
    """Events handed out until an instant; ``more``: others are due already."""

    messages: list[dict[str, Any]]
    until: datetime
    more: bool


class Subscriptions:
    """The subscriptions of institutions; each sees and changes its own."""

    def __init__(self, *, governance: Governance, vault: Vault, boards: Boards, local: bool) -> None:
        """``local``: this gateway itself is reached by plain http, on this machine; then so may a webhook be."""
        self._governance, self._vault, self._boards, self._local = governance, vault, boards, local

    async def create(self, caller: Caller, new: NewSubscription, command: Command) -> tuple[Done, str | None]:
        """Create a subscription of the caller's institution; return the answer and the secret of a webhook.

        The secret is shown here only: the repetition of the command gets the same answer without it. Raises
        BadRequest for unknown codes or an address that may not be called, Conflict when there are too many.
        """
        secret = new_secret() if new.channel == "webhook" else None
        done = await self._governance.change(caller, MANAGE, self.creating(new, secret), command=command)
        return done, None if done.replayed else secret

    async def renew(self, caller: Caller, subscription_id: UUID, command: Command) -> tuple[Done, str | None]:
        """Give a webhook another secret; the one before signs too for a day. Raises NotFound, Conflict."""
        secret = new_secret()
        done = await self._governance.change(caller, MANAGE, self.renewing(subscription_id, secret), command=command)
        return done, None if done.replayed else secret

    async def change(self, caller: Caller, work: Work) -> Done:
        """Do one of the works below for an institution's own subscription."""
        return await self._governance.change(caller, MANAGE, work)

    async def read(self, caller: Caller, subscription_id: UUID) -> Subscription:
        """Show a subscription of the caller's institution with how many events wait; raises NotFound for any other."""
        await self._governance.authorise(caller, MANAGE, READ)
        found = await self.search(caller.institution, only=subscription_id, limit=1)
        if not found:
            raise errors.NotFound("not-found")
        return found[0]

    async def page(self, caller: Caller, *, after: UUID | None, limit: int) -> list[Subscription]:
        """Return the subscriptions of the caller's institution by id."""
        await self._governance.authorise(caller, MANAGE, READ)
        return await self.search(caller.institution, after=after, limit=limit)

    async def search(
        self, institution: str | None, *, only: UUID | None = None, after: UUID | None = None, limit: int
    ) -> list[Subscription]:
        """Return subscriptions by id, of one institution or all, with how many events wait for each."""
        depth = select(func.count()).where(waiting.c.subscription_id == subscription.c.id).scalar_subquery()
        query = select(subscription, depth.label("waiting")).order_by(subscription.c.id).limit(limit)
        for column, value in (("institution", institution), ("id", only)):
            if value is not None:
                query = query.where(subscription.c[column] == value)
        if after is not None:
            query = query.where(subscription.c.id > after)
        async with self._governance.database.connection() as connection:
            return [_subscription(row) for row in await connection.execute(query)]

    async def next(self, caller: Caller, subscription_id: UUID, *, limit: int, lease: timedelta) -> Pulled:
        """Hand out the next events of a subscription; those not confirmed when ``lease`` is over come again.

        Events of one referral come in their order: none while an earlier one is handed out. Raises NotFound for a
        subscription of somebody else, Conflict for one that is called.
        """
        await self._governance.authorise(caller, READ)
        at = self._governance.now()
        async with self._governance.database.transaction() as connection:
            row = await self._pulled(connection, caller, subscription_id)
            items = await queue.take(connection, row, self._boards, at, limit=limit + 1)
            handed, until = items[:limit], at + lease
            await queue.put_off(connection, row.id, handed, until)
            await connection.execute(update(subscription).where(subscription.c.id == row.id).values(taken_at=at))
        return Pulled([item.message for item in handed], until, len(items) > limit)

    async def confirm(self, caller: Caller, subscription_id: UUID, event_ids: Sequence[UUID]) -> int:
        """Take events off a subscription, again is harmless; return how many were on it. Raises as :meth:`next`."""
        await self._governance.authorise(caller, READ)
        async with self._governance.database.transaction() as connection:
            row = await self._pulled(connection, caller, subscription_id)
            return await queue.confirm(connection, row.id, event_ids)

    # Work, done for an institution or for whoever runs the machine

    def creating(self, new: NewSubscription, secret: str | None) -> Work:
        """Create a subscription; a webhook with its ``secret`` is called only once its address repeated a word."""
        if (new.channel == "webhook") != (new.url is not None):
            raise refusals.url_missing()
        if new.url is not None and not may_be_called(new.url, local=self._local):
            raise refusals.bad_url()

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            institution = new.institution if actor.institution is None else actor.institution
            if institution is None or institution not in (known := await institutions(connection)):
                raise refusals.unknown_code("/institution", known)
            await _check(connection, new.wanted)
            mine = select(func.count()).where(subscription.c.institution == institution)
            if (await connection.scalar(mine) or 0) >= MOST:
                raise refusals.too_many(MOST)
            subscription_id = uuid7()
            wanted = {name: sorted(getattr(new.wanted, name)) for name in Filter.__dataclass_fields__}
            state = UNVERIFIED if new.channel == "webhook" else ACTIVE
            row = {"id": subscription_id, "institution": institution, "channel": new.channel, "state": state}
            sealed = None if secret is None else self._vault.seal(SECRET, subscription_id, secret)
            await connection.execute(
                insert(subscription).values(**row, **wanted, url=new.url, secret=sealed, created_at=at)
            )
            return _said(
                "subscription.created", subscription_id, institution, channel=new.channel, state=state, **wanted
            )

        return work

    def renewing(self, subscription_id: UUID, secret: str) -> Work:
        """Give a webhook another secret."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            row = await _own(connection, subscription_id, actor.institution)
            if row.channel != "webhook":
                raise refusals.other_channel()
            until = at + OVERLAP
            before = self._vault.open(SECRET, row.id, bytes(row.secret))
            await connection.execute(
                update(subscription)
                .where(subscription.c.id == row.id)
                .values(
                    secret=self._vault.seal(SECRET, row.id, secret),
                    old_secret=self._vault.seal(OLD_SECRET, row.id, before),
                    old_secret_until=until,
                )
            )
            return _said("subscription.secret_renewed", row.id, row.institution, old_secret_until=until.isoformat())

        return work

    def enabling(self, subscription_id: UUID) -> Work:
        """Let a webhook be called again at once, after its address repeated a word; what waited is still there."""

        async def work(connection: AsyncConnection, actor: Actor, _at: datetime) -> dict[str, Any]:
            row = await _own(connection, subscription_id, actor.institution)
            if row.channel != "webhook":
                raise refusals.other_channel()
            values = {"state": UNVERIFIED, "failures": 0, "failing_since": None, "retry_at": None}
            await connection.execute(update(subscription).where(subscription.c.id == row.id).values(values))
            return _said("subscription.enabled", row.id, row.institution, state=UNVERIFIED)

        return work

    def removing(self, subscription_id: UUID) -> Work:
        """Delete a subscription with its secret and all that waits."""

        async def work(connection: AsyncConnection, actor: Actor, _at: datetime) -> dict[str, Any]:
            row = await _own(connection, subscription_id, actor.institution)
            await connection.execute(delete(subscription).where(subscription.c.id == row.id))
            return _said("subscription.removed", row.id, row.institution)

        return work

    async def _pulled(self, connection: AsyncConnection, caller: Caller, subscription_id: UUID) -> Row[Any]:
        row = await _own(connection, subscription_id, caller.institution)
        if row.channel != "pull":
            raise refusals.other_channel()
        return row


async def _own(connection: AsyncConnection, subscription_id: UUID, institution: str | None) -> Row[Any]:
    """Return a subscription's row, locked; ``institution`` None is whoever runs the machine. Raises NotFound."""
    query = select(subscription).where(subscription.c.id == subscription_id)
    if institution is not None:
        query = query.where(subscription.c.institution == institution)
    row = (await connection.execute(query.with_for_update())).one_or_none()
    if row is None:
        raise errors.NotFound("not-found")
    return row


async def _check(connection: AsyncConnection, wanted: Filter) -> None:
    known = await services(connection)
    for name, allowed in (
        ("types", [code for code in code_list("event-types") if code != queue.GAP]),
        ("services", list(known)),
        ("departments", [each.ine for each in geography.departments()]),
        ("parts", list(PARTS)),
    ):
        given = getattr(wanted, name)
        if not given <= set(allowed):
            raise refusals.unknown_code(f"/{name}", allowed)
    for code in sorted(wanted.districts):
        try:
            geography.district(code)
        except (InvalidIdentifier, UnknownCode):
            raise refusals.unknown_code("/districts", _districts_near(code)) from None


def _districts_near(code: str) -> Iterable[str]:
    """Return the districts that may have been meant: those of the department that the code begins with, else all."""
    near = [place for place in geography.departments() if place.ine == code[:2]] or geography.departments()
    return [district.ine for place in near for district in geography.districts(place.ine)]


def _subscription(row: Row[Any]) -> Subscription:
    copied = {name: getattr(row, name) for name in Subscription.__dataclass_fields__ if name != "wanted"}
    return Subscription(**copied, wanted=queue.filter_of(row))


def _said(event: str, subscription_id: UUID, institution: str, **more: Any) -> dict[str, Any]:
    return {
        "event": event,
        "subscription": str(subscription_id),
        "institution": institution,
        **more,
    }
