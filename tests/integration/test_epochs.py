"""Closing an epoch of keys: copies taken before open nothing of whom was erased, and everything else goes on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from rights_office import Office

from audit.envelope import open_detail, read_envelope
from audit.erasure import open_epoch, rewrap
from audit.errors import AuditUnavailable
from audit.keys import Epochs
from audit.models import LOG_SUBJECT
from audit.search import one
from audit.service import AuditLog
from gateway import embedded, evidence
from gateway.database import Database
from gateway.erasure.epochs import Closed, finish
from gateway.erasure.keeper import KeyKeeper
from gateway.erasure.service import Erasures, Order
from gateway.governance.people import Named
from gateway.settings import Settings
from gateway.vault import MissingKey, destroy_epoch, load_epochs, make_epoch
from schemas.errors import DecryptionError
from schemas.ids import uuid7

COURT = Order(ground="court-order", norm="Constitución Nacional, art. 135", ordered_by="Juzgado 3", reference="A.I. 7")
Copy = dict[UUID, tuple[bytes | None, int, list[tuple[bytes, bytes]]]]


async def close(office: Office, owner: Database) -> Closed:
    return await finish(
        owner=owner,
        audit=office.context.audit,
        keys_dir=office.context.settings.keys_dir,
        norm="Ley 7593/2025, art. 31",
        reference="Res. 8",
        now=lambda: office.at,
    )


async def current(office: Office) -> int:
    [(number,)] = await office.rows("SELECT max(number) FROM audit.epoch")
    return int(number)


def backup(settings: Settings) -> Copy:
    """Copy the tables of keys and entries, as a backup of the database holds them."""
    copy: Copy = {}
    url = embedded.start(settings.data_dir).url(embedded.SUPERUSER)
    with psycopg.connect(url) as connection:
        for subject, pseudonym, wrapped, epoch in connection.execute(
            "SELECT subject, pseudonym, wrapped_key, epoch FROM audit.subject_key"
        ).fetchall():
            rows = connection.execute("SELECT envelope, detail FROM audit.entry WHERE pseudonym = %s", (pseudonym,))
            copy[subject] = (wrapped, epoch, rows.fetchall())
    return copy


def opens(copy: Copy, epochs: Epochs) -> set[UUID]:
    """Return whose details open in a copy with the keys there are."""
    found = set()
    for subject, (wrapped, epoch, entries) in copy.items():
        key = epochs.opened(epoch, subject, wrapped)
        if key is not None:
            for envelope, detail in entries:
                assert open_detail(read_envelope(envelope), detail, key)
            found.add(subject)
    return found


async def test_a_backup_from_before_the_erasure_opens_nothing_once_the_epoch_is_closed(
    office: Office, owner: Database, settings: Settings
) -> None:
    one_person, another = await office.person("7400001"), await office.person("7400002")
    for person in (one_person, another):
        await office.exchanged(person)
    before = backup(settings)
    erasing = Erasures(owner=owner, audit=office.context.audit, vault=office.context.vault, now=lambda: office.at)
    await erasing.erase(Named("cedula", "7400001"), COURT)
    keys, now = settings.keys_dir, await current(office)
    # Until then the backup still holds what the epoch's key opens.
    assert one_person in opens(before, load_epochs(keys, create=False))
    old = (keys / "epochs" / f"{now}.key").read_bytes()

    closed = await close(office, owner)

    assert (closed.epochs, closed.current) == ((now,), now + 1)
    assert [path.name for path in (keys / "epochs").iterdir()] == [f"{now + 1}.key"]
    assert old not in [path.read_bytes() for path in keys.rglob("*") if path.is_file()]
    assert opens(before, load_epochs(keys, create=False)) == set()
    still = opens(backup(settings), load_epochs(keys, create=False))
    assert {LOG_SUBJECT, another} <= still
    assert one_person not in still
    [entry] = await office.entries("erasure.epoch_closed", 1)
    assert entry.envelope["statement"] == {"epochs": [now], "current": now + 1}
    assert await office.rows("SELECT number FROM audit.epoch WHERE destroyed_at IS NULL") == [(now + 1,)]


async def test_processes_write_on_while_an_epoch_is_closed_and_lose_nothing(
    office: Office, owner: Database, settings: Settings
) -> None:
    written: list[UUID] = []
    stop = asyncio.Event()

    async def write(log: AuditLog) -> None:
        while not stop.is_set():
            entry = evidence.entry("disclosure.denied", "deny", at=office.at, policy_version="v1", subject=uuid7())
            await log.append(entry)
            written.append(entry.id)

    async with AsyncExitStack() as stack:
        writing = []
        for number in range(3):
            log = AuditLog(office.context.database.engine, load_epochs(settings.keys_dir, create=False), f"g-{number}")
            stack.push_async_callback(log.close)
            writing.append(asyncio.create_task(write(log)))
        for _ in range(3):
            seen = len(written)
            await close(office, owner)
            while len(written) < seen + 30:
                await asyncio.wait(writing, timeout=0.02)
                assert not any(task.done() for task in writing)
        stop.set()
        await asyncio.gather(*writing)
    epochs = load_epochs(settings.keys_dir, create=False)
    assert list(epochs.keys) == [await current(office)]
    async with office.context.database.connection() as connection:
        for entry_id in written:
            found = await one(connection, epochs, entry_id)
            assert found is not None
            assert found[0].detail is not None


@pytest.mark.parametrize("cut", ["opened", "wrapped", "destroyed"])
async def test_an_epoch_whose_closing_was_cut_off_is_closed_by_the_next_call(
    office: Office, owner: Database, settings: Settings, cut: str
) -> None:
    person = await office.person(str(7_410_000 + len(cut)))
    await office.exchanged(person)
    now = await current(office)
    make_epoch(settings.keys_dir, now + 1)
    async with owner.transaction() as connection:
        await open_epoch(connection, now + 1, office.at)
    epochs = load_epochs(settings.keys_dir, create=False)
    epochs.turn_to(now + 1)
    async with owner.transaction() as connection:
        await rewrap(connection, epochs, now + 1, 1 if cut == "opened" else 10_000)
    if cut == "destroyed":
        destroy_epoch(settings.keys_dir, now)
    closed = await close(office, owner)
    assert (closed.epochs, closed.current) == ((now,), now + 1)
    assert {LOG_SUBJECT, person} <= opens(backup(settings), load_epochs(settings.keys_dir, create=False))


async def test_a_process_without_the_newest_key_waits_and_never_calls_anybody_erased(
    office: Office, owner: Database, settings: Settings, folders: Callable[[str], Path]
) -> None:
    person = await office.person("7400004")
    await office.exchanged(person)
    elsewhere = folders("elsewhere") / "keys"
    shutil.copytree(settings.keys_dir, elsewhere)
    far = load_epochs(elsewhere, create=False)
    log = AuditLog(office.context.database.engine, far, "far")
    newest = f"{(await close(office, owner)).current}.key"
    entry = evidence.entry("disclosure.denied", "deny", at=office.at, policy_version="v1", subject=person)
    try:
        with pytest.raises(AuditUnavailable):
            await log.append(entry)
        shutil.copy(settings.keys_dir / "epochs" / newest, elsewhere / "epochs" / newest)
        await log.append(entry)
    finally:
        await log.close()


async def test_the_key_of_a_closed_epoch_leaves_the_memory_of_other_processes(
    office: Office, owner: Database, settings: Settings
) -> None:
    epochs = load_epochs(settings.keys_dir, create=False)
    keeper = KeyKeeper(office.context.database, office.context.audit, epochs, now=lambda: office.at)
    await keeper.read()
    known = set(epochs.keys)
    closed = await close(office, owner)
    await keeper.read()
    assert set(epochs.keys) == {closed.current} != known


async def test_a_key_that_is_not_there_stops_the_closing_and_destroys_nothing(
    office: Office, owner: Database, settings: Settings
) -> None:
    person = await office.person("7400005")
    await office.exchanged(person)
    file = settings.keys_dir / "epochs" / f"{await current(office)}.key"
    kept = file.read_bytes()
    file.unlink()
    with pytest.raises(MissingKey):
        await close(office, owner)
    file.write_bytes(bytes(32))
    with pytest.raises(DecryptionError):
        await close(office, owner)
    file.write_bytes(kept)
    await close(office, owner)
    assert {LOG_SUBJECT, person} <= opens(backup(settings), load_epochs(settings.keys_dir, create=False))
