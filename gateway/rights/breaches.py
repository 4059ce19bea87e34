"""Keeps the record of a breach: its 72 hours, whom it concerns by what the log says, who was told when, and its end."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.files.writing import neutral
from audit.affected import Scope, affected
from audit.keys import Epochs
from audit.models import Receipt
from audit.service import AuditLog
from consent.models import Actor, Caller
from consent.tables import protective_flag
from gateway import errors, evidence
from gateway.catalogue.models import COORDINATOR
from gateway.catalogue.service import institutions
from gateway.commands import Command, Done
from gateway.governance.service import Governance, Work
from gateway.registry import service as registry
from gateway.rights import refusals, terms
from gateway.rights.models import Breach, NewBreach
from gateway.rights.tables import breach, breach_person
from gateway.vault import Vault
from schemas.codes import code_list
from schemas.ids import uuid7

MANAGE = "breach.manage"
Told = Literal["agency", "people"]
_WHAT, _MEASURES = "breach.what", "breach.measures"
_SERVICE = "service:"
_BATCH = 1000
_SHOWN = (
    "id",
    "kind",
    "institution",
    "party",
    "client",
    "since",
    "until",
    "known_at",
    "due_at",
    "drawn_at",
    "affected",
    "erased",
    "notified_agency_at",
    "notified_people_at",
    "closed_at",
)


class Breaches:
    """The breaches of personal data, each handled by one institution's officer."""

    def __init__(
        self,
        *,
        governance: Governance,
        audit: AuditLog,
        vault: Vault,
        epochs: Epochs,
    ) -> None:
        """``epochs`` opens the details of the log, out of which the list of persons is drawn."""
        self._governance, self._audit, self._vault, self._epochs = governance, audit, vault, epochs

    async def change(self, caller: Caller, work: Work, command: Command | None = None) -> Done:
        """Do one of the works below for an officer, of whose institution the breach must be."""
        return await self._governance.change(caller, MANAGE, work, command=command)

    async def read(self, caller: Caller, breach_id: UUID) -> Breach:
        """Show a breach of the caller's institution; raises NotFound for any other."""
        await self._governance.authorise(caller, MANAGE)
        return await self.find(breach_id, caller.institution)

    async def page(self, caller: Caller, *, after: UUID | None, limit: int) -> list[Breach]:
        """Return the breaches of the caller's institution by id."""
        await self._governance.authorise(caller, MANAGE)
        return await self.search(caller.institution, after=after, limit=limit)

    async def export(self, caller: Caller, breach_id: UUID) -> tuple[AsyncIterator[bytes], Receipt]:
        """Return the list of persons to notify as CSV, and the receipt of its entry, which is there before it."""
        await self._governance.authorise(caller, MANAGE)
        return await self.exporting(breach_id, caller.institution, evidence.actor(caller))

    # Work, done for an officer or for whoever runs the machine

    def opening(self, new: NewBreach) -> Work:
        """Open the record; the 72 hours run since ``known_at``. An officer's breach is about their own exchanges only.

        Raises BadRequest for unknown codes and for times that cannot be.
        """
        if new.kind not in code_list("breach-kinds"):
            raise refusals.unknown_code("/kind", code_list("breach-kinds"))
        if not all(name.startswith(_SERVICE) or name in code_list("datasets") for name in new.datasets):
            raise refusals.unknown_code("/datasets", code_list("datasets"))

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            party = new.party if actor.institution is None else actor.institution
            if party is not None and party not in (listed := await institutions(connection)):
                raise refusals.unknown_code("/institution", listed)
            if not new.since <= new.known_at <= at:
                raise refusals.breach_times("/known_at")
            if new.until is not None and new.until <= new.since:
                raise refusals.breach_times("/until")
            breach_id, due_at = uuid7(), terms.breach_deadline(new.known_at)
            scope = {
                "kind": new.kind,
                "institution": party or COORDINATOR,
                "party": party,
                "client": new.client,
                "datasets": sorted(new.datasets),
            }
            times = {"since": new.since, "until": new.until, "known_at": new.known_at, "due_at": due_at}
            what = self._vault.seal(_WHAT, breach_id, new.what)
            await connection.execute(
                insert(breach).values(id=breach_id, what=what, opened_by=str(actor), **scope, **times)
            )
            return _said("breach.opened", breach_id, **scope, **_instants(times))

        return work

    def drawing(self, breach_id: UUID) -> Work:
        """Draw the list of persons from the log; again adds who was found since. Nobody is taken off it."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            row = await self._locked(connection, breach_id, actor)
            until = at if row.until is None else row.until
            scope = Scope(
                since=row.since,
                until=until,
                client=row.client,
                institution=row.party,
                datasets=frozenset(row.datasets),
            )
            erased = await self._keep(connection, breach_id, scope)
            count = await connection.scalar(
                select(func.count()).select_from(breach_person).where(breach_person.c.breach_id == breach_id)
            )
            await _set(connection, breach_id, drawn_at=at, affected=count, erased=erased)
            period = _instants({"since": row.since, "until": until})
            read = evidence.entry(
                "log.read",
                "done",
                at=at,
                policy_version="none",
                actor={"institution": actor.institution, "user": actor.user},
                what={"breach": str(breach_id), "client": row.client, "party": row.party, **period},
            )
            await self._audit.stage(connection, read)
            return _said("breach.drawn", breach_id, affected=count, erased=erased, **period)

        return work

    async def _keep(self, connection: AsyncConnection, breach_id: UUID, scope: Scope) -> int:
        """Store who is found, in groups; return how many persons of the period nobody can name any more."""
        erased, group = 0, []
        async with aclosing(affected(connection, self._epochs, scope)) as found:
            async for subject in found:
                if subject is None:
                    erased += 1
                    continue
                group.append({"breach_id": breach_id, "person_id": subject})
                if len(group) == _BATCH:
                    await _store(connection, group)
                    group = []
        await _store(connection, group)
        return erased

    def telling(self, breach_id: UUID, whom: Told, told_at: datetime | None) -> Work:
        """Record when the Agency, or the people on the list, were told; now unless another time is given.

        Raises Conflict for people before a list was drawn, or what is recorded already; BadRequest for other times.
        """

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            row = await self._locked(connection, breach_id, actor)
            column, moment = f"notified_{whom}_at", told_at or at
            if row._mapping[column] is not None or (whom == "people" and row.drawn_at is None):
                raise refusals.breach_out_of_order()
            if not row.known_at <= moment <= at:
                raise refusals.breach_times("/at")
            await _set(connection, breach_id, **{column: moment})
            late = moment > row.due_at
            return _said(f"breach.told_{whom}", breach_id, told_at=moment.isoformat(), late=late)

        return work

    def closing(self, breach_id: UUID, measures: str) -> Work:
        """Close the record with the measures taken; raises Conflict while the Agency or people wait to be told."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            row = await self._locked(connection, breach_id, actor)
            people_wait = row.drawn_at is None or (row.affected > 0 and row.notified_people_at is None)
            if row.notified_agency_at is None or people_wait:
                raise refusals.breach_out_of_order()
            await _set(connection, breach_id, closed_at=at, measures=self._vault.seal(_MEASURES, breach_id, measures))
            return _said("breach.closed", breach_id, affected=row.affected, erased=row.erased)

        return work

    async def _locked(self, connection: AsyncConnection, breach_id: UUID, actor: Actor) -> Row[Any]:
        """Return an open breach's row, nobody else's to change meanwhile; raises NotFound for another institution's."""
        query = select(breach).where(breach.c.id == breach_id).with_for_update()
        row = (await connection.execute(query)).one_or_none()
        if row is None or actor.institution not in (None, row.institution):
            raise errors.NotFound("not-found")
        if row.closed_at is not None:
            raise refusals.breach_out_of_order()
        return row

    # Reading

    async def find(self, breach_id: UUID, institution: str | None) -> Breach:
        """Return a breach, of one institution if one is given; raises NotFound."""
        async with self._governance.database.connection() as connection:
            row = await _row(connection, breach_id, institution)
        what = self._vault.open(_WHAT, row.id, row.what)
        measures = None if row.measures is None else self._vault.open(_MEASURES, row.id, row.measures)
        return _breach(row, what=what, measures=measures)

    async def search(self, institution: str | None, *, after: UUID | None, limit: int) -> list[Breach]:
        """Return breaches in the order of their ids, without what was written."""
        query = select(breach).order_by(breach.c.id).limit(limit)
        if institution is not None:
            query = query.where(breach.c.institution == institution)
        if after is not None:
            query = query.where(breach.c.id > after)
        async with self._governance.database.connection() as connection:
            return [_breach(row) for row in await connection.execute(query)]

    async def exporting(
        self, breach_id: UUID, institution: str | None, actor: dict[str, Any]
    ) -> tuple[AsyncIterator[bytes], Receipt]:
        """Return the CSV of the persons to notify, after its entry; raises Conflict before a list was drawn.

        Protected cases are not on it, because a list travels: they are counted in the entry, for the coordinator.
        """
        ids = select(breach_person.c.person_id).where(breach_person.c.breach_id == breach_id)
        async with self._governance.database.connection() as connection:
            row = await _row(connection, breach_id, institution)
            if row.drawn_at is None:
                raise refusals.breach_out_of_order()
            protected = select(protective_flag.c.subject).where(
                or_(protective_flag.c.kind.in_(("sealed", "court-order")), protective_flag.c.target == row.institution)
            )
            hidden = await connection.scalar(
                select(func.count()).select_from(ids.where(breach_person.c.person_id.in_(protected)).subquery())
            )
        entry = evidence.entry(
            "breach.exported",
            "done",
            at=self._governance.now(),
            policy_version="none",
            actor=actor,
            what={"breach": str(breach_id), "persons": row.affected - (hidden or 0), "protected": hidden},
        )
        receipt = await self._audit.append(entry)
        named = ids.where(breach_person.c.person_id.not_in(protected)).order_by(breach_person.c.person_id)
        return self._lines(named), receipt

    async def _lines(self, persons: Any) -> AsyncIterator[bytes]:
        yield _csv([("system", "identifier", "given_names", "surnames")])
        async with (
            self._governance.database.connection() as connection,
            connection.stream_scalars(persons) as found,
        ):
            async for group in found.partitions(_BATCH):
                rows = []
                for person_id in group:
                    details = await registry.person_details(connection, self._vault, person_id)
                    if details is not None:
                        system, value = _first(details.identifiers, person_id)
                        rows.append((system, value, details.given_names, details.surnames))
                yield _csv(rows)


async def _row(connection: AsyncConnection, breach_id: UUID, institution: str | None) -> Row[Any]:
    row = (await connection.execute(select(breach).where(breach.c.id == breach_id))).one_or_none()
    if row is None or institution not in (None, row.institution):
        raise errors.NotFound("not-found")
    return row


async def _set(connection: AsyncConnection, breach_id: UUID, **values: Any) -> None:
    await connection.execute(update(breach).where(breach.c.id == breach_id).values(**values))


async def _store(connection: AsyncConnection, group: list[dict[str, UUID]]) -> None:
    if group:
        await connection.execute(upsert(breach_person).on_conflict_do_nothing(), group)


def _first(identifiers: Sequence[tuple[str, str]], person_id: UUID) -> tuple[str, str]:
    """Choose the identifier by which somebody is notified: the cédula, else the first there is, else our own."""
    known = dict(reversed(identifiers))
    if "cedula" in known:
        return "cedula", known["cedula"]
    return identifiers[0] if identifiers else ("siis", str(person_id))


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([neutral(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _breach(row: Row[Any], **written: Any) -> Breach:
    return Breach(**{name: row._mapping[name] for name in _SHOWN}, datasets=tuple(row.datasets), **written)


def _instants(times: dict[str, datetime | None]) -> dict[str, str | None]:
    return {name: None if moment is None else moment.isoformat() for name, moment in times.items()}


def _said(event: str, breach_id: UUID, **more: Any) -> dict[str, Any]:
    return {"event": event, "breach": str(breach_id), **more}
