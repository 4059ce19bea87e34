"""Closes an epoch: every live key is wrapped under a new one, then the old one's key is destroyed.

From then on no backup of the database opens what was erased before. Killed at any point, the next call goes on: the
epochs in use say what is left to do, keys are wrapped anew in transactions of their own, and a key file that is gone is
gone. Other processes write meanwhile: from the first commit on the database takes new keys under the new epoch only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

from audit.erasure import close_epoch, epochs_in_use, none_left, open_epoch, rewrap
from audit.models import Entry, Receipt
from audit.service import AuditLog
from gateway import evidence
from gateway.clock import utc_now
from gateway.database import Database
from gateway.erasure.orders import require_norm
from gateway.vault import MissingKey, destroy_epoch, load_epochs, make_epoch

_BATCH = 1_000
_LOCK = text("SELECT pg_advisory_lock(5113)")
_UNLOCK = text("SELECT pg_advisory_unlock(5113)")

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Closed:
    """Epochs that were closed, the one in force now, how many keys this call wrapped anew, and the entry."""

    epochs: tuple[int, ...]
    current: int
    keys: int
    receipt: Receipt


async def finish(
    *,
    owner: Database,
    audit: AuditLog,
    keys_dir: Path,
    norm: str,
    reference: str,
    progress: Progress = lambda _done: None,
    now: Callable[[], datetime] = utc_now,
) -> Closed:
    """Open the next epoch and close those before it; ``progress`` is called with how many keys were wrapped anew.

    ``owner`` is the database as the role that owns the tables. Raises :class:`MissingKey` where the key of an epoch in
    use is not in the folder, OSError where the folder cannot be written, and BadRequest for a norm that is none.
    """
    require_norm(norm)
    async with owner.connection() as guard:
        # One at a time, whatever machine it is asked for on.
        await guard.execute(_LOCK)
        try:
            return await _finish(owner, audit, keys_dir, norm, reference, progress, now)
        finally:
            await guard.execute(_UNLOCK)


async def _finish(
    owner: Database,
    audit: AuditLog,
    keys_dir: Path,
    norm: str,
    reference: str,
    progress: Progress,
    now: Callable[[], datetime],
) -> Closed:
    async with owner.transaction() as connection:
        *old, current = await epochs_in_use(connection)
        if not old:
            old, current = [current], current + 1
            # The file first: whoever hears of the epoch must find its key.
            make_epoch(keys_dir, current)
            await open_epoch(connection, current, now())
    epochs = load_epochs(keys_dir, create=False)
    if current not in epochs.keys:
        raise MissingKey(str(keys_dir / "epochs" / f"{current}.key"))
    epochs.turn_to(current)
    keys, done = 0, False
    while not done:
        async with owner.transaction() as connection:
            try:
                count = await rewrap(connection, epochs, current, _BATCH)
            except KeyError as error:
                raise MissingKey(str(keys_dir / "epochs" / f"{error.args[0]}.key")) from None
        keys += count
        progress(keys)
        if not count:
            async with owner.transaction() as connection:
                done = await none_left(connection, current)
    for number in old:
        destroy_epoch(keys_dir, number)
    at = now()
    async with owner.transaction() as connection:
        for number in old:
            await close_epoch(connection, number, at)
        receipt = await audit.stage(connection, _entry(old, current, keys, norm, reference, at))
    return Closed(tuple(old), current, keys, receipt)


def _entry(old: list[int], current: int, keys: int, norm: str, reference: str, at: datetime) -> Entry:
    statement: dict[str, Any] = {"epochs": old, "current": current}
    entry = evidence.entry(
        "erasure.epoch_closed",
        "done",
        at=at,
        policy_version="none",
        actor={"channel": "command-line"},
        what={"order": reference, "keys": keys},
        why={"norm": norm},
    )
    return replace(entry, statement=statement)
