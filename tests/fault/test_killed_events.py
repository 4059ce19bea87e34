"""Workers killed while they tell of events: each event arrives, each referral in order, repeats under the same id."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from sqlalchemy import func, insert, select

from gateway import embedded
from gateway.boards.store import acting_for
from gateway.cli.context import Context, governance_of, open_context
from gateway.cli.db import bring_up
from gateway.clock import utc_now
from gateway.events.tables import event
from gateway.referrals import store
from gateway.referrals.milestones import milestones
from gateway.referrals.tables import referral
from gateway.registry import service as registry
from gateway.registry.models import NewPerson
from gateway.settings import Settings, load_settings
from gateway.subscriptions.models import Filter, NewSubscription
from gateway.subscriptions.service import Subscriptions
from gateway.subscriptions.signing import new_secret
from gateway.subscriptions.tables import waiting
from schemas.ids import uuid7
from tests.house import until

REFERRALS, KILLS = 8, 2
KINDS = ("create", "send", "accept", "schedule", "outcome")


class Receiver:
    """An endpoint that holds back its answers when it is told to; what came is in ``calls``."""

    def __init__(self) -> None:
        self.url, self.answers = "", asyncio.Event()
        self.calls: list[dict[str, object]] = []
        self.answers.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one call."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        message = json.loads(await reader.readexactly(length))
        said = b""
        if message["type"] == "subscription.ping":
            said = json.dumps({"challenge": message["data"]["challenge"]}).encode()
        else:
            self.calls.append(message)
            await self.answers.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
        writer.close()


@asynccontextmanager
async def worker(settings: Settings) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run a worker, and kill it at the end without any warning."""
    environment = {**os.environ, "SIIS_DATA_DIR": str(settings.data_dir)}
    command = [sys.executable, "-m", "gateway.cli", "worker"]
    process = await asyncio.to_thread(subprocess.Popen, command, env=environment)
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)


async def subscribe(context: Context, url: str) -> None:
    subscriptions = Subscriptions(governance=governance_of(context), vault=context.vault, boards=acting_for, local=True)
    new = NewSubscription(channel="webhook", wanted=Filter(), url=url, institution="MDS")
    await governance_of(context).change_here(subscriptions.creating(new, new_secret()))


async def refer(context: Context, number: int) -> UUID:
    """Create a referral of MDS with its first event."""
    person = NewPerson(
        id=uuid7(), given_names="Ña Eme", surnames="Ficticia", identifiers=(("cedula", str(800_000 + number)),)
    )
    new = uuid7()
    async with context.database.transaction() as connection:
        await registry.register(connection, context.vault, [person])
        await connection.execute(
            insert(referral).values(
                id=new,
                person_id=person.id,
                service="health-control",
                requester="MDS",
                recipient="MSPBS",
                client_id="test",
                purpose="service-access-determination",
                basis="official-authority",
                caller={},
                reason_code="protection-gap",
                texts=context.vault.seal("referral.texts", new, "{}"),
                priority="routine",
                state="created",
                delivery="transmitted",
                created_at=utc_now(),
            )
        )
    await happen(context, new, KINDS[0])
    return new


async def happen(context: Context, number: UUID, kind: str) -> None:
    async with context.database.transaction() as connection:
        current = await store.by_id(connection, number, lock=True)
        assert current is not None
        after = await store.add_event(connection, context.vault, current, kind, actor="MSPBS", at=utc_now())
        await store.change(connection, number, **milestones(kind, after, utc_now()))


async def test_events_outlive_the_workers_that_tell_of_them(folders: Callable[[str], Path]) -> None:
    settings = load_settings(data_dir=folders("events"))
    await asyncio.to_thread(bring_up, settings, demonstration=True)
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    try:
        async with open_context(settings) as context, server:
            await subscribe(context, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/avisos")
            numbers = [await refer(context, number) for number in range(REFERRALS)]
            for kill in range(KILLS):
                receiver.answers.clear()
                before = len(receiver.calls)
                async with worker(settings) as process:
                    # Killed in the middle of calls, of which some were taken and could not be noted.
                    await until(reached(process, lambda before=before: len(receiver.calls) > before))  # type: ignore[misc]
                    for number in numbers:
                        await happen(context, number, KINDS[1 + 2 * kill])
                    receiver.answers.set()
                for number in numbers:
                    await happen(context, number, KINDS[2 + 2 * kill])
            async with worker(settings) as process:

                async def told() -> bool:
                    assert process.poll() is None, "the worker ended by itself"
                    return await left(context) == 0

                await until(told, within_s=90)
    finally:
        await asyncio.to_thread(embedded.stop, settings.data_dir)
    came: dict[str, list[str]] = defaultdict(list)
    ids: dict[str, str] = {}
    for message in receiver.calls:
        data = message["data"]
        assert isinstance(data, dict)
        kind, of = str(message["type"]).removeprefix("referral."), str(data["referral"])
        assert ids.setdefault(f"{of} {kind}", str(message["id"])) == message["id"], "the same id in every repetition"
        if kind not in came[of]:
            came[of].append(kind)
    assert came == {str(number): list(KINDS) for number in numbers}


def reached(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        assert process.poll() is None, "the worker ended by itself"
        return condition()

    return asked


async def left(context: Context) -> int:
    """Return how many events are not told of yet."""
    async with context.database.connection() as connection:
        pending = await connection.scalar(select(func.count()).select_from(event).where(event.c.pending))
        return (pending or 0) + (await connection.scalar(select(func.count()).select_from(waiting)) or 0)
