"""Has the log cosigned: asks every witness each minute, keeps their words, and records when a quorum is lost or back.

One process at a time does it; a witness that hangs or lies is noted and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

import psycopg
import structlog
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.http import client_for
from audit.connection import Driver, OwnConnection
from audit.errors import AuditError
from audit.proofs import logs
from audit.service import AuditLog
from audit.tiles import TileReader
from gateway import evidence
from gateway.database import Database
from gateway.settings import Settings, SettingsError
from gateway.witnesses.asking import CONNECT_S, CONTRADICTIONS, Answered, Head, Prover, ask_witness
from gateway.witnesses.policy import Witnesses, read_witnesses
from gateway.witnesses.quorum import (
    LOST,
    MISSED_ROUNDS,
    Quorum,
    QuorumWatch,
    Standing,
    last_change,
    last_seen,
    read_standing,
)
from gateway.witnesses.time_stamp import TimeStamps, read_roots
from schemas.text import _

# "SIISWIT" in ASCII: whoever holds this advisory lock asks.
_LOCK = 0x53494953_574954
_TRY_LOCK = "SELECT pg_try_advisory_lock(%s)"
_STILL_THERE = "SELECT 1"
_WAIT_S = 5.0

_log = structlog.get_logger(__name__)
_answers = Counter("siis_witness_answers_total", "Answers of witnesses", ["witness", "outcome"])

_NEWEST = text("SELECT size, note FROM audit.checkpoint WHERE log = :log ORDER BY size DESC LIMIT 1")
_COSIGNED_BY = text("SELECT witness FROM audit.cosignature WHERE log = :log AND size = :size")
_KEEP = text(
    """
    INSERT INTO audit.cosignature (log, size, witness, line, at) VALUES (:log, :size, :witness, :line, :at)
    ON CONFLICT (log, size, witness) DO UPDATE SET line = excluded.line, at = excluded.at
    """
)


def witnesses_of(settings: Settings) -> Witnesses | None:
    """Read the witnesses of a deployment; raises :class:`~gateway.settings.SettingsError` for an unusable file."""
    return None if settings.witnesses is None else read_witnesses(settings.witnesses)


def quorum_watch(
    settings: Settings, database: Database, quorum: Quorum, now: Callable[[], datetime]
) -> QuorumWatch | None:
    """Return what keeps a process's ``quorum`` fresh; ``None`` without witnesses. Raises as :func:`witnesses_of`."""
    witnesses = witnesses_of(settings)
    if witnesses is None:
        return None
    interval, limit = settings.witness_interval_s, settings.witness_limit_s
    return QuorumWatch(database, witnesses, quorum, interval_s=interval, limit_s=limit, now=now)


class Witnessing:
    """Asks the witnesses of a deployment and the time-stamp authority, if it has one."""

    def __init__(
        self,
        *,
        database: Database,
        audit: AuditLog,
        witnesses: Witnesses | None,
        time_stamps: TimeStamps | None,
        interval_s: float,
        now: Callable[[], datetime],
    ) -> None:
        """``interval_s`` is the pause between two rounds."""
        self._database, self._audit, self._now = database, audit, now
        self._witnesses, self._time_stamps, self._interval_s = witnesses, time_stamps, interval_s
        self._first_round: datetime | None = None
        self._said: dict[str, str] = {}

    @classmethod
    def of(cls, settings: Settings, database: Database, audit: AuditLog, now: Callable[[], datetime]) -> Witnessing:
        """Make it as the settings say; raises :class:`~gateway.settings.SettingsError` for a file that is unusable."""
        stamps = None
        if settings.timestamp_url is not None:
            if settings.timestamp_roots is None:
                raise SettingsError([("SIIS_TIMESTAMP_ROOTS", _("hace falta para comprobar los sellos de tiempo"))])
            stamps = TimeStamps(database, settings.timestamp_url, read_roots(settings.timestamp_roots), now=now)
        return cls(
            database=database,
            audit=audit,
            witnesses=witnesses_of(settings),
            time_stamps=stamps,
            interval_s=settings.witness_interval_s,
            now=now,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until ``stop``; one process does, the others wait for its connection to end. Nothing to ask: returns."""
        if self._witnesses is None and self._time_stamps is None:
            return
        connection = OwnConnection(self._database.engine)
        while not stop.is_set():
            try:
                async with connection as driver:
                    await self._serve(driver, stop)
            except (AuditError, SQLAlchemyError, psycopg.Error, OSError) as error:
                _log.warning("witnesses.not_asked", error=type(error).__name__)
            await _pause(stop, _WAIT_S)
        await connection.drop()

    async def _serve(self, driver: Driver, stop: asyncio.Event) -> None:
        while not await _told(driver, _TRY_LOCK, _LOCK):
            if await _pause(stop, _WAIT_S):
                return
        while not stop.is_set():
            # Whoever lost this connection lost the lock.
            await _told(driver, _STILL_THERE)
            await self.round()
            if self._time_stamps is not None:
                await self._time_stamps.stamp_if_due()
            await _pause(stop, self._interval_s)

    async def round(self) -> list[Answered]:
        """Ask every witness once about each head that needs it, keep what they cosigned, record a change."""
        if self._witnesses is None:
            return []
        self._first_round = self._first_round or self._now()
        async with self._database.connection() as connection:
            heads = await self._heads(connection, self._witnesses)
            known = {
                (head.log, each.id): await self._known(connection, head.log, each.id)
                for head in heads
                for each in self._witnesses.known
            }
        answers: list[Answered] = []
        async with client_for(CONNECT_S) as client:
            for head in heads:
                asking = (
                    ask_witness(client, each, head, known[head.log, each.id], self._prover(head), self._now)
                    for each in self._witnesses.known
                )
                answers += await asyncio.gather(*asking)
        for answer in answers:
            self._note(answer)
        await self._keep(answers)
        await self._record_change(self._witnesses, answers)
        return answers

    async def _heads(self, connection: AsyncConnection, witnesses: Witnesses) -> list[Head]:
        """Return the newest checkpoint of the current log, and before it the last one of the year before if need be."""
        heads = []
        years = await logs(connection)
        for log in years[-2:]:
            row = (await connection.execute(_NEWEST, {"log": log})).one_or_none()
            if row is None:
                continue
            if log != years[-1]:
                cosigned = (await connection.execute(_COSIGNED_BY, {"log": log, "size": row.size})).scalars()
                if witnesses.quorum_met(cosigned):
                    continue
            heads.append(Head(log, row.size, row.note))
        return heads

    async def _known(self, connection: AsyncConnection, log: int, witness: str) -> int:
        seen = await last_seen(connection, witness, log)
        return 0 if seen is None else seen.size

    def _prover(self, head: Head) -> Prover:
        async def prove(old_size: int) -> list[bytes]:
            if not 0 < old_size < head.size:
                return []
            async with self._database.connection() as connection:
                return await TileReader(connection, head.log, head.size).consistency(old_size)

        return prove

    async def _keep(self, answers: list[Answered]) -> None:
        """Keep a round's cosignatures together, so that nobody reads half a quorum."""
        at = self._now()
        given = [
            {"log": each.head.log, "size": each.head.size, "witness": each.witness.id, "line": each.line, "at": at}
            for each in answers
            if each.line is not None
        ]
        if given:
            async with self._database.transaction() as connection:
                await connection.execute(_KEEP, given)

    async def _record_change(self, witnesses: Witnesses, answers: list[Answered]) -> None:
        """Write an entry when the quorum went missing or came back since the newest entry that says so."""
        at = self._now()
        grace = timedelta(seconds=MISSED_ROUNDS * self._interval_s)
        async with self._database.connection() as connection:
            standing = await read_standing(connection, witnesses, at, grace, self._first_round or at)
            change = await last_change(connection)
        was = None if change is None else change[0]
        since = standing.missing_since
        if since is not None and was != LOST and at - since > grace:
            await self._write("witness.quorum_lost", at, standing, answers)
        elif standing.state == "met" and was == LOST:
            await self._write("witness.quorum_back", at, standing, answers)

    async def _write(self, event: str, at: datetime, standing: Standing, answers: list[Answered]) -> None:
        since = standing.missing_since
        entry = evidence.entry(
            event,
            "failed" if event == LOST else "done",
            at=at,
            policy_version="none",
            actor={"channel": "gateway"},
            what={
                "since": None if since is None else since.isoformat(),
                "witnesses": {answer.witness.id: answer.outcome for answer in answers},
            },
        )
        await self._audit.append(entry)
        _log.warning(event)

    def _note(self, answer: Answered) -> None:
        """Count an answer, and say in the process log what is new about a witness."""
        name = answer.witness.name
        _answers.labels(name, answer.outcome).inc()
        if self._said.get(name) != answer.outcome:
            self._said[name] = answer.outcome
            if answer.outcome in CONTRADICTIONS:
                _log.error("witness.contradicts", witness=name, outcome=answer.outcome, log=answer.head.log)
            elif answer.outcome != "cosigned":
                _log.warning("witness.did_not_cosign", witness=name, outcome=answer.outcome)


async def _told(driver: Driver, query: str, *values: int) -> bool:
    async with driver.cursor() as cursor:
        await cursor.execute(query, values)
        row = await cursor.fetchone()
    return bool(row and row[0])


async def _pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for the stop, at most so long; return whether it came."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()
