"""Creates referrals and takes counter-referrals: each in one transaction with its event, entry and delivery job."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.models import Reply
from audit import receipts
from audit.models import Receipt
from audit.service import AuditLog
from consent.decision import decide
from consent.models import REFERRAL_FIELDS, SEND, UNKNOWN_SUBJECT, Caller, Decision, Request, SubjectFacts
from consent.policy import PolicyStore
from consent.volume import Volume
from gateway import errors, evidence, jobs
from gateway.catalogue.models import Service
from gateway.catalogue.service import Catalogue
from gateway.clock import local_day, utc_now
from gateway.commands import Command, Done, receipt_json, remember, remembered
from gateway.database import Database
from gateway.lawful import require_codes
from gateway.referrals import states, store
from gateway.referrals.models import NewReferral, Referral, ReferralEvent, ReviewNote
from gateway.registry import service as registry
from gateway.registry.lookup import SubjectLookup
from gateway.registry.models import PersonRef
from gateway.vault import Vault
from schemas.canonical import sha256
from schemas.codes import code_list, require_code
from schemas.errors import InvalidIdentifier, UnknownCode
from schemas.ids import uuid7


class ReferralService:
    """The referral journey up to the job that delivers, and back from the reply."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        catalogue: Catalogue,
        subjects: SubjectLookup,
        audit: AuditLog,
        policies: PolicyStore,
        volume: Volume,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database, self._vault, self._catalogue = database, vault, catalogue
        self._subjects, self._audit, self._policies, self._volume, self._now = subjects, audit, policies, volume, now

    async def create(self, caller: Caller, command: Command, new: NewReferral) -> Done:
        """Accept a referral: 201 and a receipt, or BadRequest, Denied, NotFound, Conflict; nothing in between."""
        try:
            return await self._create(caller, command, new)
        except IntegrityError:
            # Somebody else registered the same person or number meanwhile: now it is there to be found.
            return await self._create(caller, command, new)

    async def _create(self, caller: Caller, command: Command, new: NewReferral) -> Done:
        service = (await self._catalogue.services()).get(new.service)
        if service is None:
            raise errors.BadRequest("unknown-service", pointer="/service")
        _require_reason(new.reason_code, "referral", "/reason/code")
        require_codes(new.purpose, new.basis)
        known_as = _identifiers(new)
        who, facts = await self._subject(known_as)
        request = Request(
            action=SEND,
            caller=caller,
            holder=service.institution,
            dataset=f"service:{service.code}",
            fields=REFERRAL_FIELDS,
            purpose=new.purpose,
            basis=new.basis,
            agreement=new.agreement,
            case=new.case,
            at=self._now(),
            channel=new.channel,
            registers_subject=new.registers is not None,
        )
        decision = decide(request, facts, self._policies.current, self._volume.used)
        async with self._database.transaction() as connection:
            earlier = await remembered(connection, command)
            if earlier is not None:
                return earlier
            if decision.permit is not None:
                done = await self._store(connection, command, new, request, decision, who, facts, known_as, service)
                self._volume.count(decision)
                return done
        await self._deny(command, request, decision, facts, new.correlation)
        raise errors.NotFound("not-found")

    async def _store(
        self,
        connection: AsyncConnection,
        command: Command,
        new: NewReferral,
        request: Request,
        decision: Decision,
        who: PersonRef | None,
        facts: SubjectFacts,
        known_as: list[tuple[str, str]],
        service: Service,
    ) -> Done:
        requester = request.caller.institution
        if new.foreign is not None and await store.by_foreign(connection, requester, new.foreign):
            raise errors.Conflict("already-referred")
        person_id = await self._person(connection, new, who, known_as)
        due_on = local_day(request.at) + timedelta(days=service.response_days)
        current = await self._insert(connection, request, new, person_id, due_on)
        entry = evidence.decided(
            "referral.created",
            request,
            decision,
            subject=person_id,
            facts=facts,
            correlation=new.correlation,
            exchange={
                "referral": str(current.id),
                "state_before": None,
                "state_after": current.state,
                "recipient": current.recipient,
                "request_sha256": sha256(command.body).hex(),
            },
        )
        await store.add_event(
            connection,
            self._vault,
            current,
            "create",
            actor=requester,
            at=request.at,
            facts={"priority": new.priority, "reason": new.reason_code, **new.event_facts},
            texts={"reason": new.reason_text, "kept": new.kept} if new.reason_text or new.kept else None,
            entry_id=entry.id,
        )
        await jobs.defer_delivery(connection, current.id)
        receipt = await self._audit.stage(connection, entry)
        answer = {
            "id": str(current.id),
            "state": current.state,
            "recipient": current.recipient,
            "due_on": due_on.isoformat(),
            "receipt": receipt_json(receipt),
        }
        done = Done(201, answer, replayed=False)
        await remember(connection, command, done)
        return done

    async def _deny(
        self, command: Command, request: Request, decision: Decision, facts: SubjectFacts, correlation: str | None
    ) -> None:
        entry = evidence.decided(
            "referral.denied",
            request,
            decision,
            subject=facts.subject,
            facts=facts,
            correlation=correlation,
            exchange={"request_sha256": sha256(command.body).hex()},
        )
        receipt = await self._audit.append(entry)
        if decision.hides_subject:
            raise errors.NotFound("not-found", receipt=receipt)
        raise errors.Denied(decision.reasons, receipt)

    async def reply(self, caller: Caller, command: Command, reply: Reply) -> Done:
        """Take a counter-referral in a transaction of its own; see :meth:`apply`."""
        async with self._database.transaction() as connection:
            earlier = await remembered(connection, command)
            if earlier is not None:
                return earlier
            actor = {**evidence.actor(caller), "channel": "api"}
            came = {"request_sha256": sha256(command.body).hex()}
            done = await self.apply(connection, caller.institution, reply, actor=actor, came=came)
            await remember(connection, command, done)
            return done

    async def apply(
        self,
        connection: AsyncConnection,
        institution: str,
        reply: Reply,
        *,
        actor: dict[str, Any],
        came: dict[str, Any],
    ) -> Done:
        """Move a referral by what its recipient reports, and update the protection status with a result.

        ``actor`` and ``came`` are what the log says of who reported it, and how it came.

        Raises NotFound when the referral is not the institution's, Conflict when the event is out of order. A
        message that came before is answered as before and changes nothing.
        """
        current = await store.by_id(connection, reply.referral_id, lock=True)
        if current is None or current.recipient != institution:
            raise errors.NotFound("not-found")
        told = await store.entry_of_message(connection, current.id, institution, reply.message_id)
        if told is not None:
            return Done(200, await self._as_before(connection, current, told), replayed=True)
        if reply.reason_code is not None:
            _require_reason(reply.reason_code, "decline" if reply.event == "decline" else "not_provided", "/reason")
        steps = states.path(current.state, reply.event)
        if steps is None:
            raise errors.Conflict("out-of-order", detail=f"{current.state} → {reply.event}")
        at = self._now()
        after = current.state
        for kind in steps[:-1]:
            after = await store.add_event(
                connection, self._vault, current, kind, actor=institution, at=at, state_before=after, synthesised=True
            )
        codes = {"outcome": reply.outcome, "reason": reply.reason_code, "appointment_at": reply.appointment_at}
        facts = {name: value for name, value in codes.items() if value is not None}
        written = {"reason": reply.reason_text, "place": reply.place, "proof": reply.proof_reference}
        texts = {name: value for name, value in written.items() if value}
        reached = states.TRANSITIONS[(after, reply.event)]
        entry = evidence.entry(
            "counterreferral.received",
            "done",
            at=at,
            subject=current.person_id,
            policy_version=self._policies.current.version,
            actor=actor,
            exchange={
                "referral": str(current.id),
                "requester": current.requester,
                "message": reply.message_id,
                "event": reply.event,
                "state_before": current.state,
                "state_after": reached,
                **came,
                **facts,
            },
        )
        receipt = await self._audit.stage(connection, entry)
        await store.add_event(
            connection,
            self._vault,
            current,
            reply.event,
            actor=institution,
            at=at,
            state_before=after,
            occurred_on=reply.occurred_on,
            message_id=reply.message_id,
            facts=facts,
            texts=texts,
            entry_id=entry.id,
        )
        values: dict[str, Any] = {"state": reached}
        if current.state == states.CREATED:
            values["delivery"] = "transmitted"
        await store.change(connection, current.id, **values)
        if reply.outcome is not None:
            await self._update_status(connection, current, reply)
        return Done(201, {"id": str(current.id), "state": reached, "receipt": receipt_json(receipt)}, replayed=False)

    async def _as_before(self, connection: AsyncConnection, current: Referral, entry_id: UUID) -> dict[str, Any]:
        """Return the answer to a report that came before, with the receipt of its entry."""
        answer: dict[str, Any] = {"id": str(current.id), "state": current.state}
        receipt = await receipts.of(connection, entry_id)
        return answer if receipt is None else {**answer, "receipt": receipt_json(receipt)}

    async def review(self, caller: Caller, command: Command, note: ReviewNote) -> Done:
        """Add a reviewer's note to the requester's referral with a foreign number; NotFound when there is none."""
        async with self._database.transaction() as connection:
            earlier = await remembered(connection, command)
            if earlier is not None:
                return earlier
            current = await store.by_foreign(connection, caller.institution, note.foreign, lock=True)
            if current is None:
                raise errors.NotFound("not-found")
            at = self._now()
            entry = evidence.entry(
                "referral.reviewed",
                "done",
                at=at,
                policy_version=self._policies.current.version,
                subject=current.person_id,
                actor=evidence.actor(caller),
                exchange={
                    "referral": str(current.id),
                    "state_before": current.state,
                    "state_after": current.state,
                    "request_sha256": sha256(command.body).hex(),
                    **note.facts,
                },
            )
            receipt = await self._audit.stage(connection, entry)
            await store.add_event(
                connection,
                self._vault,
                current,
                "review",
                actor=caller.institution,
                at=at,
                facts=note.facts,
                texts=note.texts,
                entry_id=entry.id,
            )
            answer = {"id": str(current.id), "state": current.state, "receipt": receipt_json(receipt)}
            done = Done(201, answer, replayed=False)
            await remember(connection, command, done)
            return done

    async def read(self, caller: Caller, referral_id: UUID) -> tuple[Referral, list[ReferralEvent], Receipt]:
        """Return a referral with its events to one of its two parties; the reading is an entry too."""
        async with self._database.connection() as connection:
            current = await store.by_id(connection, referral_id)
            if current is None or caller.institution not in (current.requester, current.recipient):
                raise errors.NotFound("not-found")
            happened = await store.events(connection, self._vault, referral_id)
        receipt = await self._audit.append(
            evidence.entry(
                "referral.read",
                "done",
                at=self._now(),
                policy_version=self._policies.current.version,
                subject=current.person_id,
                actor=evidence.actor(caller),
                exchange={"referral": str(referral_id)},
            )
        )
        return current, happened, receipt

    async def _subject(self, known_as: list[tuple[str, str]]) -> tuple[PersonRef | None, SubjectFacts]:
        for system, value in known_as:
            who, facts = await self._subjects.find(system, value)
            if who is not None:
                return who, facts
        return None, UNKNOWN_SUBJECT

    async def _person(
        self, connection: AsyncConnection, new: NewReferral, who: PersonRef | None, known_as: list[tuple[str, str]]
    ) -> UUID:
        if who is not None:
            if new.registers is not None:
                await registry.add_identifiers(connection, self._vault, who.id, known_as)
            return who.id
        if new.registers is None:
            raise errors.NotFound("not-found")
        await registry.register(connection, self._vault, [replace(new.registers, identifiers=tuple(known_as))])
        return new.registers.id

    async def _insert(
        self, connection: AsyncConnection, request: Request, new: NewReferral, person_id: UUID, due_on: date
    ) -> Referral:
        referral_id, caller = uuid7(), request.caller
        texts = json.dumps({"reason": new.reason_text, "case": new.case}, ensure_ascii=False)
        system, value = new.foreign or (None, None)
        return await store.create(
            connection,
            id=referral_id,
            person_id=person_id,
            service=new.service,
            requester=caller.institution,
            recipient=request.holder,
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
            texts=self._vault.seal("referral.texts", referral_id, texts),
            priority=new.priority,
            state=states.CREATED,
            delivery="pending",
            created_at=request.at,
            due_on=due_on,
            foreign_system=system,
            foreign_value=value,
        )

    async def _update_status(self, connection: AsyncConnection, current: Referral, reply: Reply) -> None:
        services = await self._catalogue.services()
        who = await registry.find_person(connection, self._vault, "siis", str(current.person_id))
        if reply.outcome is None or who is None or current.service not in services:
            return
        await registry.record_fact(
            connection,
            person_id=current.person_id,
            household_id=who.household_id,
            service=services[current.service],
            protected=code_list("outcomes")[reply.outcome]["protected"],
            source=current.recipient,
            instrument="counter-referral",
            observed_on=reply.occurred_on,
            referral_id=current.id,
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


def _require_reason(code: str, use: str, pointer: str) -> None:
    try:
        uses = require_code("reasons", code)["use"]
    except UnknownCode:
        raise errors.BadRequest("unknown-reason", pointer=pointer) from None
    if use not in uses:
        raise errors.BadRequest("unknown-reason", pointer=pointer)
