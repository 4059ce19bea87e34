"""Requests of persons for the faces: who may take, see and answer which part of them, and how many are overdue."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any
from uuid import UUID

import prometheus_client
import structlog
from sqlalchemy.exc import SQLAlchemyError

from audit.keys import Epochs
from audit.models import Receipt
from audit.service import AuditLog
from consent.models import Caller
from gateway import evidence
from gateway.clock import local_day
from gateway.commands import Command, Done
from gateway.governance.service import Governance, Work
from gateway.rights import store
from gateway.rights.models import NewRequest, RightsRequest
from gateway.rights.steps import Steps
from gateway.vault import Vault

RECEIVE, MANAGE, OWN = "rights.receive", "rights.manage", "own.rights"
# Kept from who took a request: where it went tells who holds something of the person, or that nobody knows them.
_NOT_TOLD = frozenset({"routed_to"})
_REFRESH_S = 60.0

_log = structlog.get_logger(__name__)
_overdue = prometheus_client.Gauge(
    "siis_rights_overdue", "Parts of requests of persons that an institution has not answered in time", ["institution"]
)


class Rights:
    """The requests of persons."""

    def __init__(
        self,
        *,
        governance: Governance,
        audit: AuditLog,
        vault: Vault,
        epochs: Epochs,
    ) -> None:
        """``epochs`` opens the details of the log, which says who holds something of a person."""
        self.steps = Steps(vault=vault, epochs=epochs, audit=audit)
        self._governance, self._audit, self._vault, self._now = governance, audit, vault, governance.now

    async def receive(self, caller: Caller, new: NewRequest, command: Command) -> Done:
        """Register a request; the answer is its id and last day, the same whether the person is known or not.

        A person asks for themselves, or for whom they have a mandate. Raises BadRequest, Denied, Conflict.
        """
        action = RECEIVE
        if caller.person is not None:
            action, own = OWN, ("siis", str(caller.person))
            new = replace(new, representative=None if new.subject == own else own)
        done = await self._governance.change(
            caller, action, self.steps.receiving(new, in_person=caller.person is not None), command=command
        )
        return replace(done, answer={name: value for name, value in done.answer.items() if name not in _NOT_TOLD})

    async def step(self, caller: Caller, work: Work) -> Done:
        """Do a step of the caller's own part of a request, made by :class:`Steps` for its institution."""
        return await self._governance.change(caller, MANAGE, work)

    async def withdraw(self, caller: Caller, request_id: UUID) -> Done:
        """Withdraw what is open of a request: the person, who acts for them, or the institution that took it."""
        action = RECEIVE if caller.person is None else OWN
        return await self._governance.change(caller, action, self.steps.withdrawing(request_id, caller.person))

    async def read(self, caller: Caller, request_id: UUID) -> tuple[RightsRequest, Receipt]:
        """Show a request to the person with all parts, or to an officer with the institution's own; an entry tells."""
        await self._governance.authorise(caller, MANAGE if caller.person is None else OWN)
        institution = caller.institution if caller.person is None else None
        found = await self.find(request_id, institution=institution, person=caller.person)
        return found, await self.record_reading(found, evidence.actor(caller))

    async def page(self, caller: Caller, *, overdue: bool, after: UUID | None, limit: int) -> list[RightsRequest]:
        """Return requests by id with nothing personal: the person's own, or those the institution has a part of."""
        await self._governance.authorise(caller, MANAGE if caller.person is None else OWN)
        institution = caller.institution if caller.person is None else None
        return await self.search(
            person=caller.person, institution=institution, overdue=overdue, after=after, limit=limit
        )

    async def find(self, request_id: UUID, *, institution: str | None, person: UUID | None) -> RightsRequest:
        """Return one request with its texts: to an institution its own part, to a person or the machine all of them.

        Raises NotFound, also where it is neither's. The reading must go on record before anything is shown.
        """
        at = self._now()
        async with self._governance.database.connection() as connection:
            row = await store.request(connection, request_id)
            if institution is not None:
                await store.part_of(connection, request_id, institution)
            if person is not None:
                await self.steps.require_own(connection, row, person, at)
            parts = await store.parts(connection, [request_id], institution)
            subject, names, other = await store.known_as(connection, self._vault, row)
        return store.view(
            row,
            [store.full_part(self._vault, part) for part in parts],
            at,
            text=None if row.text is None else self._vault.open(store.TEXT, row.id, row.text),
            subject=subject,
            names=names,
            representative=other,
        )

    async def search(
        self, *, person: UUID | None, institution: str | None, overdue: bool, after: UUID | None, limit: int
    ) -> list[RightsRequest]:
        """Return requests in the order of their ids, without what anybody wrote."""
        at = self._now()
        async with self._governance.database.connection() as connection:
            rows = await store.search(
                connection,
                person=person,
                institution=institution,
                late_on=local_day(at) if overdue else None,
                after=after,
                limit=limit,
            )
            parts = await store.parts(connection, [row.id for row in rows], institution)
        return [
            store.view(row, [store.bare_part(part) for part in parts if part.request_id == row.id], at) for row in rows
        ]

    async def record_reading(self, found: RightsRequest, actor: dict[str, Any]) -> Receipt:
        """Put the reading of a request on record."""
        entry = evidence.entry(
            "rights.read",
            "done",
            at=self._now(),
            policy_version="none",
            subject=found.person,
            actor=actor,
            what={"request": str(found.id), "right": found.right},
        )
        return await self._audit.append(entry)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the number of overdue parts per institution fresh in the metrics until ``stop`` is set."""
        seen: frozenset[str] = frozenset()
        while not stop.is_set():
            try:
                seen = await self.count_overdue(seen)
            except (SQLAlchemyError, OSError) as error:
                _log.warning("rights.not_counted", error=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _REFRESH_S)

    async def count_overdue(self, seen: frozenset[str] = frozenset()) -> frozenset[str]:
        """Set the metric from the database; who was ``seen`` before and owes nothing now is set to nought."""
        async with self._governance.database.connection() as connection:
            late = await store.late_parts(connection, local_day(self._now()))
        for institution in seen | late.keys():
            _overdue.labels(institution).set(late.get(institution, 0))
        return seen | late.keys()
