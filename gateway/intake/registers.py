"""Takes whole registers: decided, fetched, every row kept once or named in the file of rejects, and taken or refused.

Rows, counts and the length of the file of rejects are committed together, so an intake that is killed goes on where it
was. Only a register that was read to its end and is good enough becomes the one that answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.base import ProducerAdapter
from adapters.converters import CONVERTERS
from adapters.errors import ContractBroken
from adapters.files.writing import RejectsFile
from adapters.manifest import Bulk
from adapters.models import Malformed, NotFound, Register, Rejected, RejectedRow, Row, Unavailable
from adapters.registry import Adapters
from audit.service import AuditLog
from consent.decision import decide
from consent.models import TAKE, UNKNOWN_SUBJECT, Caller, Decision, Request
from consent.policy import PolicyStore
from gateway import evidence
from gateway.clock import utc_now
from gateway.database import Database, driver_connection
from gateway.intake import register_store as store
from gateway.intake.packing import COPY, COPY_BEGIN, COPY_END, Packed, Packer
from gateway.intake.register_store import Current
from gateway.intake.rounds import in_rounds
from gateway.registry.service import normalise
from gateway.vault import Vault
from schemas.codes import code_list

_log = structlog.get_logger(__name__)
_taken = Counter("siis_registers_total", "Registers taken or refused", ["adapter", "dataset", "outcome"])

#: Between two transfers of a register that is no file.
_REST_S = 6 * 3600.0
#: Rows of one transaction.
_CHUNK = 20_000
_LOCK, _UNLOCK = (
    text(f"SELECT pg_{verb}(hashtextextended(:name, 5115))") for verb in ("try_advisory_lock", "advisory_unlock")
)


@dataclass(frozen=True, slots=True)
class Intake:
    """How an attempt to take a register ended.

    ``outcome``: taken, refused; nothing (none waits), busy (another process is at it), denied, failed (the producer),
    interrupted. ``rejects`` is the file with the rows refused, where there are any.
    """

    outcome: str
    name: str = ""
    rows: int = 0
    rejected: int = 0
    rejects: Path | None = None
    reason: str = ""


class RegisterIntake:
    """Takes the registers of the adapters that have some."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        audit: AuditLog,
        policies: PolicyStore,
        rejects_dir: Path,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database, self._vault, self._audit, self._policies = database, vault, audit, policies
        self._rejects_dir, self._now = rejects_dir, now
        self._denied: dict[tuple[str, str], tuple[str, ...]] = {}
        self._failing: dict[tuple[str, str], str] = {}

    async def run(self, adapters: Adapters, interval_s: float, stop: asyncio.Event) -> None:
        """Take what waits at every adapter until ``stop`` is set.

        Folders are looked into every ``interval_s`` seconds; a system that must be read whole to see whether there is
        anything new, at the start and every six hours.
        """
        rests_until: dict[tuple[str, str], float] = {}

        async def work(adapter: ProducerAdapter) -> bool:
            more = False
            for dataset in sorted(adapter.registers):
                if time.monotonic() < rests_until.get((adapter.name, dataset), 0.0):
                    continue
                ended = (await self.take(adapter, dataset, stop)).outcome
                if adapter.kind != "file" and ended in ("taken", "refused", "nothing"):
                    rests_until[adapter.name, dataset] = time.monotonic() + _REST_S
                else:
                    more = more or ended in ("taken", "refused")
            return more

        def connected() -> list[ProducerAdapter]:
            return [adapter for adapter in adapters.taking() if adapter.connected]

        await in_rounds(connected, work, interval_s, stop)

    async def take(
        self,
        adapter: ProducerAdapter,
        dataset: str,
        stop: asyncio.Event | None = None,
        *,
        user: str | None = None,
        again: bool = False,
    ) -> Intake:
        """Take the first register of a dataset that waits; KeyError for a dataset the adapter has no register of.

        Once ``stop`` is set it ends behind the rows under way, to go on another time. ``user`` is who asked for it;
        ``again`` takes one that was refused or replaced as well, since a person wants it.
        """
        spec = adapter.manifest.bulk[dataset]
        request, decision = self._decided(adapter, spec, user)
        if decision.permit is None or spec.subject_field not in decision.released:
            return await self._not_allowed(adapter, dataset, request, decision)
        self._denied.pop((adapter.name, dataset), None)
        async with self._alone(adapter.name, dataset) as connection:
            if connection is None:
                return Intake("busy")
            await store.sweep(connection, adapter.name, dataset)
            before = await store.ended(connection, adapter.name, dataset, again=again)
            outcome = await adapter.bulk(decision.permit, dataset, before)
            if isinstance(outcome, Unavailable | Malformed | Rejected):
                return await self._failed(adapter, dataset, outcome, request, decision)
            self._failing.pop((adapter.name, dataset), None)
            if isinstance(outcome, NotFound):
                return Intake("nothing")
            try:
                await self._audit.append(
                    evidence.decided(
                        "register.intent",
                        request,
                        decision,
                        subject=None,
                        exchange=evidence.told(outcome.provenance, adapter.kind),
                        what={"register": outcome.name, "sha256": outcome.sha256.hex()},
                    )
                )
                return await _Taking(self, connection, adapter, spec, request, decision).take(outcome, stop)
            finally:
                await outcome.close()

    def _decided(self, adapter: ProducerAdapter, spec: Bulk, user: str | None) -> tuple[Request, Decision]:
        request = Request(
            action=TAKE,
            caller=Caller(client_id="siis-intake", institution="UTGS", user=user, roles=frozenset({"intake"})),
            holder=adapter.institution,
            dataset=spec.name,
            fields=spec.table.names,
            purpose="service-access-determination",
            basis="official-authority",
            channel="file",
            at=self._now(),
        )
        return request, decide(request, UNKNOWN_SUBJECT, self._policies.current)

    async def _not_allowed(
        self, adapter: ProducerAdapter, dataset: str, request: Request, decision: Decision
    ) -> Intake:
        """Log a denial when it is new: the next round, and all that follow, would say the same."""
        reasons = decision.reasons or ("fields",)
        if self._denied.get((adapter.name, dataset)) != reasons:
            await self._audit.append(
                evidence.decided("register.denied", request, decision, subject=None, outcome="deny")
            )
            self._denied[adapter.name, dataset] = reasons
        return Intake("denied", reason=", ".join(reasons))

    async def _failed(
        self,
        adapter: ProducerAdapter,
        dataset: str,
        outcome: Unavailable | Malformed | Rejected,
        request: Request,
        decision: Decision,
    ) -> Intake:
        """Log a failure when it is new; a producer out of reach stays one failure, whatever each attempt met with."""
        kind = type(outcome).__name__
        reason = outcome.code if isinstance(outcome, Rejected) else outcome.reason
        _taken.labels(adapter.name, dataset, kind).inc()
        _log.warning("intake.register_failed", adapter=adapter.name, dataset=dataset, reason=reason)
        failing = kind if isinstance(outcome, Unavailable) else reason
        if self._failing.get((adapter.name, dataset)) != failing:
            await self._audit.append(
                evidence.decided(
                    "register.failed",
                    request,
                    decision,
                    subject=None,
                    outcome="failed",
                    exchange={"outcome": kind, **evidence.told(outcome.provenance, adapter.kind)},
                    what={"reason": reason},
                )
            )
            self._failing[adapter.name, dataset] = failing
        return Intake("failed", reason=reason)

    @asynccontextmanager
    async def _alone(self, adapter: str, dataset: str) -> AsyncIterator[AsyncConnection | None]:
        """Hold the lock of one register, on the connection that writes it: both are lost together, or neither."""
        key = {"name": f"{adapter}/{dataset}"}
        async with self._database.connection() as connection:
            held = await connection.scalar(_LOCK, key)
            await connection.commit()
            if not held:
                yield None
                return
            try:
                yield connection
            except BaseException:
                # Whatever state it is in, the lock ends with the connection.
                await connection.invalidate()
                raise
            await connection.execute(_UNLOCK, key)
            await connection.commit()


class _Taking:
    """One register on its way in."""

    def __init__(
        self,
        intake: RegisterIntake,
        connection: AsyncConnection,
        adapter: ProducerAdapter,
        spec: Bulk,
        request: Request,
        decision: Decision,
    ) -> None:
        self._intake, self._connection = intake, connection
        self._adapter, self._spec = adapter, spec
        self._request, self._decision = request, decision
        self._fields = tuple(name for name in spec.table.names if name in decision.released)

    async def take(self, register: Register, stop: asyncio.Event | None) -> Intake:
        sealed = any(spec["label"] != "public" for spec in code_list("datasets")[self._spec.name]["fields"].values())
        current = await store.begin(
            self._connection,
            adapter=self._adapter.name,
            dataset=self._spec.name,
            name=register.name,
            sha256=register.sha256,
            fields=self._fields,
            sealed=sealed,
            at=self._intake._now(),
        )
        folder = self._intake._rejects_dir
        await asyncio.to_thread(folder.mkdir, 0o700, True, True)
        path = folder / f"{self._adapter.name}-{self._spec.name}-{current.id}.csv"
        try:
            rejects = RejectsFile(path, current.rejects_bytes)
        except ValueError:
            # The file is gone, or this is another machine: only from the beginning can it be complete.
            await store.begin_anew(self._connection, current)
            rejects = RejectsFile(path)
        with rejects:
            try:
                ended = await self._load(register, current, rejects, self._packer(current), stop)
            except ContractBroken as problem:
                rejects.write([RejectedRow(0, "", problem.reason)])
                current.rejects_bytes = await asyncio.to_thread(rejects.sync)
                return await self._refuse(register, current, path, problem.reason)
        if not ended:
            return Intake("interrupted", register.name, current.rows, current.rejected)
        total = current.rows + current.rejected
        if current.rejected > self._spec.reject_over * total:
            return await self._refuse(register, current, path, "more bad rows than agreed")
        if not total:
            return await self._refuse(register, current, path, "without any row")
        return await self._accept(register, current, path)

    def _packer(self, current: Current) -> Packer:
        system, name = self._spec.system, self._spec.subject_field
        [field] = (field for field in self._spec.table.fields if field.name == name)
        normal = CONVERTERS.get(system)
        as_it_is = normal is not None and field.steps[-1:] == (normal,)
        return Packer(
            current.id,
            self._fields,
            name,
            _same if as_it_is else lambda value: normalise(system, value),
            self._intake._vault.register_index(system),
            self._intake._vault.rows(store.CONTENT, current.id) if current.sealed else None,
        )

    async def _load(
        self, register: Register, current: Current, rejects: RejectsFile, packer: Packer, stop: asyncio.Event | None
    ) -> bool:
        """Take the rows that are left, a transaction for so many; say whether it came to the end."""
        async with aclosing(_packed(register.rows(current.done), packer)) as batches:
            while True:
                async with self._connection.begin():
                    begun = current.done
                    ended = await self._copy(batches, current, rejects)
                    if current.done > begun:
                        current.rejects_bytes = await asyncio.to_thread(rejects.sync)
                        await store.note_progress(self._connection, current)
                if ended or (stop is not None and stop.is_set()):
                    return ended

    async def _copy(self, batches: AsyncIterator[Packed], current: Current, rejects: RejectsFile) -> bool:
        driver, begun = await driver_connection(self._connection), current.done
        async with driver.cursor() as cursor, cursor.copy(COPY) as copy:
            await copy.write(COPY_BEGIN)
            while current.done - begun < _CHUNK:
                batch = await anext(batches, None)
                if batch is None:
                    break
                await copy.write(batch.content)
                rejects.write(batch.rejects)
                current.rows += batch.rows
                current.rejected += len(batch.rejects)
                current.done = batch.last
            await copy.write(COPY_END)
        return batch is None

    async def _accept(self, register: Register, current: Current, path: Path) -> Intake:
        async with self._connection.begin():
            replaced = await store.replace(self._connection, current, same_name=self._spec.replaces == "same-name")
            await self._end("taken", register, current, {"replaced": replaced})
        await store.sweep(self._connection, self._adapter.name, self._spec.name)
        if current.rejected:
            return Intake("taken", register.name, current.rows, current.rejected, path)
        await asyncio.to_thread(path.unlink, missing_ok=True)
        return Intake("taken", register.name, current.rows)

    async def _refuse(self, register: Register, current: Current, path: Path, reason: str) -> Intake:
        current.reason = reason
        async with self._connection.begin():
            await self._end("refused", register, current, {"reason": reason})
        await store.sweep(self._connection, self._adapter.name, self._spec.name)
        return Intake("refused", register.name, current.rows, current.rejected, path, reason)

    async def _end(self, state: str, register: Register, current: Current, more: dict[str, Any]) -> None:
        at = self._intake._now()
        await store.finish(self._connection, current, state, at)
        told = {
            "register": register.name,
            "sha256": register.sha256.hex(),
            "rows": current.rows,
            "rejected": current.rejected,
            **more,
        }
        await self._intake._audit.stage(
            self._connection,
            evidence.decided(
                "register.taken" if state == "taken" else "register.refused",
                self._request,
                self._decision,
                subject=None,
                outcome="done" if state == "taken" else "failed",
                exchange={"adapter": self._adapter.name, "protocol": self._adapter.kind},
                what=told,
            ),
        )
        _taken.labels(self._adapter.name, self._spec.name, state).inc()
        _log.info("intake.register", adapter=self._adapter.name, dataset=self._spec.name, state=state)


async def _packed(rows: AsyncIterator[Sequence[Row | RejectedRow]], packer: Packer) -> AsyncGenerator[Packed, None]:
    """Give batches ready for COPY; the next one is made while the last one is written."""

    async def following() -> Packed | None:
        async for batch in rows:
            if batch:
                return await asyncio.to_thread(packer.pack, batch)
        return None

    pending = asyncio.create_task(following())
    try:
        while (packed := await pending) is not None:
            pending = asyncio.create_task(following())
            yield packed
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)


def _same(value: str) -> str:
    return value
