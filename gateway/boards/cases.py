"""Cases of the priority track (Canal Verde): several referrals of one person or household, with tasks and barriers.

A case is the matter of the institution that keeps it and of the board of the place: others get nothing of it, and what
anybody wrote in it is encrypted. Every change and every reading is an entry about the person.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import Actor, Caller
from gateway import errors
from gateway.boards import store
from gateway.boards.tables import case_barrier, case_file, case_note, case_task
from gateway.catalogue.service import institutions
from gateway.clock import local_day
from gateway.commands import Command, Done
from gateway.governance.people import Desk, Named
from gateway.referrals import store as referrals
from gateway.referrals.models import Referral
from gateway.referrals.nominal import PRIORITY_TRACK, is_overdue
from gateway.referrals.tables import referral
from gateway.registry.tables import person
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid, uuid7
from schemas.text import _

ACTION = "case.manage"
OPEN, CLOSED = "open", "closed"
_REFERRAL = tuple(referral.c[name] for name in Referral.__dataclass_fields__)


class Case(NamedTuple):
    """A case without what was written in it."""

    id: UUID
    person_id: UUID
    board: str
    institution: str
    state: str
    opened_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Step:
    """One step in a case under way: what it works on, and who does it when."""

    connection: AsyncConnection
    caller: Caller
    current: Case
    asked: Mapping[str, Any]
    by: str
    at: datetime


_CASE = tuple(case_file.c[name] for name in Case._fields)
_COLUMN_OF = {"text": "case_note.text", "what": "case_task.what", "texts": "case_file.texts"}


class Cases(Desk):
    """The cases, for who keeps them and for the boards."""

    async def open(self, caller: Caller, referral_id: UUID, text: str | None, command: Command) -> Done:
        """Open a case from a referral of the priority track, for one of its parties or a member of the board there.

        Raises Denied, NotFound for somebody else's referral and for a protected case, Conflict.
        """

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            current = await self._referral(connection, caller, referral_id)
            await self.known(connection, caller, current.person_id, at)
            if current.priority != PRIORITY_TRACK:
                raise errors.Conflict("not-priority-track", detail=_("La referencia no va por el Canal Verde."))
            if current.case_id is not None:
                raise errors.Conflict("case-held", detail=_("La referencia ya está en un caso."))
            here = await store.of_place(connection, current.department, current.district)
            if not here:
                raise errors.Conflict("no-board", detail=_("Ese lugar no tiene Mesa; avise a la UTGS."))
            case_id = uuid7()
            await connection.execute(
                insert(case_file).values(
                    id=case_id,
                    person_id=current.person_id,
                    board=here[0].code,
                    institution=caller.institution,
                    state=OPEN,
                    texts=None if text is None else self._seal("texts", case_id, text),
                    opened_by=str(actor),
                    opened_at=at,
                )
            )
            await referrals.change(connection, current.id, case_id=case_id)
            return {
                "event": "case.opened",
                "subject": str(current.person_id),
                "id": str(case_id),
                "board": here[0].code,
                "referral": str(current.id),
                "state": OPEN,
            }

        return await self.do(caller, ACTION, work, command)

    async def step(self, caller: Caller, case_id: UUID, asked: Mapping[str, Any], command: Command) -> Done:
        """Do a step in a case: the message ``case-step`` says which there are.

        Raises Denied, NotFound for a case of others or something that is not in it, BadRequest, Conflict.
        """

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            current = await self._case(connection, caller, case_id, at, lock=True)
            kind = asked["step"]
            if current.state == CLOSED and kind not in ("reopen", "note"):
                raise errors.Conflict("case-closed", detail=_("El caso está cerrado; reábralo primero."))
            changed = await _STEPS[kind](self, _Step(connection, caller, current, asked, str(actor), at))
            return {
                "event": "case.changed",
                "subject": str(current.person_id),
                "id": str(case_id),
                "step": kind,
                **changed,
            }

        return await self.do(caller, ACTION, work, command)

    async def read(self, caller: Caller, case_id: UUID) -> tuple[dict[str, Any], dict[str, str]]:
        """Show a case with everything in it; raises Denied, NotFound."""

        async def read(connection: AsyncConnection, at: datetime) -> tuple[UUID | None, dict[str, Any], dict[str, Any]]:
            current = await self._case(connection, caller, case_id, at)
            shown = await self._whole(connection, caller, current, at)
            return current.person_id, {"id": str(case_id), "board": current.board}, shown

        looked = await self.look(caller, ACTION, "case.read", read)
        return looked.shown, looked.receipt

    async def page(self, caller: Caller, *, after: UUID | None, limit: int) -> list[Case]:
        """Return the cases of the caller's institution and of the boards it sits on, by id, with nothing personal."""
        await self.governance.authorise(caller, ACTION)
        row = case_file.c
        async with self.governance.database.connection() as connection:
            boards = await self._boards(connection, caller)
            query = select(*_CASE).where(or_(row.institution == caller.institution, row.board.in_(boards)))
            if after is not None:
                query = query.where(row.id > after)
            return [Case(*found) for found in await connection.execute(query.order_by(row.id).limit(limit))]

    async def _boards(self, connection: AsyncConnection, caller: Caller) -> frozenset[str]:
        """Return the boards on which a caller sits and whose member they act as."""
        if "board-member" not in self.governance.roles_of(caller):
            return frozenset()
        return frozenset(await store.seats(connection, caller))

    async def _case(
        self, connection: AsyncConnection, caller: Caller, case_id: UUID, at: datetime, *, lock: bool = False
    ) -> Case:
        query = select(*_CASE).where(case_file.c.id == case_id)
        row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
        if row is None:
            raise errors.NotFound("not-found")
        found = Case(*row)
        if found.institution != caller.institution and found.board not in await self._boards(connection, caller):
            raise errors.NotFound("not-found")
        await self.known(connection, caller, found.person_id, at)
        return found

    async def _referral(self, connection: AsyncConnection, caller: Caller, referral_id: UUID) -> Referral:
        """Return a referral to which the caller is a party, or of which its board has a copy; raises NotFound."""
        current = await referrals.by_id(connection, referral_id, lock=True)
        if current is None:
            raise errors.NotFound("not-found")
        if caller.institution in (current.requester, current.recipient):
            return current
        here = {each.code for each in await store.of_place(connection, current.department, current.district)}
        if current.priority != PRIORITY_TRACK or here.isdisjoint(await self._boards(connection, caller)):
            raise errors.NotFound("not-found")
        return current

    async def _whole(self, connection: AsyncConnection, caller: Caller, current: Case, at: datetime) -> dict[str, Any]:
        text = await connection.scalar(select(case_file.c.texts).where(case_file.c.id == current.id))
        rows = await connection.execute(
            select(*_REFERRAL).where(referral.c.case_id == current.id).order_by(referral.c.id)
        )
        held = [Referral(**row._mapping) for row in rows]
        # Of a household: somebody in it may have been protected since, whose referrals look as if they were not there.
        known = {each: await self._knows(connection, caller, each, at) for each in {each.person_id for each in held}}
        held = [each for each in held if known[each.person_id]]
        if current.board not in await self._boards(connection, caller):
            # Who keeps the case without a seat there sees the referrals that are its own, as everywhere.
            held = [each for each in held if caller.institution in (each.requester, each.recipient)]
        seen = {each.id for each in held}
        tasks = await connection.execute(
            select(case_task).where(case_task.c.case_id == current.id).order_by(case_task.c.id)
        )
        barriers = await connection.execute(
            select(case_barrier).where(case_barrier.c.case_id == current.id).order_by(case_barrier.c.id)
        )
        notes = await connection.execute(
            select(case_note).where(case_note.c.case_id == current.id).order_by(case_note.c.id)
        )
        return {
            **case_json(current),
            "text": self._open("texts", current.id, text),
            "referrals": [_referral_json(each, at) for each in held],
            "tasks": [
                {
                    "id": str(row.id),
                    "institution": row.institution,
                    "due_on": row.due_on.isoformat(),
                    "overdue": row.done_at is None and local_day(at) > row.due_on,
                    "what": self._open("what", row.id, row.what),
                    "added_by": row.added_by,
                    "added_at": row.added_at.isoformat(),
                    "done_by": row.done_by,
                    "done_at": _instant(row.done_at),
                }
                for row in tasks
            ],
            "barriers": [
                {
                    "id": str(row.id),
                    "barrier": row.barrier,
                    "referral": str(row.referral_id) if row.referral_id in seen else None,
                    "added_by": row.added_by,
                    "added_at": row.added_at.isoformat(),
                    "overcome_by": row.overcome_by,
                    "overcome_at": _instant(row.overcome_at),
                }
                for row in barriers
            ],
            "notes": [
                {
                    "id": str(row.id),
                    "by": row.by,
                    "at": row.at.isoformat(),
                    "text": self._open("text", row.id, row.text),
                }
                for row in notes
            ],
        }

    async def _knows(self, connection: AsyncConnection, caller: Caller, subject: UUID, at: datetime) -> bool:
        """Say whether a caller may know of a person now, by our id."""
        return await self.shown(connection, caller, Named("siis", str(subject)), at) is not None

    async def _add_referral(self, step: _Step) -> dict[str, Any]:
        current = await self._referral(step.connection, step.caller, _number(step.asked, "referral"))
        if not await _same_home(step.connection, current.person_id, step.current.person_id):
            detail = _("La referencia es de otra persona, de otro hogar.")
            raise errors.Conflict("another-household", detail=detail)
        if current.case_id is not None:
            raise errors.Conflict("case-held", detail=_("La referencia ya está en un caso."))
        await self.known(step.connection, step.caller, current.person_id, step.at)
        await referrals.change(step.connection, current.id, case_id=step.current.id)
        return {"referral": str(current.id)}

    async def _add_task(self, step: _Step) -> dict[str, Any]:
        task, institution = uuid7(), step.asked["institution"]
        known = await institutions(step.connection)
        if institution not in known:
            raise errors.BadRequest("unknown-code", pointer="/institution", allowed=sorted(known))
        await step.connection.execute(
            insert(case_task).values(
                id=task,
                case_id=step.current.id,
                institution=institution,
                due_on=date.fromisoformat(step.asked["due_on"]),
                what=self._seal("what", task, step.asked["text"]),
                added_by=step.by,
                added_at=step.at,
            )
        )
        return {"task": str(task), "institution": institution}

    async def _finish_task(self, step: _Step) -> dict[str, Any]:
        row, task = case_task.c, _number(step.asked, "task")
        done = update(case_task).where(row.id == task, row.case_id == step.current.id, row.done_at.is_(None))
        if await step.connection.scalar(done.values(done_by=step.by, done_at=step.at).returning(row.id)) is None:
            raise errors.NotFound("not-found")
        return {"task": str(task)}

    async def _add_barrier(self, step: _Step) -> dict[str, Any]:
        barrier, code = uuid7(), step.asked["barrier"]
        known = code_list("barriers")
        if code not in known:
            raise errors.BadRequest("unknown-code", pointer="/barrier", allowed=sorted(known))
        of = _number(step.asked, "referral") if "referral" in step.asked else None
        held = select(referral.c.person_id).where(referral.c.id == of, referral.c.case_id == step.current.id)
        if of is not None:
            whose = await step.connection.scalar(held)
            if whose is None or not await self._knows(step.connection, step.caller, whose, step.at):
                raise errors.NotFound("not-found")
        await step.connection.execute(
            insert(case_barrier).values(
                id=barrier,
                case_id=step.current.id,
                barrier=code,
                referral_id=of,
                added_by=step.by,
                added_at=step.at,
            )
        )
        # Which barrier it is, violence perhaps, is nothing for the log.
        return {"barrier": str(barrier)}

    async def _overcome(self, step: _Step) -> dict[str, Any]:
        row, barrier = case_barrier.c, _number(step.asked, "barrier")
        gone = update(case_barrier).where(row.id == barrier, row.case_id == step.current.id, row.overcome_at.is_(None))
        done = gone.values(overcome_by=step.by, overcome_at=step.at).returning(row.id)
        if await step.connection.scalar(done) is None:
            raise errors.NotFound("not-found")
        return {"barrier": str(barrier)}

    async def _note(self, step: _Step) -> dict[str, Any]:
        note = uuid7()
        await step.connection.execute(
            insert(case_note).values(
                id=note,
                case_id=step.current.id,
                text=self._seal("text", note, step.asked["text"]),
                by=step.by,
                at=step.at,
            )
        )
        return {"note": str(note)}

    async def _close(self, step: _Step) -> dict[str, Any]:
        return await self._turn(step, CLOSED, step.at)

    async def _reopen(self, step: _Step) -> dict[str, Any]:
        if step.current.state == OPEN:
            raise errors.Conflict("case-open", detail=_("El caso ya está abierto."))
        return await self._turn(step, OPEN, None)

    async def _turn(self, step: _Step, state: str, closed_at: datetime | None) -> dict[str, Any]:
        turning = update(case_file).where(case_file.c.id == step.current.id)
        await step.connection.execute(turning.values(state=state, closed_at=closed_at))
        noted = await self._note(step) if "text" in step.asked else {}
        return {"state": state, **noted}

    def _seal(self, name: str, row: UUID, text: str) -> bytes:
        return self.vault.seal(_COLUMN_OF[name], row, json.dumps(text, ensure_ascii=False))

    def _open(self, name: str, row: UUID, sealed: bytes | None) -> str | None:
        if sealed is None:
            return None
        text: str = json.loads(self.vault.open(_COLUMN_OF[name], row, sealed))
        return text


_STEPS: dict[str, Callable[[Cases, _Step], Any]] = {
    "add_referral": Cases._add_referral,
    "add_task": Cases._add_task,
    "finish_task": Cases._finish_task,
    "add_barrier": Cases._add_barrier,
    "overcome_barrier": Cases._overcome,
    "note": Cases._note,
    "close": Cases._close,
    "reopen": Cases._reopen,
}


def case_json(current: Case) -> dict[str, Any]:
    """Return a case as lists show it."""
    return {
        "id": str(current.id),
        "board": current.board,
        "institution": current.institution,
        "state": current.state,
        "opened_at": current.opened_at.isoformat(),
        "closed_at": _instant(current.closed_at),
    }


async def _same_home(connection: AsyncConnection, one: UUID, other: UUID) -> bool:
    if one == other:
        return True
    rows = await connection.scalars(select(person.c.household_id).where(person.c.id.in_((one, other))))
    homes = list(rows)
    return len(homes) == len((one, other)) and homes[0] is not None and homes[0] == homes[1]


def _referral_json(current: Referral, at: datetime) -> dict[str, Any]:
    return {
        "id": str(current.id),
        "service": current.service,
        "requester": current.requester,
        "recipient": current.recipient,
        "state": current.state,
        "due_on": None if current.due_on is None else current.due_on.isoformat(),
        "overdue": is_overdue(current, at),
    }


def _number(asked: Mapping[str, Any], name: str) -> UUID:
    try:
        return parse_uuid(asked[name])
    except InvalidIdentifier:
        raise errors.NotFound("not-found") from None


def _instant(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
