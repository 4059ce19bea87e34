"""Creates referrals: decided, then in one transaction the row, its event, its entry and the job that delivers it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from typing import NamedTuple

import psycopg
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Receipt
from consent.decision import decide
from consent.models import REFERRAL_FIELDS, SEND, UNKNOWN_SUBJECT, Caller, Decision, Request, SubjectFacts
from gateway import errors, evidence, jobs
from gateway.catalogue.models import COORDINATOR, Service
from gateway.clock import local_day
from gateway.commands import Command, Done, receipt_json, remember, remembered
from gateway.lawful import require_codes
from gateway.referrals import states, store
from gateway.referrals.capacity import require_room
from gateway.referrals.desk import Desk, require_reason
from gateway.referrals.models import NewReferral, Referral
from gateway.registry import service as registry
from gateway.registry.models import NewPerson, PersonRef
from gateway.registry.populations import populations
from schemas.ages import category_of
from schemas.canonical import sha256
from schemas.errors import InvalidIdentifier
from schemas.ids import uuid7


class Decided(NamedTuple):
    """A new referral with the service it goes to, and the decision that permits or refuses it."""

    new: NewReferral
    service: Service
    request: Request
    decision: Decision


class Created(NamedTuple):
    """A referral as it was made, with the receipt of its entry; ``waits``: its service is full."""

    referral: Referral
    receipt: Receipt
    waits: bool


async def create(desk: Desk, caller: Caller, command: Command, new: NewReferral) -> Done:
    """Accept a referral: 201 and a receipt, or BadRequest, Denied, NotFound, Conflict; nothing in between."""
    try:
        return await _create(desk, caller, command, new)
    except (IntegrityError, psycopg.IntegrityError, errors.Conflict):
        # Somebody else registered the same person or number meanwhile, or the same command came twice at once: now it
        # is there to be found.
        return await _create(desk, caller, command, new)


async def decide_on(desk: Desk, caller: Caller, new: NewReferral, facts: SubjectFacts) -> Decided:
    """Decide a new referral about a person; raises BadRequest for codes that there are not.

    An open one must be permitted to each of its services so far as the request goes, and to one of them so far as the
    person goes: who is barred from a service is not told here, the claim is decided again.
    """
    services = await desk.catalogue.services()
    codes = new.candidates or (new.service,)
    for place, code in enumerate(codes):
        if code not in services:
            pointer = f"/services/{place}" if new.candidates else "/service"
            raise errors.BadRequest("unknown-service", pointer=pointer)
    require_reason(new.reason_code, "referral", "/reason/code")
    require_codes(new.purpose, new.basis)
    found = []
    for code in codes:
        request = Request(
            action=SEND,
            caller=caller,
            holder=services[code].institution,
            dataset=f"service:{code}",
            fields=REFERRAL_FIELDS,
            purpose=new.purpose,
            basis=new.basis,
            agreement=new.agreement,
            case=new.case,
            at=desk.now(),
            channel=new.channel,
            registers_subject=new.registers is not None,
        )
        decision = decide(request, facts, desk.policies.current, desk.volume.used)
        found.append(Decided(new, services[code], request, decision))
    plainly_no = [each for each in found if each.decision.permit is None and not each.decision.hides_subject]
    permitted = [each for each in found if each.decision.permit is not None]
    return (plainly_no or permitted or found)[0]


async def insert(
    connection: AsyncConnection,
    desk: Desk,
    command: Command,
    decided: Decided,
    who: PersonRef | NewPerson,
    facts: SubjectFacts,
) -> Created:
    """Make a permitted referral in the caller's transaction, delivery deferred; raises Conflict."""
    new, service, request, decision = decided
    open_to_all = bool(new.candidates)
    waits = False if open_to_all else await require_room(connection, service, waits=new.waitlist)
    due_on = local_day(request.at) + timedelta(days=service.response_days)
    current = await _row(connection, desk, decided, who, due_on)
    entry = evidence.decided(
        "referral.created",
        # Nobody's yet: an entry naming one of its services would be found there, also once another has claimed it.
        replace(request, holder=COORDINATOR) if open_to_all else request,
        decision,
        subject=who.id,
        facts=facts,
        correlation=new.correlation,
        exchange={
            "referral": str(current.id),
            "state_before": None,
            "state_after": current.state,
            "recipient": current.recipient,
            "request_sha256": sha256(command.body).hex(),
            **({"candidates": list(new.candidates)} if open_to_all else {}),
        },
    )
    await store.add_event(
        connection,
        desk.vault,
        current,
        "create",
        actor=current.requester,
        at=request.at,
        facts={
            "priority": new.priority,
            "reason": new.reason_code,
            **({"waitlist": True} if waits else {}),
            **new.event_facts,
        },
        texts={"reason": new.reason_text, "kept": new.kept} if new.reason_text or new.kept else None,
        entry_id=entry.id,
    )
    if not open_to_all:
        await jobs.defer_delivery(connection, current.id)
    return Created(current, await desk.audit.stage(connection, entry), waits)


def told(created: Created) -> dict[str, object]:
    """Return what the sender learns of a referral just made."""
    current, receipt, waits = created
    return {
        "id": str(current.id),
        "state": current.state,
        "recipient": current.recipient,
        "due_on": None if current.due_on is None else current.due_on.isoformat(),
        **({"waitlist": True} if waits else {}),
        "receipt": receipt_json(receipt),
    }


async def _create(desk: Desk, caller: Caller, command: Command, new: NewReferral) -> Done:
    known_as = _identifiers(new)
    who, facts = await _subject(desk, known_as)
    decided = await decide_on(desk, caller, new, facts)
    async with desk.database.transaction() as connection:
        earlier = await remembered(connection, command, lock=False)
        if earlier is not None:
            return earlier
        if decided.decision.permit is not None:
            requester = caller.institution
            if new.foreign is not None and await store.by_foreign(connection, requester, new.foreign):
                raise errors.Conflict("already-referred")
            person = await _person(connection, desk, new, who, known_as)
            created = await insert(connection, desk, command, decided, person, facts)
            done = Done(201, told(created), replayed=False)
            await remember(connection, command, done)
            desk.volume.count(decided.decision)
            return done
    raise await desk.denied(
        "referral.denied",
        decided.request,
        decided.decision,
        facts,
        correlation=new.correlation,
        request_sha256=sha256(command.body).hex(),
    )


async def _subject(desk: Desk, known_as: list[tuple[str, str]]) -> tuple[PersonRef | None, SubjectFacts]:
    for system, value in known_as:
        who, facts = await desk.subjects.find(system, value)
        if who is not None:
            return who, facts
    return None, UNKNOWN_SUBJECT


async def _person(
    connection: AsyncConnection, desk: Desk, new: NewReferral, who: PersonRef | None, known_as: list[tuple[str, str]]
) -> PersonRef | NewPerson:
    if who is not None:
        if new.registers is not None:
            await registry.add_identifiers(connection, desk.vault, who.id, known_as)
        return who
    if new.registers is None:
        raise errors.NotFound("not-found")
    person = replace(new.registers, identifiers=tuple(known_as))
    await registry.register(connection, desk.vault, [person])
    return person


async def _row(
    connection: AsyncConnection, desk: Desk, decided: Decided, who: PersonRef | NewPerson, due_on: date
) -> Referral:
    new, service, request, _decision = decided
    referral_id, caller, day = uuid7(), request.caller, local_day(request.at)
    texts = json.dumps({"reason": new.reason_text, "case": new.case}, ensure_ascii=False)
    system, value = new.foreign or (None, None)
    return await store.create(
        connection,
        groups=populations(who.sex, who.birth_date, who.attributes, poor=False, day=day),
        home=who.household_id,
        id=referral_id,
        person_id=who.id,
        service=service.code,
        requester=caller.institution,
        recipient=COORDINATOR if new.candidates else request.holder,
        client_id=caller.client_id,
        purpose=new.purpose,
        basis=new.basis,
        agreement=new.agreement,
        caller={
            "roles": sorted(caller.roles),
            "assurance": caller.assurance,
            "user_verified": caller.user_verified,
            "channel": new.channel,
        },
        reason_code=new.reason_code,
        texts=desk.vault.seal("referral.texts", referral_id, texts),
        priority=new.priority,
        state=states.OPEN if new.candidates else states.CREATED,
        # Nobody is sent an open one: who claims it gets it in the answer.
        delivery="none" if new.candidates else "pending",
        created_at=request.at,
        due_on=due_on,
        foreign_system=system,
        foreign_value=value,
        parent_id=new.parent,
        department=who.department,
        district=who.district,
        category=category_of(who.birth_date, day),
        candidates=list(new.candidates) or None,
        additional=new.additional or new.foreign is not None,
    )


def _identifiers(new: NewReferral) -> list[tuple[str, str]]:
    try:
        found = list(dict.fromkeys((system, registry.normalise(system, value)) for system, value in new.identifiers))
    except InvalidIdentifier:
        raise errors.BadRequest("bad-identifier", pointer="/subject/value") from None
    national = [system for system, _value in found if system in registry.NATIONAL]
    if len(national) != len(set(national)):
        raise errors.BadRequest("bad-identifier", pointer="/subject/value")
    return found
