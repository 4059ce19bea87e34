"""Decides since when our log has had no quorum of witnesses, and whether ordinary disclosures stop for it.

Every process reads it from the database; on the way of a request two instants are compared and nothing is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NoReturn

import structlog
from prometheus_client import Gauge
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.service import AuditLog
from consent.models import Request
from gateway import errors, evidence
from gateway.database import Database
from gateway.witnesses.policy import Witnesses

LOST = "witness.quorum_lost"
#: The code of a refusal while they are missing.
STOPPED = "evidence-stopped"
#: How often they may be asked in vain before it counts as missing.
MISSED_ROUNDS = 3
_INTERVAL_S = 5.0

State = Literal["none", "met", "missing"]

_log = structlog.get_logger(__name__)
_met_at = Gauge("siis_log_quorum_timestamp_seconds", "When a quorum of witnesses last cosigned the log; 0: never")
_missing = Gauge("siis_log_quorum_missing", "1 while no quorum of the configured witnesses cosigns the log")
_cosigned_at = Gauge("siis_witness_cosigned_timestamp_seconds", "When a witness last cosigned; 0: never", ["witness"])
_stopped = Gauge("siis_disclosures_stopped", "1 while ordinary disclosures stop because witnesses are missing")

# The day before is enough: what is older counts from the entry that says the quorum was lost.
_NEWEST = text(
    """
    SELECT array_agg(witness) AS witnesses, array_agg(at) AS times FROM audit.cosignature
    WHERE witness = ANY(:witnesses) GROUP BY log, size ORDER BY log DESC, size DESC LIMIT 1500
    """
)
# Each by a step down the primary key: sizes grow, so the newest of a witness is near the top.
_LAST = text(
    """
    SELECT log, size, at FROM audit.cosignature WHERE witness = :witness AND log = coalesce(CAST(:log AS smallint), log)
    ORDER BY log DESC, size DESC LIMIT 1
    """
)
_LAST_CHANGE = text(
    """
    (SELECT id, type, at FROM audit.entry WHERE type = 'witness.quorum_lost' ORDER BY id DESC LIMIT 1)
    UNION ALL
    (SELECT id, type, at FROM audit.entry WHERE type = 'witness.quorum_back' ORDER BY id DESC LIMIT 1)
    ORDER BY id DESC LIMIT 1
    """
)


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The newest cosignature of a witness: log, size, and when we got it."""

    log: int
    size: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands: ``met_at`` is when a quorum last cosigned, ``missing_since`` when it went missing."""

    state: State
    met_at: datetime | None = None
    missing_since: datetime | None = None
    witnesses: dict[str, LastSeen | None] = field(default_factory=dict)


class Quorum:
    """What one process knows of the witnesses; without witnesses it never stops anything."""

    def __init__(self) -> None:
        self.standing = Standing("none")
        self._stops_after: datetime | None = None

    def learn(self, standing: Standing, stops_after: datetime | None) -> None:
        """Take over how it stands, and from when on ordinary disclosures stop."""
        self.standing, self._stops_after = standing, stops_after

    def stops(self, at: datetime) -> bool:
        """Say whether ordinary disclosures stop at this instant."""
        return self._stops_after is not None and at > self._stops_after


#: For a deployment without witnesses.
NO_WITNESSES = Quorum()


async def refuse_while_stopped(
    audit: AuditLog, event: str, request: Request, policy_version: str, correlation: str | None
) -> NoReturn:
    """Record that a request was refused because witnesses are missing, undecided; raises EvidenceStopped."""
    entry = evidence.entry(
        event,
        "deny",
        at=request.at,
        policy_version=policy_version,
        correlation=correlation,
        actor={
            **evidence.actor(request.caller),
            "on_behalf_of": request.on_behalf_of,
            "channel": request.channel,
        },
        why={"purpose": request.purpose, "basis": request.basis, "case": request.case},
        what={
            "holder": request.holder,
            "dataset": request.dataset,
            "action": request.action,
            "asked": sorted(request.fields),
        },
        decision={"effect": "deny", "reasons": [STOPPED]},
    )
    raise errors.EvidenceStopped(await audit.append(entry))


class QuorumWatch:
    """Keeps a :class:`Quorum` fresh, and Prometheus' numbers with it."""

    def __init__(
        self,
        database: Database,
        witnesses: Witnesses,
        quorum: Quorum,
        *,
        interval_s: float,
        limit_s: float,
        now: Callable[[], datetime],
    ) -> None:
        """``interval_s`` is how often witnesses are asked, ``limit_s`` how long disclosures go on without a quorum."""
        self._database, self._witnesses, self._quorum, self._now = database, witnesses, quorum, now
        self._grace, self._limit = timedelta(seconds=MISSED_ROUNDS * interval_s), timedelta(seconds=limit_s)
        self._first_look: datetime | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Look every few seconds until ``stop``; a database that is away is tried again (nothing is released then)."""
        while not stop.is_set():
            try:
                await self.look()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("witnesses.not_read", error=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _INTERVAL_S)

    async def look(self) -> Standing:
        """Read how it stands now."""
        at = self._now()
        self._first_look = self._first_look or at
        async with self._database.connection() as connection:
            standing = await read_standing(connection, self._witnesses, at, self._grace, self._first_look)
        since = standing.met_at or standing.missing_since
        stops_after = None if since is None else since + self._limit
        self._quorum.learn(standing, stops_after)
        _met_at.set(0 if standing.met_at is None else standing.met_at.timestamp())
        _missing.set(standing.state == "missing")
        for name, seen in standing.witnesses.items():
            _cosigned_at.labels(name).set(0 if seen is None else seen.at.timestamp())
        _stopped.set(self._quorum.stops(at))
        return standing


async def read_standing(
    connection: AsyncConnection, witnesses: Witnesses, at: datetime, grace: timedelta, first_look: datetime
) -> Standing:
    """Read how it stands at an instant: missing once no quorum has cosigned one checkpoint for longer than ``grace``.

    Where there never was a quorum, time counts from when the log says it went missing, else from ``first_look``.
    """
    met_at = await _met(connection, witnesses)
    seen = {each.name: await last_seen(connection, each.id) for each in witnesses.known}
    if met_at is not None and at - met_at <= grace:
        return Standing("met", met_at, None, seen)
    since = met_at
    if since is None:
        change = await last_change(connection)
        since = change[1] if change is not None and change[0] == LOST else first_look
    return Standing("missing", met_at, since, seen)


async def last_change(connection: AsyncConnection) -> tuple[str, datetime] | None:
    """Return the newest entry of the log about the quorum, its type and time."""
    row = (await connection.execute(_LAST_CHANGE)).one_or_none()
    return None if row is None else (row.type, row.at)


async def last_seen(connection: AsyncConnection, witness: str, log: int | None = None) -> LastSeen | None:
    """Return the newest cosignature of a witness (by its id), of one log only if it is given."""
    row = (await connection.execute(_LAST, {"witness": witness, "log": log})).one_or_none()
    return None if row is None else LastSeen(row.log, row.size, row.at)


async def _met(connection: AsyncConnection, witnesses: Witnesses) -> datetime | None:
    """Return when a quorum last cosigned one and the same checkpoint, newest checkpoints first."""
    ids = [witness.id for witness in witnesses.known]
    for row in await connection.execute(_NEWEST, {"witnesses": ids}):
        met = _quorum_time(witnesses, zip(row.witnesses, row.times, strict=True))
        if met is not None:
            return met
    return None


def _quorum_time(witnesses: Witnesses, given: Iterable[tuple[str, datetime]]) -> datetime | None:
    """Return the latest time since which a quorum has said so; ``None`` if these are not enough."""
    ids: set[str] = set()
    for witness, at in sorted(given, key=lambda each: each[1], reverse=True):
        ids.add(witness)
        if witnesses.quorum_met(ids):
            return at
    return None
