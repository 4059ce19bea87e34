"""Merging persons found to be one, and parting them: by the coordinator alone, with an entry about each of the two."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.service import AuditLog
from consent.errors import NotEntitled
from consent.models import Actor, Caller
from consent.people import check_reason
from gateway import errors, evidence
from gateway.catalogue.models import COORDINATOR
from gateway.catalogue.service import Catalogue
from gateway.commands import Command, Done
from gateway.governance.people import Desk, Looked, Named
from gateway.governance.service import Governance, Work
from gateway.registry import merging, stand_ins
from gateway.registry import service as registry
from gateway.registry.merging import Finding, NotMergeable
from gateway.registry.tables import person_identifier
from gateway.vault import Vault
from schemas.text import _

MERGE = "person.merge"
_REASONS = "merge-reasons"


class Merges(Desk):
    """Where persons are merged; ``caller`` as in :class:`Desk`, of the coordinator."""

    def __init__(self, governance: Governance, vault: Vault, *, audit: AuditLog) -> None:
        super().__init__(governance, vault)
        self._audit, self._catalogue = audit, Catalogue(governance.database)

    async def merge(
        self,
        caller: Caller | None,
        survivor: Named,
        absorbed: Named,
        *,
        reason: str,
        confirmed: bool = False,
        command: Command | None = None,
    ) -> Done:
        """Let the person of ``absorbed`` be the one of ``survivor``; the answer names the merge.

        Raises BadRequest for a reason that is none, Denied, NotFound for somebody unknown or closed to the caller, and
        Conflict where they cannot be one person, are one already, or disagree and nobody confirmed it.
        """

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            finding = _finding(caller, actor, at, "merge", reason, confirmed=confirmed)
            one, _mandate = await self.subject(connection, caller, survivor, at, pointer="/survivor")
            other, _mandate = await self.subject(connection, caller, absorbed, at, pointer="/absorbed")
            services = await self._catalogue.services()
            made = await merging.merge(connection, self.vault, services, one.id, other.id, finding)
            said: dict[str, Any] = {
                "event": "person.merged",
                "subject": str(one.id),
                "merge": str(made),
                "other": str(other.id),
                "reason": reason,
                "confirmed": confirmed,
            }
            await self._also(connection, {**said, "subject": str(other.id), "other": str(one.id)}, caller, actor, at)
            return said

        return await self._done(caller, work, command)

    async def unmerge(
        self, caller: Caller | None, absorbed: Named, *, reason: str, command: Command | None = None
    ) -> Done:
        """Let the person who has this identifier of their own stand for themselves again; raises as :meth:`merge`."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            finding = _finding(caller, actor, at, "unmerge", reason)
            await self.subject(connection, caller, absorbed, at, pointer="/absorbed")
            other = await self._under_own(connection, absorbed)
            one, undone = await merging.unmerge(connection, await self._catalogue.services(), other, finding)
            said = {"event": "person.unmerged", "subject": str(one), "merge": str(undone), "other": str(other)}
            said |= {"reason": reason}
            await self._also(connection, {**said, "subject": str(other), "other": str(one)}, caller, actor, at)
            return said

        return await self._done(caller, work, command)

    async def show(self, caller: Caller | None, named: Named) -> Looked:
        """Show under which identifiers a person is known, and who was found to be them; raises as :meth:`merge`."""

        async def read(connection: AsyncConnection, at: datetime) -> tuple[UUID | None, dict[str, Any], Any]:
            _only_coordinator(caller)
            who, _mandate = await self.subject(connection, caller, named, at)
            details = await registry.person_details(connection, self.vault, who.id)
            if details is None:
                raise errors.NotFound("not-found")
            same = await merging.same_persons(connection, who.id)
            history = await merging.merges_of(connection, same)
            shown = {
                "id": str(who.id),
                "absorbed": [str(each) for each in same[1:]],
                "identifiers": [{"system": system, "value": value} for system, value in details.identifiers],
                "history": [_row_json(row) for row in history],
            }
            return who.id, {"merges": len(history)}, shown

        return await self.look(caller, MERGE, "person.read", read)

    async def stand_ins(self, caller: Caller | None) -> Looked:
        """Show who stands in for somebody protected, until both are merged; raises Denied."""

        async def read(connection: AsyncConnection, _at: datetime) -> tuple[UUID | None, dict[str, Any], Any]:
            _only_coordinator(caller)
            rows = [
                {
                    "person": str(each.subject),
                    "stand_in": str(each.person_id),
                    "form": str(each.form_id),
                    "at": each.at.isoformat(),
                }
                for each in await stand_ins.undecided(connection)
            ]
            return None, {"rows": len(rows)}, rows

        return await self.look(caller, MERGE, "person.stand_ins_read", read)

    async def _under_own(self, connection: AsyncConnection, named: Named) -> UUID:
        """Return the id under which an identifier was registered, whoever that one was found to be."""
        value = registry.normalise(*named)
        if named.system == "siis":
            return UUID(value)
        known, index = person_identifier.c, self.vault.index(named.system, value)
        found: UUID | None = await connection.scalar(
            select(known.person_id).where(known.system == named.system, known.blind_index == index)
        )
        if found is None:
            raise errors.NotFound("not-found")
        return found

    async def _done(self, caller: Caller | None, work: Work, command: Command | None) -> Done:
        try:
            return await self.do(caller, MERGE, work, command)
        except NotMergeable as refused:
            raise errors.Conflict(refused.reason, detail=_details()[refused.reason]) from None

    async def _also(
        self, connection: AsyncConnection, said: dict[str, Any], caller: Caller | None, actor: Actor, at: datetime
    ) -> None:
        """Stage the entry about the other one of the two: each finds it under their own id."""
        machine = {"channel": "command-line", "user": actor.user}
        what = {name: value for name, value in said.items() if name not in ("event", "subject")}
        entry = evidence.entry(
            said["event"],
            "done",
            at=at,
            policy_version="none",
            subject=UUID(said["subject"]),
            actor=machine if caller is None else evidence.actor(caller),
            what=what,
        )
        await self._audit.stage(connection, entry)


def _finding(
    caller: Caller | None, actor: Actor, at: datetime, step: str, reason: str, *, confirmed: bool = False
) -> Finding:
    _only_coordinator(caller)
    check_reason(_REASONS, step, reason)
    return Finding(by=str(actor), reason=reason, at=at, confirmed=confirmed)


def _only_coordinator(caller: Caller | None) -> None:
    # Other institutions have supervisors, too, and who is who is not theirs to say.
    if caller is not None and caller.institution != COORDINATOR:
        raise NotEntitled


def _row_json(row: Any) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "survivor": str(row.survivor),
        "absorbed": str(row.absorbed),
        "undoes": None if row.undoes is None else str(row.undoes),
        "at": row.at.isoformat(),
        "by": row.by,
        "reason": row.reason,
        "confirmed": row.confirmed,
    }


def _details() -> dict[str, str]:
    return {
        "same-person": _("Los dos identificadores ya son de la misma persona."),
        "absorbed-survives": _("Con esa persona ya se unió otra: sepárelas primero, o una al revés."),
        "different-persons": _("Son dos personas distintas: no se pueden unir."),
        "not-confirmed": _("La fecha de nacimiento o el sexo no coinciden: compruébelo y confirme."),
        "not-merged": _("Esa persona no está unida con otra."),
    }
