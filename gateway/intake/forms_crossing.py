"""Makes facts of registers taken: whoever an institution's own roll says receives a service, or receives it no more.

The code list ``datasets`` says which register tells of which service (``tells``). Only persons known here get a fact.
How far a register is goes with the facts, so a crossing that is killed goes on where it was, and none is made twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.base import ProducerAdapter
from adapters.registry import Adapters
from audit.service import AuditLog
from consent.decision import decide
from consent.models import TAKE, UNKNOWN_SUBJECT, Caller, Decision, Request
from consent.policy import PolicyStore
from gateway import evidence
from gateway.catalogue.models import Service
from gateway.catalogue.service import services as catalogue_services
from gateway.clock import local_day, utc_now
from gateway.database import Database
from gateway.intake.forms_facts import by_kind
from gateway.intake.packing import unpack
from gateway.intake.register_store import CONTENT
from gateway.intake.rounds import in_rounds
from gateway.intake.tables import register_file, register_row
from gateway.registry import recompute
from gateway.registry import service as registry
from gateway.registry.observations import Origin, Unit
from gateway.vault import Vault
from schemas.codes import code_list

INSTRUMENT = "register"
#: Rows of one transaction.
_CHUNK = 5_000


@dataclass(slots=True)
class Crossed:
    """What became of one register: rows read, facts made, rows about persons who are not known here.

    ``outcome``: crossed, or denied where no agreement lets the register be read for this.
    """

    adapter: str
    dataset: str
    name: str
    outcome: str = "crossed"
    rows: int = 0
    facts: int = 0
    unknown: int = 0


class _Told(NamedTuple):
    """What one register tells of, and how."""

    service: Service
    field: str
    values: Mapping[str, bool]


class RegisterCrossing:
    """Crosses the registers in force with the persons known here."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        audit: AuditLog,
        policies: PolicyStore,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database, self._vault, self._audit = database, vault, audit
        self._policies, self._now = policies, now
        self._denied: dict[UUID, tuple[str, ...]] = {}

    async def run(self, adapters: Adapters, interval_s: float, stop: asyncio.Event) -> None:
        """Cross what is new in every adapter's registers, looking every ``interval_s`` seconds, until ``stop``."""

        async def work(adapter: ProducerAdapter) -> bool:
            return any(each.rows for each in await self.cross(adapter))

        await in_rounds(lambda: [each for each in adapters.taking() if each.registers], work, interval_s, stop)

    async def cross(self, adapter: ProducerAdapter, *, user: str | None = None) -> list[Crossed]:
        """Make facts of what is new in an adapter's registers in force; ``user`` is who asked for it."""
        telling = {code: spec["tells"] for code, spec in code_list("datasets").items() if "tells" in spec}
        new = select(register_file.c.id, register_file.c.dataset, register_file.c.name).where(
            register_file.c.adapter == adapter.name,
            register_file.c.dataset.in_(adapter.registers & telling.keys()),
            register_file.c.state == "taken",
            register_file.c.crossed < register_file.c.done,
        )
        async with self._database.connection() as connection:
            waiting = (await connection.execute(new.order_by(register_file.c.finished_at))).all()
            services = await catalogue_services(connection) if waiting else {}
        found = []
        for row in waiting:
            tells = telling[row.dataset]
            crossed = Crossed(adapter.name, row.dataset, row.name)
            found.append(crossed)
            if tells["service"] in services:
                told = _Told(services[tells["service"]], tells["field"], tells["values"])
                while await self._chunk(adapter, row.id, told, services, crossed, user):
                    pass
        return found

    async def _chunk(
        self,
        adapter: ProducerAdapter,
        file_id: UUID,
        told: _Told,
        services: dict[str, Service],
        crossed: Crossed,
        user: str | None,
    ) -> bool:
        """Cross some rows in one transaction; say whether there may be more."""
        request, decision = self._decided(adapter, crossed.dataset, told, user)
        if decision.permit is None or not set(request.fields) <= decision.released:
            crossed.outcome = "denied"
            # Told once, and again when somebody asks or the reasons change; not in every round.
            if user is not None or self._denied.get(file_id) != decision.reasons:
                self._denied[file_id] = decision.reasons
                await self._audit.append(self._entry(request, decision, crossed, {}))
            return False
        self._denied.pop(file_id, None)
        at = self._now()
        async with self._database.transaction() as connection:
            # Whoever crosses the same register meanwhile waits here, and finds less left to do.
            mine = select(register_file).where(register_file.c.id == file_id, register_file.c.state == "taken")
            file = (await connection.execute(mine.with_for_update())).one_or_none()
            if file is None:
                return False
            rows = await self._rows(connection, file)
            if not rows:
                return False
            received, unknown = await self._received(connection, adapter, crossed.dataset, told, rows)
            origin = Origin(source=adapter.institution, instrument=INSTRUMENT, observed_on=local_day(file.finished_at))
            made = await registry.record_facts(
                connection, {unit: {told.service.code: gets} for unit, gets in received.items()}, origin, at
            )
            last = rows[-1][0]
            await connection.execute(update(register_file).where(register_file.c.id == file_id).values(crossed=last))
            what = {"register": file.name, "sha256": file.sha256.hex(), "service": told.service.code, "facts": made}
            reached = {"rows": len(rows), "last_row": last, "unknown": unknown}
            await self._audit.stage(connection, self._entry(request, decision, crossed, what | reached))
            await recompute.arrived(connection, services, **by_kind(set(received)), at=at, because=INSTRUMENT)
        crossed.rows += len(rows)
        crossed.facts += made
        crossed.unknown += unknown
        return len(rows) == _CHUNK

    async def _rows(self, connection: AsyncConnection, file: Any) -> list[tuple[int, dict[str, Any]]]:
        found = await connection.execute(
            select(register_row.c.row, register_row.c.content)
            .where(register_row.c.file_id == file.id, register_row.c.row > file.crossed)
            .order_by(register_row.c.row)
            .limit(_CHUNK)
        )
        cipher = self._vault.rows(CONTENT, file.id) if file.sealed else None
        return [
            (row.row, unpack(row.content if cipher is None else cipher.open(row.row, row.content), file.fields)[0])
            for row in found
        ]

    async def _received(
        self,
        connection: AsyncConnection,
        adapter: ProducerAdapter,
        dataset: str,
        told: _Told,
        rows: list[tuple[int, dict[str, Any]]],
    ) -> tuple[dict[Unit, bool], int]:
        """Return who receives the service by these rows, and how many rows are about nobody known here.

        A household receives what one of its members receives for it.
        """
        spec = adapter.manifest.bulk[dataset]
        says = [
            (registry.normalise(spec.system, str(facts[spec.subject_field])), told.values[facts[told.field]])
            for _row, facts in rows
            if facts.get(told.field) in told.values
        ]
        known = await registry.find_persons(connection, self._vault, spec.system, {value for value, _gets in says})
        received: dict[Unit, bool] = {}
        for value, gets in says:
            if value in known:
                unit = registry.unit_of(told.service, known[value])
                received[unit] = gets or received.get(unit, False)
        return received, sum(value not in known for value, _gets in says)

    def _decided(
        self, adapter: ProducerAdapter, dataset: str, told: _Told, user: str | None
    ) -> tuple[Request, Decision]:
        request = Request(
            action=TAKE,
            caller=Caller(client_id="siis-intake", institution="UTGS", user=user, roles=frozenset({"intake"})),
            holder=adapter.institution,
            dataset=dataset,
            fields=(adapter.manifest.bulk[dataset].subject_field, told.field),
            purpose="service-access-determination",
            basis="official-authority",
            channel="file",
            at=self._now(),
        )
        return request, decide(request, UNKNOWN_SUBJECT, self._policies.current)

    def _entry(self, request: Request, decision: Decision, crossed: Crossed, what: dict[str, Any]) -> Any:
        return evidence.decided(
            "register.crossed",
            request,
            decision,
            subject=None,
            outcome="deny" if crossed.outcome == "denied" else "done",
            exchange={"adapter": crossed.adapter, "protocol": INSTRUMENT},
            what=what,
        )
