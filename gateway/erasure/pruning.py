"""Prunes the log by order: decides that the term is over, and has the pruning in the log before anything is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Any

from audit import retention
from audit.models import Entry, Receipt
from audit.retention import Pruning
from audit.service import AuditLog
from gateway import errors, evidence
from gateway.clock import PARAGUAY, local_day, utc_now
from gateway.database import Database
from gateway.erasure.orders import require_norm, years_before
from schemas.codes import code_list
from schemas.text import _

_CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class Pruned:
    """A log that was pruned: how many entries went, the number it begins with now, the root there, and the entry."""

    log: int
    entries: int
    minimum: int
    root: bytes
    receipt: Receipt


async def prune(
    *,
    owner: Database,
    audit: AuditLog,
    before: date,
    norm: str,
    reference: str,
    now: Callable[[], datetime] = utc_now,
) -> list[Pruned]:
    """Take away what was written before a day in Paraguay, of every log; what was cut off is gone on with.

    ``owner`` is the database as the role that owns the tables. Raises BadRequest for a norm that is none, and Conflict
    for a day within the term (``retention``).
    """
    at = now()
    require_norm(norm)
    latest = years_before(local_day(at), code_list("retention")["log"]["years"])
    if before > latest:
        detail = _("El plazo de conservación del registro corre: se puede quitar lo anterior al {day}.")
        raise errors.Conflict("retention", detail=detail.format(day=latest))
    done = []
    async with owner.transaction() as connection:
        found = await retention.plan(connection, datetime.combine(before, time(), PARAGUAY))
        for pruning in found:
            await retention.begin(connection, pruning, at)
            receipt = await audit.stage(connection, _entry(pruning, norm, reference, at))
            done.append(Pruned(pruning.log, pruning.entries, pruning.minimum, pruning.root, receipt))
    async with owner.connection() as connection:
        pruned = await retention.pruned_logs(connection)
    for log in pruned:
        taken = 1
        while taken:
            async with owner.transaction() as connection:
                taken = await retention.take(connection, log, _CHUNK)
    return done


def _entry(pruning: Pruning, norm: str, reference: str, at: datetime) -> Entry:
    statement: dict[str, Any] = {
        "log": pruning.log,
        "minimum": pruning.minimum,
        "root": pruning.root.hex(),
        "norm": norm,
    }
    entry = evidence.entry(
        "log.pruned",
        "done",
        at=at,
        policy_version="none",
        actor={"channel": "command-line"},
        what={"order": reference, "entries": pruning.entries},
        why={"norm": norm},
    )
    return replace(entry, statement=statement)
