"""Takes what the requester of a referral does with it: asks to cancel it, withdraws or reopens it, sends a note.

Cancelling is a handshake of two (BSeR): the recipient confirms it, or its outcome or rejection wins the race.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import Caller
from gateway import errors
from gateway.clock import local_day
from gateway.commands import Command, Done, receipt_json, remember, remembered
from gateway.referrals import moves, outbox, states, store
from gateway.referrals.desk import Desk, require_reason
from gateway.referrals.models import Referral, Step
from schemas.canonical import sha256

#: The event of a note to the recipient, which moves nothing.
NOTE = "requester_note"
# What the recipient is told, by step; nobody has an open referral yet.
_MESSAGES = {"request_cancel": "cancel", "reopen": "reopen", "note": "note"}


async def step(desk: Desk, caller: Caller, command: Command, referral_id: UUID, taken: Step) -> Done:
    """Take a step of the requester's with its referral: 201, or Denied, BadRequest, NotFound, Conflict."""
    await desk.require(caller, "referral.send")
    if taken.reason_code is not None:
        require_reason(taken.reason_code, "cancel", "/reason/code")
    async with desk.attempt(caller, referral_id, taken.event) as attempt:
        try:
            async with desk.database.transaction() as connection:
                earlier = await remembered(connection, command)
                if earlier is not None:
                    return earlier
                current = await store.by_id(connection, referral_id, lock=True)
                if current is None or current.requester != caller.institution:
                    raise errors.NotFound("not-found")
                attempt.current = current
                done = await _take(connection, desk, caller, command, current, taken)
                await remember(connection, command, done)
                return done
        except IntegrityError:
            # Another one for the same person and service was made since this one was closed.
            raise errors.Conflict("already-referred") from None


async def _take(
    connection: AsyncConnection, desk: Desk, caller: Caller, command: Command, current: Referral, taken: Step
) -> Done:
    at = desk.now()
    if taken.event == "note":
        if current.state in states.TERMINAL or current.state == states.OPEN:
            raise moves.out_of_order(current.state, taken.event, moves.INITIATOR)
        reached = current.state
    else:
        reached = moves.reached(current, taken.event, moves.INITIATOR)
    facts = {} if taken.reason_code is None else {"reason": taken.reason_code}
    entry = desk.entry(
        "referral.step",
        caller,
        at,
        subject=current.person_id,
        referral=str(current.id),
        recipient=current.recipient,
        event=taken.event,
        state_before=current.state,
        state_after=reached,
        request_sha256=sha256(command.body).hex(),
        **facts,
    )
    texts = {name: text for name, text in (("reason", taken.reason_text), ("note", taken.note)) if text}
    if taken.event == "note":
        await store.add_event(
            connection,
            desk.vault,
            current,
            NOTE,
            actor=caller.institution,
            at=at,
            texts=texts,
            entry_id=entry.id,
        )
        receipt = await desk.audit.stage(connection, entry)
    else:
        receipt = await moves.perform(
            connection,
            desk.vault,
            desk.audit,
            current,
            taken.event,
            entry,
            actor=caller.institution,
            at=at,
            facts=facts,
            texts=texts,
            reason=taken.reason_code,
            due_on=await _new_term(desk, current, at) if taken.event == "reopen" else current.due_on,
        )
    if taken.event in _MESSAGES:
        number = await store.last_number(connection, current.id)
        said = taken.note or taken.reason_text
        await outbox.tell(
            connection,
            desk.vault,
            replace(current, state=reached),
            _MESSAGES[taken.event],
            event_number=number,
            texts={"text": said} if said else None,
        )
    return Done(201, {"id": str(current.id), "state": reached, "receipt": receipt_json(receipt)}, replayed=False)


async def _new_term(desk: Desk, current: Referral, at: datetime) -> date | None:
    """Return until when a reopened referral is to be answered: its service's term counts again."""
    service = (await desk.catalogue.services()).get(current.service)
    return current.due_on if service is None else local_day(at) + timedelta(days=service.response_days)
