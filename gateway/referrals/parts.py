"""Splits a referral: its recipient refers the person on to several services, each part with a life of its own.

FHIR calls it ``basedOn`` and ``partOf`` (Gravity SDOH Clinical Care 3.0.0, coordination platform). The whole is under
way meanwhile, and is completed when its last part is closed (``moves.summed_up``).
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import Caller, SubjectFacts
from gateway import errors
from gateway.commands import Command, Done, receipt_json, remember, remembered
from gateway.referrals import creation, moves, states, store
from gateway.referrals.creation import Decided
from gateway.referrals.desk import Desk
from gateway.referrals.models import NewPart, NewParts, NewReferral, Referral
from gateway.registry.models import PersonRef
from schemas.canonical import sha256

#: The event of a further split, which moves nothing: the first one starts the work.
SPLIT = "split"
# In these a recipient is at work already; from the others ``start`` leads there.
_AT_WORK = frozenset({states.ACTIVE, states.SCHEDULED, states.EVENT_DONE, states.ON_HOLD})
_OF_A_PART = frozenset({"/service", "/reason/code"})


async def split(desk: Desk, caller: Caller, command: Command, referral_id: UUID, asked: NewParts) -> Done:
    """Make all parts of a referral or none: 201 with the parts and their receipts.

    Each part is decided like any referral, with the recipient of the whole as its requester. Raises BadRequest with
    the part's pointer, Denied, NotFound, Conflict.
    """
    async with desk.attempt(caller, referral_id, SPLIT) as attempt:
        async with desk.database.connection() as connection:
            whole = _mine(await store.by_id(connection, referral_id), caller)
        attempt.current = whole
        who, facts = await desk.subjects.find("siis", str(whole.person_id))
        if who is None:
            raise errors.NotFound("not-found")
        decided = await _decide(desk, caller, command, whole, asked, facts)
        async with desk.database.transaction() as connection:
            earlier = await remembered(connection, command)
            if earlier is not None:
                return earlier
            attempt.current = _mine(await store.by_id(connection, referral_id, lock=True), caller)
            answer = await _make(connection, desk, caller, command, attempt.current, decided, who, facts)
            done = Done(201, answer, replayed=False)
            await remember(connection, command, done)
        for each in decided:
            desk.volume.count(each.decision)
        return done


def _mine(whole: Referral | None, caller: Caller) -> Referral:
    if whole is None or whole.recipient != caller.institution:
        raise errors.NotFound("not-found")
    return whole


async def _decide(
    desk: Desk, caller: Caller, command: Command, whole: Referral, asked: NewParts, facts: SubjectFacts
) -> list[Decided]:
    decided = []
    for place, part in enumerate(asked.parts):
        try:
            decided.append(await creation.decide_on(desk, caller, _referral(asked, part, whole), facts))
        except errors.BadRequest as error:
            if error.pointer in _OF_A_PART:
                error.pointer = f"/parts/{place}{error.pointer}"
            raise
    for each in decided:
        if each.decision.permit is None:
            raise await desk.denied(
                "referral.denied",
                each.request,
                each.decision,
                facts,
                correlation=asked.correlation,
                request_sha256=sha256(command.body).hex(),
            )
    # Whoever splits at the same moment comes to the same full services in the same order.
    return sorted(decided, key=lambda each: each.service.code)


async def _make(
    connection: AsyncConnection,
    desk: Desk,
    caller: Caller,
    command: Command,
    whole: Referral,
    decided: list[Decided],
    who: PersonRef,
    facts: SubjectFacts,
) -> dict[str, Any]:
    starts = whole.state not in _AT_WORK
    reached = moves.reached(whole, "start", moves.RECIPIENT) if starts else whole.state
    made = [await creation.insert(connection, desk, command, each, who, facts) for each in decided]
    at = desk.now()
    entry = desk.entry(
        "referral.split",
        caller,
        at,
        subject=whole.person_id,
        referral=str(whole.id),
        requester=whole.requester,
        parts=[str(each.referral.id) for each in made],
        state_before=whole.state,
        state_after=reached,
        request_sha256=sha256(command.body).hex(),
    )
    by, told = caller.institution, {"parts": len(made)}
    if starts:
        receipt = await moves.perform(
            connection, desk.vault, desk.audit, whole, "start", entry, actor=by, at=at, facts=told
        )
    else:
        await store.add_event(connection, desk.vault, whole, SPLIT, actor=by, at=at, facts=told, entry_id=entry.id)
        receipt = await desk.audit.stage(connection, entry)
    return {
        "id": str(whole.id),
        "state": reached,
        "parts": [{"service": each.referral.service, **creation.told(each)} for each in made],
        "receipt": receipt_json(receipt),
    }


def _referral(asked: NewParts, part: NewPart, whole: Referral) -> NewReferral:
    return NewReferral(
        identifiers=(("siis", str(whole.person_id)),),
        service=part.service,
        reason_code=part.reason_code,
        reason_text=part.reason_text,
        priority=part.priority,
        purpose=asked.purpose,
        basis=asked.basis,
        agreement=asked.agreement,
        case=asked.case,
        correlation=asked.correlation,
        waitlist=part.waitlist,
        parent=whole.id,
    )
