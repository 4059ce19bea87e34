"""Takes what the recipient of a referral reports of it (contrarreferencia), and a reviewer's note."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.models import Reply
from audit import receipts
from consent.models import Caller
from gateway import errors, evidence
from gateway.commands import Command, Done, receipt_json, remember, remembered
from gateway.referrals import moves, store
from gateway.referrals.desk import Desk, require_reason
from gateway.referrals.models import Referral, ReviewNote
from schemas.canonical import sha256

# For which events a reason is asked, and the use that it must be meant for.
_REASONS = {"decline": "decline", "hold": "hold", "outcome": "not_provided"}


async def reply(desk: Desk, caller: Caller, command: Command, told: Reply) -> Done:
    """Take a counter-referral in a transaction of its own; see :func:`apply`. What is refused is on record."""
    await desk.require(caller, "referral.reply")
    async with desk.attempt(caller, told.referral_id, told.event) as attempt, desk.database.transaction() as connection:
        earlier = await remembered(connection, command)
        if earlier is not None:
            return earlier
        current = await _mine(connection, told.referral_id, caller.institution)
        attempt.current = current
        actor = {**evidence.actor(caller), "channel": "api"}
        came = {"request_sha256": sha256(command.body).hex()}
        done = await _apply(connection, desk, current, told, actor=actor, came=came)
        await remember(connection, command, done)
        return done


async def apply(
    connection: AsyncConnection,
    desk: Desk,
    institution: str,
    told: Reply,
    *,
    actor: dict[str, Any],
    came: dict[str, Any],
) -> Done:
    """Move a referral by what its recipient reports, and update the protection status with a result.

    ``actor`` and ``came`` are what the log says of who reported it, and how it came.

    Raises NotFound when the referral is not the institution's, Conflict when the event is out of order. A message that
    came before is answered as before and changes nothing.
    """
    current = await _mine(connection, told.referral_id, institution)
    return await _apply(connection, desk, current, told, actor=actor, came=came)


async def _mine(connection: AsyncConnection, referral_id: UUID, institution: str) -> Referral:
    current = await store.by_id(connection, referral_id, lock=True)
    if current is None or current.recipient != institution:
        raise errors.NotFound("not-found")
    return current


async def _apply(
    connection: AsyncConnection,
    desk: Desk,
    current: Referral,
    told: Reply,
    *,
    actor: dict[str, Any],
    came: dict[str, Any],
) -> Done:
    entry_id = await store.entry_of_message(connection, current.id, current.recipient, told.message_id)
    if entry_id is not None:
        return Done(200, await _as_before(connection, current, entry_id), replayed=True)
    if told.reason_code is not None:
        require_reason(told.reason_code, _REASONS.get(told.event, "not_provided"), "/reason/code")
    reached = moves.reached(current, told.event, moves.RECIPIENT)
    at = desk.now()
    codes = {"outcome": told.outcome, "reason": told.reason_code, "appointment_at": told.appointment_at}
    facts = {name: value for name, value in codes.items() if value is not None}
    written = {"reason": told.reason_text, "place": told.place, "proof": told.proof_reference}
    entry = evidence.entry(
        "counterreferral.received",
        "done",
        at=at,
        subject=current.person_id,
        policy_version=desk.policies.current.version,
        actor=actor,
        exchange={
            "referral": str(current.id),
            "requester": current.requester,
            "message": told.message_id,
            "event": told.event,
            "state_before": current.state,
            "state_after": reached,
            **came,
            **facts,
        },
    )
    receipt = await moves.perform(
        connection,
        desk.vault,
        desk.audit,
        current,
        told.event,
        entry,
        actor=current.recipient,
        at=at,
        occurred_on=told.occurred_on,
        message_id=told.message_id,
        facts=facts,
        texts={name: value for name, value in written.items() if value},
        outcome=told.outcome,
        reason=told.reason_code,
    )
    return Done(201, {"id": str(current.id), "state": reached, "receipt": receipt_json(receipt)}, replayed=False)


async def _as_before(connection: AsyncConnection, current: Referral, entry_id: UUID) -> dict[str, Any]:
    """Return the answer to a report that came before, with the receipt of its entry."""
    answer: dict[str, Any] = {"id": str(current.id), "state": current.state}
    receipt = await receipts.of(connection, entry_id)
    return answer if receipt is None else {**answer, "receipt": receipt_json(receipt)}


async def review(desk: Desk, caller: Caller, command: Command, note: ReviewNote) -> Done:
    """Add a reviewer's note to the requester's referral with a foreign number; Denied, NotFound when there is none."""
    await desk.require(caller, "referral.send")
    async with desk.database.transaction() as connection:
        earlier = await remembered(connection, command)
        if earlier is not None:
            return earlier
        current = await store.by_foreign(connection, caller.institution, note.foreign, lock=True)
        if current is None:
            raise errors.NotFound("not-found")
        at = desk.now()
        entry = desk.entry(
            "referral.reviewed",
            caller,
            at,
            subject=current.person_id,
            referral=str(current.id),
            state_before=current.state,
            state_after=current.state,
            request_sha256=sha256(command.body).hex(),
            **note.facts,
        )
        await store.add_event(
            connection,
            desk.vault,
            current,
            "review",
            actor=caller.institution,
            at=at,
            facts=note.facts,
            texts=note.texts,
            entry_id=entry.id,
        )
        receipt = await desk.audit.stage(connection, entry)
        answer = {"id": str(current.id), "state": current.state, "receipt": receipt_json(receipt)}
        done = Done(201, answer, replayed=False)
        await remember(connection, command, done)
        return done
