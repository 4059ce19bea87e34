"""Institutions that are told of events, and receivers on real sockets that read Standard Webhooks by themselves."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from rights_office import START, Office
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import Caller
from gateway.boards.store import acting_for
from gateway.commands import Command
from gateway.events.tables import event
from gateway.referrals import store
from gateway.referrals.milestones import milestones
from gateway.referrals.tables import referral
from gateway.subscriptions import queue
from gateway.subscriptions.models import Filter, NewSubscription, Subscription
from gateway.subscriptions.push import Push
from gateway.subscriptions.service import Subscriptions
from gateway.subscriptions.tables import subscription, waiting
from schemas.ids import uuid7

#: (department, district) of the referrals of these tests.
ASUNCION = ("00", "0000")
ASKS, GIVES, ELSE, ALL = "MDS", "SNPP", "MTESS", "UTGS"
_CEDULAS = count(700_001)


@dataclass
class Desk:
    """What the tests of events do at an office."""

    office: Office
    subscriptions: Subscriptions
    push: Push
    service: str

    async def refer(self, *, recipient: str = GIVES, requester: str = ASKS, priority: str = "routine") -> UUID:
        """Create a referral with its first event; return its id."""
        person = await self.office.person(str(next(_CEDULAS)))
        referral_id = uuid7()
        async with self.office.context.database.transaction() as connection:
            await connection.execute(
                insert(referral).values(
                    id=referral_id,
                    person_id=person,
                    service=self.service,
                    requester=requester,
                    recipient=recipient,
                    client_id="test",
                    purpose="service-provision",
                    basis="public-task",
                    caller={},
                    reason_code="gap-found",
                    texts=self.office.context.vault.seal("referral.texts", referral_id, "{}"),
                    priority=priority,
                    state="created",
                    delivery="pending",
                    created_at=self.office.at,
                    department=ASUNCION[0],
                    district=ASUNCION[1],
                )
            )
            await self.add(connection, referral_id, "create")
        return referral_id

    async def add(self, connection: AsyncConnection, referral_id: UUID, kind: str, actor: str = ASKS) -> None:
        """Append an event of a referral in a transaction."""
        current = await store.by_id(connection, referral_id, lock=True)
        assert current is not None
        vault = self.office.context.vault
        after = await store.add_event(connection, vault, current, kind, actor=actor, at=self.office.at)
        await store.change(connection, referral_id, **milestones(kind, after, self.office.at))

    async def move(self, referral_id: UUID, *kinds: str, actor: str = GIVES) -> None:
        """Append events of a referral, each in its own transaction."""
        for kind in kinds:
            async with self.office.context.database.transaction() as connection:
                await self.add(connection, referral_id, kind, actor)

    async def change(self, referral_id: UUID, **values: Any) -> None:
        """Set columns of a referral."""
        async with self.office.context.database.transaction() as connection:
            await connection.execute(update(referral).where(referral.c.id == referral_id).values(**values))

    async def subscribe(self, institution: str, url: str | None = None, **wanted: Sequence[str]) -> tuple[UUID, str]:
        """Subscribe an institution, by webhook if there is an address; return the id and the secret."""
        filters = Filter(**{name: frozenset(codes) for name, codes in wanted.items()})
        new = NewSubscription(channel="pull" if url is None else "webhook", wanted=filters, url=url)
        command = Command(f"client-{institution}", str(uuid7()), b"{}")
        done, secret = await self.subscriptions.create(system(institution), new, command)
        return UUID(done.answer["subscription"]), secret or ""

    async def state(self, institution: str, subscription_id: UUID) -> Subscription:
        """Return a subscription as its institution sees it."""
        return await self.subscriptions.read(system(institution), subscription_id)

    async def pull(self, institution: str, subscription_id: UUID, limit: int = 100, lease_s: int = 60) -> list[Any]:
        """Hand events on, and pull those of a subscription."""
        while await self.push.hand_on():
            pass
        lease = timedelta(seconds=lease_s)
        pulled = await self.subscriptions.next(system(institution), subscription_id, limit=limit, lease=lease)
        return pulled.messages

    async def clear(self) -> None:
        """Take away what other tests left."""
        async with self.office.context.database.transaction() as connection:
            for table in (waiting, subscription, event):
                await connection.execute(table.delete())

    async def count(self, table: Any) -> int:
        """Return how many rows a table has."""
        async with self.office.context.database.connection() as connection:
            return await connection.scalar(select(func.count()).select_from(table)) or 0

    async def drop_old(self, days: int) -> None:
        """Drop what is older than days, by the office's clock."""
        async with self.office.context.database.transaction() as connection:
            await queue.drop_old(connection, self.office.at - timedelta(days=days), self.office.at)

    @asynccontextmanager
    async def pushing(self) -> AsyncIterator[None]:
        """Run what a worker runs."""
        stop = asyncio.Event()
        running = asyncio.create_task(self.push.run(stop))
        yield
        stop.set()
        await running


def make_desk(office: Office, service: str) -> Desk:
    """Open the desk of an office."""
    office.at = START
    context = office.context
    return Desk(
        office,
        Subscriptions(governance=office.governance, vault=context.vault, boards=acting_for, local=True),
        Push(
            database=context.database,
            vault=context.vault,
            audit=context.audit,
            policies=office.policies,
            boards=acting_for,
            now=lambda: office.at,
        ),
        service,
    )


def system(institution: str) -> Caller:
    """Return an institution's system without an operator."""
    return Caller(
        client_id=f"client-{institution}",
        institution=institution,
        user=None,
        user_verified=False,
        roles=frozenset({"system"}),
        assurance=2,
    )


def kinds(messages: Sequence[Any], referral_id: UUID | None = None) -> list[str]:
    """Return the types of messages in their order, of one referral or all."""
    return [
        each["type"] for each in messages if referral_id is None or each["data"].get("referral") == str(referral_id)
    ]


async def until(condition: Callable[[], bool | Awaitable[bool]], within_s: float = 30) -> None:
    """Ask again until a condition holds; fails the test when it never does."""
    async with asyncio.timeout(within_s):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.02)


@dataclass
class Receiver:
    """An institution's endpoint: what came, and how it answers."""

    url: str = ""
    status: int = 204
    echoes: bool = True
    #: Answers of its own for a message; None leaves it to ``status``.
    judge: Callable[[dict[str, Any]], int | None] = lambda _message: None
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The events that came, without pings."""
        said = [json.loads(body) for _headers, body in self.calls]
        return [each for each in said if each["type"] != "subscription.ping"]

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """Answer a call."""
        message = json.loads(body)
        if message["type"] == "subscription.ping" and self.echoes:
            return 200, json.dumps({"challenge": message["data"]["challenge"]}).encode()
        judged = self.judge(message)
        return (self.status if judged is None else judged), b""


@asynccontextmanager
async def receiving(receiver: Receiver) -> AsyncIterator[Receiver]:
    """Listen on a port of this machine."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _colon, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        receiver.calls.append((headers, body))
        status, said = receiver.answer(body)
        more = f"Location: {receiver.url}/elsewhere\r\n" if 300 <= status < 400 else ""
        length = f"Content-Length: {len(said)}\r\n" if status != 204 else ""
        writer.write(f"HTTP/1.1 {status} X\r\n{more}{length}Connection: close\r\n\r\n".encode() + said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/avisos"
    async with server:
        yield receiver


def verified(headers: dict[str, str], body: bytes, secret: str, now: datetime) -> bool:
    """Verify a call as a receiver does: any one signature, and a time within five minutes."""
    if abs(int(headers["webhook-timestamp"]) - now.timestamp()) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return expected in headers["webhook-signature"].split(" ")
