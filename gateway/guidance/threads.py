"""Messages between a person and an institution: who may open a thread, read it and write in it, each on record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Receipt
from audit.service import AuditLog
from consent.models import Actor, Caller
from gateway import errors, evidence
from gateway.catalogue import service as catalogue
from gateway.catalogue.models import COORDINATOR
from gateway.commands import Command, Done
from gateway.governance.service import Governance, Work
from gateway.guidance.tables import guidance_message, guidance_thread
from gateway.referrals import store as referrals
from gateway.vault import Vault
from schemas.ids import uuid7
from schemas.text import _

ANSWER, OWN = "guidance.answer", "own.guidance"
_TEXT = "guidance_message.text"
Author = Literal["institution", "person"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewThread:
    """A thread to open: about a service, about a referral, or about neither (then the coordinator answers)."""

    text: str
    service: str | None = None
    referral: UUID | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message; ``author`` is ``person`` or ``institution``."""

    number: int
    author: Author
    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as its reader sees it; ``messages`` only where it is read as a whole."""

    id: UUID
    person_id: UUID
    institution: str
    service: str | None
    referral: UUID | None
    opened_at: datetime
    moved_at: datetime
    waits_for: str
    messages: tuple[Message, ...] = ()


class Threads:
    """The threads of guidance: a person reads their own, an institution those that it answers."""

    def __init__(self, *, governance: Governance, audit: AuditLog, vault: Vault) -> None:
        self._governance, self._audit, self._vault = governance, audit, vault

    async def open(self, caller: Caller, new: NewThread, command: Command) -> Done:
        """Open a thread: a person to any service, an institution to the person of a referral that it is party to.

        Raises BadRequest for an unknown service or for both subjects at once, Denied, NotFound.
        """

        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            person, institution = await self._parties(connection, caller, new)
            thread_id = uuid7()
            by: Author = "institution" if caller.person is None else "person"
            await connection.execute(
                insert(guidance_thread).values(
                    id=thread_id,
                    person_id=person,
                    institution=institution,
                    service=new.service,
                    referral_id=new.referral,
                    opened_at=at,
                    moved_at=at,
                    waits_for=_other(by),
                )
            )
            await self._write(connection, thread_id, 1, by, new.text, at)
            return _said("guidance.opened", thread_id, person, institution, message=1)

        return await self._change(caller, work, command)

    async def write(self, caller: Caller, thread_id: UUID, text: str, command: Command) -> Done:
        """Add a message; then it is the other side's turn. Raises Conflict once the thread is closed, NotFound."""

        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            found = await self._theirs(connection, caller, thread_id)
            if found.waits_for == "nobody":
                raise errors.Conflict("thread-closed")
            last = await connection.scalar(
                select(func.max(guidance_message.c.number)).where(guidance_message.c.thread_id == thread_id)
            )
            by: Author = "institution" if caller.person is None else "person"
            number = (last or 0) + 1
            await self._write(connection, thread_id, number, by, text, at)
            await _turn(connection, thread_id, _other(by), at)
            return _said("guidance.written", thread_id, found.person_id, found.institution, message=number)

        return await self._change(caller, work, command)

    async def close(self, caller: Caller, thread_id: UUID, command: Command) -> Done:
        """Close a thread; either side may. Closing it again changes nothing."""

        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            found = await self._theirs(connection, caller, thread_id)
            await _turn(connection, thread_id, "nobody", at)
            return _said("guidance.closed", thread_id, found.person_id, found.institution)

        return await self._change(caller, work, command)

    async def page(self, caller: Caller, *, waiting: bool, after: UUID | None, limit: int) -> list[Thread]:
        """Return threads by id, without messages: the person's own, or the institution's; ``waiting``: for them."""
        await self._governance.authorise(caller, _action(caller))
        mine = guidance_thread.c.institution == caller.institution
        if caller.person is not None:
            mine = guidance_thread.c.person_id == caller.person
        query = select(guidance_thread).where(mine).order_by(guidance_thread.c.id).limit(limit)
        if waiting:
            turn = "institution" if caller.person is None else "person"
            query = query.where(guidance_thread.c.waits_for == turn)
        if after is not None:
            query = query.where(guidance_thread.c.id > after)
        async with self._governance.database.connection() as connection:
            return [_thread(row) for row in await connection.execute(query)]

    async def read(self, caller: Caller, thread_id: UUID) -> tuple[Thread, Receipt]:
        """Return a thread with its messages; that it was read is on record before anything is shown."""
        await self._governance.authorise(caller, _action(caller))
        async with self._governance.database.connection() as connection:
            row = await self._theirs(connection, caller, thread_id, lock=False)
            rows = await connection.execute(
                select(guidance_message)
                .where(guidance_message.c.thread_id == thread_id, guidance_message.c.text.is_not(None))
                .order_by(guidance_message.c.number)
            )
            messages = tuple(
                Message(each.number, each.author, each.at, self._vault.open(_TEXT, thread_id, each.text))
                for each in rows
            )
        entry = evidence.entry(
            "guidance.read",
            "done",
            at=self._governance.now(),
            policy_version="none",
            subject=row.person_id,
            actor=evidence.actor(caller),
            what={"thread": str(thread_id)},
        )
        return _thread(row, messages), await self._audit.append(entry)

    async def _change(self, caller: Caller, work: Work, command: Command) -> Done:
        return await self._governance.change(caller, _action(caller), work, command=command)

    async def _parties(self, connection: AsyncConnection, caller: Caller, new: NewThread) -> tuple[UUID, str]:
        if new.service is not None and new.referral is not None:
            raise errors.BadRequest("unusable-guidance", pointer="/referral", detail=_("Indique uno de los dos."))
        if new.referral is not None:
            referral = await referrals.by_id(connection, new.referral)
            if referral is None:
                raise errors.NotFound("not-found")
            if caller.person is not None and referral.person_id == caller.person:
                return caller.person, referral.recipient
            if caller.person is None and caller.institution in (referral.requester, referral.recipient):
                return referral.person_id, caller.institution
            raise errors.NotFound("not-found")
        if caller.person is None:
            # Without a case of its own an institution could find out here whom the registry knows.
            detail = _("Una institución escribe sobre una referencia suya.")
            raise errors.BadRequest("unusable-guidance", pointer="/referral", detail=detail)
        if new.service is None:
            return caller.person, COORDINATOR
        services = await catalogue.services(connection)
        if new.service not in services:
            raise errors.BadRequest("unknown-service", pointer="/service", allowed=services)
        return caller.person, services[new.service].institution

    async def _theirs(
        self, connection: AsyncConnection, caller: Caller, thread_id: UUID, *, lock: bool = True
    ) -> Row[Any]:
        query = select(guidance_thread).where(guidance_thread.c.id == thread_id)
        row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
        own = row is not None and (
            row.institution == caller.institution if caller.person is None else row.person_id == caller.person
        )
        if row is None or not own:
            raise errors.NotFound("not-found")
        return row

    async def _write(
        self, connection: AsyncConnection, thread_id: UUID, number: int, by: Author, text: str, at: datetime
    ) -> None:
        sealed = self._vault.seal(_TEXT, thread_id, text)
        values = {"thread_id": thread_id, "number": number, "author": by, "at": at, "text": sealed}
        await connection.execute(insert(guidance_message).values(**values))


async def _turn(connection: AsyncConnection, thread_id: UUID, whose: str, at: datetime) -> None:
    mine = guidance_thread.c.id == thread_id
    await connection.execute(update(guidance_thread).where(mine).values(waits_for=whose, moved_at=at))


def _action(caller: Caller) -> str:
    return ANSWER if caller.person is None else OWN


def _other(by: Author) -> Author:
    return "person" if by == "institution" else "institution"


def _said(event: str, thread_id: UUID, person: UUID, institution: str, **more: Any) -> dict[str, Any]:
    return {"event": event, "subject": str(person), "thread": str(thread_id), "institution": institution, **more}


def _thread(row: Row[Any], messages: tuple[Message, ...] = ()) -> Thread:
    return Thread(
        row.id,
        row.person_id,
        row.institution,
        row.service,
        row.referral_id,
        row.opened_at,
        row.moved_at,
        row.waits_for,
        messages,
    )
