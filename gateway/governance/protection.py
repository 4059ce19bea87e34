"""Representatives, objections and protective flags for the faces; each change and each look has its entry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from consent import people
from consent.models import Actor, Caller
from consent.sameness import share
from gateway import errors
from gateway.catalogue.service import institutions
from gateway.commands import Command, Done
from gateway.governance.people import MANAGE, PROTECT, RECORD, Desk, Looked, Named, acting
from gateway.registry.merging import same_persons
from schemas.text import _


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMandate:
    """A mandate to be recorded: who acts for whom, as what, with which proof, and for how long."""

    subject: Named
    representative: Named
    kind: str
    proof_reference: str
    valid_from: datetime | None = None
    valid_to: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagChange:
    """A protective flag to be set or lifted; ``institution`` or ``person`` says who is barred as an aggressor."""

    subject: Named
    kind: str
    institution: str | None = None
    person: Named | None = None
    reference: str | None = None


class Protection(Desk):
    """What is done about who acts for a person and what protects them; ``caller`` as in :class:`Desk`."""

    async def add_representative(
        self, caller: Caller | None, new: NewMandate, *, command: Command | None = None
    ) -> Done:
        """Record who may act for a person; raises BadRequest, Denied or NotFound."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            who, _mandate = await self.subject(connection, caller, new.subject, at)
            other, _mandate = await self.subject(connection, caller, new.representative, at, pointer="/representative")
            return await people.add_representation(
                connection,
                subject=who.id,
                representative=other.id,
                kind=new.kind,
                proof_reference=new.proof_reference,
                recorded_by=str(actor),
                birth_date=who.birth_date,
                valid_from=new.valid_from,
                valid_to=new.valid_to,
                at=at,
            )

        return await self.do(caller, MANAGE, work, command)

    async def end_representative(self, caller: Caller | None, mandate_id: UUID, *, step: str, reason: str) -> Done:
        """End a mandate or block it; raises BadRequest for a reason that is none of the step, Denied or NotFound."""

        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            mandate = await people.read_mandate(connection, mandate_id)
            await self.known(connection, caller, mandate.subject, at)
            return await people.end_representation(connection, mandate_id, step=step, reason=reason, at=at)

        return await self.do(caller, MANAGE, work)

    async def representatives(
        self, caller: Caller | None, named: Named | None, *, after: UUID | None = None, limit: int = 50
    ) -> Looked:
        """Show who acts or acted for a person; nobody of a person who is nobody to the caller."""

        async def read(connection: AsyncConnection, at: datetime) -> tuple[UUID | None, dict[str, Any], Any]:
            who = await self.shown(connection, caller, named, at)
            if who is None:
                return None, {"representations": []}, []
            found = await people.mandates_of(connection, who.id, after=after, limit=limit)
            shown = [
                _mandate_json(each, await people.acts(connection, each, birth_date=who.birth_date, at=at))
                for each in found
            ]
            return who.id, {"representations": [item["id"] for item in shown]}, shown

        return await self.look(caller, (MANAGE, *RECORD), "representation.read", read)

    async def object(self, caller: Caller | None, named: Named | None, purpose: str, *, withdraw: bool = False) -> Done:
        """Record or take back a person's objection to a purpose; raises BadRequest, Denied or NotFound."""

        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            who, mandate = await self.subject(connection, caller, named, at)
            same = await same_persons(connection, who.id)
            if withdraw:
                done = [await people.withdraw_objection(connection, each, purpose, at=at) for each in same]
                return done[0] | {"changed": any(each["changed"] for each in done)} | acting(mandate)
            said = await people.object_to(connection, who.id, purpose, at=at)
            await share(connection, same)
            return said | acting(mandate)

        return await self.do(caller, RECORD, work)

    async def objections(self, caller: Caller | None, named: Named | None) -> Looked:
        """Show what a person objects to; nothing of a person who is nobody to the caller."""

        async def read(connection: AsyncConnection, at: datetime) -> tuple[UUID | None, dict[str, Any], Any]:
            who = await self.shown(connection, caller, named, at)
            found = [] if who is None else await people.objections_of(connection, who.id)
            shown = [{"purpose": purpose, "since": since.isoformat()} for purpose, since in found]
            return None if who is None else who.id, {"objections": len(shown)}, shown

        return await self.look(caller, RECORD, "consent.objections_read", read)

    async def flag(self, caller: Caller | None, change: FlagChange, *, lift: bool = False) -> Done:
        """Set a protective flag or lift it: only who keeps protected cases may. Raises BadRequest, Denied, NotFound."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            who, _mandate = await self.subject(connection, caller, change.subject, at)
            targets = await self._targets(connection, caller, change, at)
            same = await same_persons(connection, who.id)
            kind, reference = change.kind, change.reference
            if lift:
                by = actor.institution
                done = [
                    await people.lift_flag(connection, each, kind, at=at, target=target, reference=reference, by=by)
                    for each in same
                    for target in targets
                ]
                return done[0] | {"changed": any(each["changed"] for each in done)}
            set_by = actor.institution or ""
            done = [
                await people.set_flag(connection, who.id, kind, at=at, target=target, reference=reference, by=set_by)
                for target in targets
            ]
            await share(connection, same)
            return done[0]

        return await self.do(caller, PROTECT, work)

    async def flags(self, caller: Caller | None, named: Named | None) -> Looked:
        """Show what protects a person, to who keeps protected cases; nothing of somebody unknown."""

        async def read(connection: AsyncConnection, at: datetime) -> tuple[UUID | None, dict[str, Any], Any]:
            who = await self.shown(connection, caller, named, at)
            by = None if caller is None else caller.institution
            found = [] if who is None else await people.flags_of(connection, who.id, by)
            shown = [
                {
                    "kind": each.kind,
                    "target": each.target or None,
                    "reference": each.reference,
                    "since": each.since.isoformat(),
                }
                for each in found
            ]
            return None if who is None else who.id, {"flags": [each.kind for each in found]}, shown

        return await self.look(caller, PROTECT, "protection.read", read)

    async def _targets(
        self, connection: AsyncConnection, caller: Caller | None, change: FlagChange, at: datetime
    ) -> list[str]:
        """Return the target as the flag has it; a person has one for each id that leads to them, their own first."""
        if change.institution is not None:
            known = await institutions(connection)
            if change.institution not in known:
                detail = _("La institución no existe en el catálogo.")
                raise errors.BadRequest("unknown-code", pointer="/target/institution", allowed=known, detail=detail)
            return [change.institution]
        if change.person is None:
            return [""]
        other, _mandate = await self.subject(connection, caller, change.person, at, pointer="/target/person")
        return [str(each) for each in await same_persons(connection, other.id)]


def _mandate_json(mandate: people.Mandate, acts: bool) -> dict[str, Any]:
    return {
        "id": str(mandate.id),
        "representative": str(mandate.representative),
        "kind": mandate.kind,
        "in_force": acts,
        "proof_reference": mandate.proof_reference,
        "recorded_by": mandate.recorded_by,
        "valid_from": mandate.valid_from.isoformat(),
        "valid_to": None if mandate.valid_to is None else mandate.valid_to.isoformat(),
        "ended_at": None if mandate.ended_at is None else mandate.ended_at.isoformat(),
        "end_reason": mandate.end_reason,
    }
