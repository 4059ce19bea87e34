"""What persons do about delivery: pause and resume an institution's lane, and decide on messages nobody could deliver.

The changes do for :class:`~gateway.governance.service.Governance`, which knows who may and puts each in the log. An
institution sees and handles what it sent or is to receive; the coordinator and whoever runs the machine, everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import Actor, Caller
from gateway import errors, jobs
from gateway.catalogue.models import COORDINATOR
from gateway.catalogue.service import institutions
from gateway.commands import Done
from gateway.delivery import lanes
from gateway.delivery.status import LaneStatus, status
from gateway.governance.service import Governance, Work
from gateway.referrals import states, store
from gateway.referrals.milestones import milestones
from gateway.referrals.models import Referral
from gateway.referrals.outbox_tables import message
from gateway.vault import Vault
from schemas.text import _

MANAGE = "delivery.manage"
#: So many letters are sent again by one command at most; another one goes on.
MOST = 500

# The referral itself and what follows it, each under its own number; nothing of the person, and nobody erased.
_LETTERS = """
SELECT * FROM (
    SELECT id, id AS referral_id, 'referral' AS kind, requester, recipient, service, delivery,
        delivery_reason AS reason, attempts, created_at
    FROM siis.referral WHERE texts IS NOT NULL
    UNION ALL
    SELECT m.id, m.referral_id, m.kind, r.requester, m.recipient, r.service, m.delivery, m.delivery_reason,
        m.attempts, m.created_at
    FROM siis.message AS m JOIN siis.referral AS r ON r.id = m.referral_id WHERE r.texts IS NOT NULL
) AS letter
WHERE (CAST(:mine AS text) IS NULL OR :mine IN (requester, recipient))
"""
_DEAD = text(
    f"""
    {_LETTERS} AND delivery = 'dead' AND (CAST(:recipient AS text) IS NULL OR recipient = :recipient)
        AND (CAST(:reason AS text) IS NULL OR reason = :reason) AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :most
    """
)
_ONE = text(f"{_LETTERS} AND id = :id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message that a person may have to decide on: the referral itself, or what follows it."""

    id: UUID
    referral_id: UUID
    kind: str
    requester: str
    recipient: str
    service: str
    delivery: str
    reason: str | None
    attempts: int
    created_at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return it as the API and the command show it."""
        return {
            "id": str(self.id),
            "referral": str(self.referral_id),
            "kind": self.kind,
            "requester": self.requester,
            "recipient": self.recipient,
            "service": self.service,
            "reason": self.reason,
            "attempts": self.attempts,
            "created_at": self.created_at.isoformat(),
        }


class DeliveryDesk:
    """Where delivery is watched and handled."""

    def __init__(self, governance: Governance, vault: Vault) -> None:
        self._governance, self._vault = governance, vault

    async def status(self, caller: Caller) -> list[LaneStatus]:
        """Return how delivery stands: to the caller's institution, or to all for the coordinator. Raises Denied."""
        await self._governance.authorise(caller, MANAGE)
        async with self._governance.database.connection() as connection:
            return await status(connection, _only(caller.institution))

    async def dead(self, caller: Caller, *, recipient: str | None, after: UUID | None, limit: int) -> list[Letter]:
        """Return letters that wait for a decision and are the caller's to see, by number. Raises Denied."""
        await self._governance.authorise(caller, MANAGE)
        async with self._governance.database.connection() as connection:
            return await dead(connection, _only(caller.institution), recipient=recipient, after=after, limit=limit)

    async def change(self, caller: Caller, work: Work) -> Done:
        """Do one of the changes below for a caller; raises Denied, NotFound, Conflict, BadRequest."""
        return await self._governance.change(caller, MANAGE, work)

    def pausing(self, name: str, *, paused: bool) -> Work:
        """Pause an institution's lane, or let it go on; Conflict where it is so already."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            if _only(actor.institution) not in (None, name) or name not in await institutions(connection):
                raise errors.NotFound("not-found")
            if not await lanes.pause(connection, name, paused, at, actor.institution):
                detail = _("La entrega ya está en pausa.") if paused else _("La entrega no está en pausa.")
                raise errors.Conflict("delivery-paused", detail=detail)
            return {"event": "delivery.paused" if paused else "delivery.resumed", "institution": name}

        return work

    def replaying(self, letter_id: UUID) -> Work:
        """Send a dead letter again from the beginning."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            letter, current = await self._dead_letter(connection, actor, letter_id)
            await self._replay(connection, actor, letter, current, at)
            return _said("delivery.replayed", letter, current)

        return work

    def replaying_many(self, recipient: str, reason: str | None) -> Work:
        """Send an institution's dead letters again, oldest first and :data:`MOST` at once; says whether there are more.

        Its lane's rate keeps it from being flooded.
        """

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            if recipient not in await institutions(connection):
                raise errors.NotFound("not-found")
            mine = _only(actor.institution)
            found = await dead(connection, mine, recipient=recipient, reason=reason, limit=MOST + 1)
            done = 0
            for letter in found[:MOST]:
                current = await store.by_id(connection, letter.referral_id, lock=True)
                again = None if current is None else await _letter(connection, mine, letter.id)
                # Somebody else may have decided on it since it was listed.
                if current is not None and again is not None and again.delivery == "dead":
                    await self._replay(connection, actor, again, current, at)
                    done += 1
            more = len(found) > MOST
            return {
                "event": "delivery.replayed_many",
                "institution": recipient,
                "reason": reason,
                "replayed": done,
                "more": more,
            }

        return work

    def giving_up(self, letter_id: UUID, why: str) -> Work:
        """Give a dead letter up; its requester reads why. Only the requester's side or the coordinator does that."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            letter, current = await self._dead_letter(connection, actor, letter_id)
            _of(actor, letter.requester)
            await self._event(connection, actor, letter, current, "given_up", at, texts={"reason": why})
            await self._settle(connection, letter, at, "given_up", "given-up")
            if letter.kind != "referral":
                await self._go_on(connection, current)
            elif current.state == states.CANCEL_REQUESTED:
                await jobs.defer_recall(connection, current.id)
            return _said("delivery.given_up", letter, current)

        return work

    def confirming(self, letter_id: UUID) -> Work:
        """Mark a dead letter as transmitted, because its recipient says it has it: the recipient's or coordinator's."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            letter, current = await self._dead_letter(connection, actor, letter_id)
            _of(actor, letter.recipient)
            moves = letter.kind == "referral" and current.state == states.CREATED
            after = await self._event(connection, actor, letter, current, "send" if moves else "transmitted", at)
            values = milestones("send", after, at) if moves else {}
            await self._settle(connection, letter, at, "transmitted", None, **values)
            await self._go_on(connection, current)
            return _said("delivery.confirmed", letter, current)

        return work

    async def _dead_letter(self, connection: AsyncConnection, actor: Actor, letter_id: UUID) -> tuple[Letter, Referral]:
        """Lock what a letter belongs to; NotFound where the actor may not see it, Conflict where it is not dead."""
        mine = _only(actor.institution)
        seen = await _letter(connection, mine, letter_id)
        current = None if seen is None else await store.by_id(connection, seen.referral_id, lock=True)
        letter = None if current is None else await _letter(connection, mine, letter_id)
        if current is None or letter is None:
            raise errors.NotFound("not-found")
        if letter.delivery != "dead":
            raise errors.Conflict("not-dead", detail=_("Este mensaje no espera una decisión."))
        return letter, current

    async def _replay(
        self, connection: AsyncConnection, actor: Actor, letter: Letter, current: Referral, at: datetime
    ) -> None:
        await self._event(connection, actor, letter, current, "replayed", at)
        await self._settle(connection, letter, at, "pending", None, attempts=0)
        await jobs.defer_delivery(connection, current.id)

    async def _event(
        self,
        connection: AsyncConnection,
        actor: Actor,
        letter: Letter,
        current: Referral,
        kind: str,
        at: datetime,
        texts: dict[str, Any] | None = None,
    ) -> str:
        facts = {"decided": True, **({} if letter.kind == "referral" else {"message": letter.kind})}
        by = actor.institution or COORDINATOR
        return await store.add_event(connection, self._vault, current, kind, actor=by, at=at, facts=facts, texts=texts)

    async def _settle(
        self, connection: AsyncConnection, letter: Letter, at: datetime, delivery: str, reason: str | None, **more: Any
    ) -> None:
        values = {"delivery": delivery, "delivery_reason": reason, **more}
        if letter.kind == "referral":
            await store.change(connection, letter.id, **values)
        else:
            concluded = None if delivery == "pending" else at
            await connection.execute(
                update(message).where(message.c.id == letter.id).values(concluded_at=concluded, **values)
            )

    async def _go_on(self, connection: AsyncConnection, current: Referral) -> None:
        """Let what waited behind a letter be sent; where nothing did, the job finds nothing."""
        await jobs.defer_delivery(connection, current.id)


async def dead(
    connection: AsyncConnection,
    mine: str | None,
    *,
    recipient: str | None = None,
    reason: str | None = None,
    after: UUID | None = None,
    limit: int,
) -> list[Letter]:
    """Return the letters to or from an institution (``None``: anybody's) that wait for a decision, by number."""
    values = {"mine": mine, "recipient": recipient, "reason": reason, "after": after, "most": limit}
    return [Letter(**row._mapping) for row in await connection.execute(_DEAD, values)]


async def _letter(connection: AsyncConnection, mine: str | None, letter_id: UUID) -> Letter | None:
    row = (await connection.execute(_ONE, {"mine": mine, "id": letter_id})).one_or_none()
    return None if row is None else Letter(**row._mapping)


def _only(institution: str | None) -> str | None:
    return None if institution in (None, COORDINATOR) else institution


def _of(actor: Actor, institution: str) -> None:
    if _only(actor.institution) not in (None, institution):
        raise errors.NotFound("not-found")


def _said(event: str, letter: Letter, current: Referral) -> dict[str, Any]:
    return {
        "event": event,
        "subject": str(current.person_id),
        "letter": str(letter.id),
        "referral": str(letter.referral_id),
        "kind": letter.kind,
        "institution": letter.recipient,
        "reason": letter.reason,
    }


def shown(lanes: Sequence[LaneStatus], at: datetime) -> list[dict[str, Any]]:
    """Return lanes as JSON."""
    return [lane.as_json(at) for lane in lanes]
