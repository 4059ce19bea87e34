"""Entries to write, and processes that write and number them: real ones, so that they can be killed."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from audit.checkpoint import Signer
from audit.integrator import run
from audit.keys import Epochs
from audit.models import Entry, Receipt
from audit.service import AuditLog
from audit.tables import WRITER_SLOTS

EPOCHS = Epochs(1, {1: bytes(range(32))})
YEAR = 2026
SIGNER = Signer("siis.example/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
#: Who writes by staging says so in its entries.
STAGING, APPENDING = "staging", "appending"
#: The caller's own business: a row that is there if and only if the entry staged with it is.
BUSINESS = ("CREATE TABLE public.business (id uuid PRIMARY KEY)", "GRANT SELECT, INSERT ON public.business TO PUBLIC")
DEADLINE_S = 60
# A server forks the processes of tests: it has imported all they need, so each is there at once.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.audit_writers", "pytest"])


async def own_slots(stack: AsyncExitStack, engine: AsyncEngine, count: int) -> list[AsyncConnection]:
    """Open connections that each write behind a slot of their own, time and again."""
    found: dict[int, AsyncConnection] = {}
    while len(found) < count:
        conn = await stack.enter_async_context(engine.connect())
        slot = (await conn.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one() % WRITER_SLOTS
        await conn.rollback()
        found.setdefault(slot, conn)
    return list(found.values())


def an_entry(subject: UUID | None = None, **changes: Any) -> Entry:
    """Make an entry about a person (a new one if none is given)."""
    values: dict[str, Any] = {
        "at": datetime(YEAR, 10, 13, 14, tzinfo=UTC),
        "type": "disclosure.released",
        "outcome": "permit",
        "policy_version": "2026.1",
        "subject": subject or uuid4(),
        "groups": {"actor": {"institution": "MDS"}, "what": {"dataset": "identity", "released": ["given_names"]}},
    }
    return Entry(**{**values, **changes})


def in_the_year(year: int = YEAR) -> datetime:
    """Return an instant of the year of a log."""
    return datetime(year, 11, 2, 12, tzinfo=UTC)


async def stage(log: AuditLog, engine: AsyncEngine, entry: Entry, *, commit: bool = True) -> Receipt:
    """Do some business and stage an entry in the same transaction."""
    async with engine.connect() as conn:
        await conn.execute(text("INSERT INTO public.business VALUES (:id)"), {"id": entry.id})
        receipt = await log.stage(conn, entry)
        await (conn.commit() if commit else conn.rollback())
    return receipt


@asynccontextmanager
async def writing(url: str, way: str) -> AsyncIterator[Callable[[Entry], Awaitable[Receipt]]]:
    """Open a log for one way in; what is yielded writes an entry and returns once it is committed."""
    engine = create_async_engine(url)
    log = AuditLog(engine, EPOCHS, way)

    async def staged(entry: Entry) -> Receipt:
        return await stage(log, engine, entry)

    try:
        yield staged if way == STAGING else log.append
    finally:
        await log.close()
        await engine.dispose()


@contextmanager
def process(work: Callable[..., Any], *values: Any) -> Iterator[ForkServerProcess]:
    """Run a function in a process of its own; whatever happens, it does not outlive the test."""
    child = _SERVER.Process(target=_started, args=(work, values), daemon=True)
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()
        child.close()


def kill(child: ForkServerProcess) -> None:
    """End a process without any warning (SIGKILL)."""
    child.kill()
    child.join()
    if child.exitcode != -signal.SIGKILL:
        raise AssertionError(f"the process ended by itself: {child.exitcode}")


def _started(work: Callable[..., Any], values: tuple[Any, ...]) -> None:
    asyncio.run(work(*values))


async def write_on(url: str, way: str, told: str, stop: str, roll_back_every: int = 0) -> None:
    """Write until a file called ``stop`` appears; tell each receipt once it is acknowledged, a line of ``told`` each.

    Every so often a staged entry is rolled back instead: its id is told with nothing behind it.
    """
    # Not through a buffer: what is told must be told when the process is killed.
    descriptor = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    engine = create_async_engine(url)
    log = AuditLog(engine, EPOCHS, way)
    for number in itertools.count(1):
        if await asyncio.to_thread(os.path.exists, stop):
            break
        entry = an_entry()
        if way == APPENDING:
            receipts = await asyncio.gather(log.append(entry), *(log.append(an_entry()) for _ in range(4)))
        elif roll_back_every and number % roll_back_every == 0:
            await stage(log, engine, entry, commit=False)
            os.write(descriptor, f"{entry.id} -\n".encode())
            continue
        else:
            receipts = [await stage(log, engine, entry)]
        os.write(descriptor, b"".join(f"{each.entry_id} {each.leaf_hash.hex()}\n".encode() for each in receipts))
    await log.close()
    await engine.dispose()


def told_by(path: Path) -> tuple[dict[UUID, bytes], set[UUID]]:
    """Return what a writer told: the leaf hashes of acknowledged entries by id, and the ids it rolled back."""
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    acknowledged = {UUID(entry): bytes.fromhex(leaf) for entry, leaf in lines if leaf != "-"}
    return acknowledged, {UUID(entry) for entry, leaf in lines if leaf == "-"}


async def number_on(url: str, year: int) -> None:
    """Integrate until killed."""
    engine = create_async_engine(url)
    log = AuditLog(engine, EPOCHS, "integrator")
    await run(engine, SIGNER, log, asyncio.Event(), 0.02, lambda: in_the_year(year))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until the condition holds; the deadline only ends a test that would never end."""
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 — another process gives no event to wait for
            await asyncio.sleep(0.005)
