"""The steps of a person's request, each as the work that ``Governance`` does in one transaction with its log entry."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, update
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.keys import Epochs
from audit.service import AuditLog
from consent import people, restrictions
from consent.models import Actor
from consent.sameness import share
from gateway import errors, evidence
from gateway.catalogue.models import COORDINATOR
from gateway.catalogue.service import institutions
from gateway.clock import local_day
from gateway.governance.service import Work, answer_of
from gateway.registry import service as registry
from gateway.registry.merging import same_persons
from gateway.rights import refusals, routing, store, terms
from gateway.rights.models import (
    ANSWERED,
    FORWARDED,
    OPEN,
    RECEIVED,
    ROUTED,
    TRANSITIONS,
    WITHDRAWN,
    Answer,
    Identifier,
    NewRequest,
)
from gateway.rights.tables import rights_part, rights_request
from gateway.vault import Vault
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier
from schemas.ids import uuid7

# What may be told of somebody who is not known to be the person.
_WITHOUT_IDENTITY = frozenset({"refused", "not-held"})


class Steps:
    """Makes the work of each step; a request that is not there, or not theirs, is NotFound."""

    def __init__(self, *, vault: Vault, epochs: Epochs, audit: AuditLog) -> None:
        """``epochs`` opens the details of the log, which says who holds something of a person."""
        self._vault, self._epochs, self._audit = vault, epochs, audit

    def receiving(self, new: NewRequest, *, in_person: bool = False) -> Work:
        """Register a request, and route it where that needs nobody to decide; ``in_person``: by the person's own token.

        Raises BadRequest for a code or identifier that is not one.
        """
        _check_new(new)
        subject = _normal(new.subject, "/subject/value")
        other = None if new.representative is None else _normal(new.representative, "/representative/value")

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            request_id, due = uuid7(), terms.due_on(new.right, at)
            asking = await routing.identify(connection, self._vault, subject, other, at)
            await connection.execute(
                rights_request.insert().values(
                    id=request_id,
                    right=new.right,
                    person_id=None if asking is None else asking.who.id,
                    representative_id=None if asking is None else asking.representative,
                    identity=store.seal_identity(self._vault, request_id, subject, other) if asking is None else None,
                    dataset=new.dataset,
                    purpose=new.purpose,
                    text=None if new.text is None else self._vault.seal(store.TEXT, request_id, new.text),
                    received_by=None if in_person else actor.institution,
                    received_at=at,
                    due_on=due,
                )
            )
            to: frozenset[str] = frozenset()
            if asking is not None and not asking.guarded:
                to = await routing.destinations(connection, self._epochs, asking, new.dataset)
            await store.add_parts(connection, request_id, to or {COORDINATOR}, ROUTED if to else RECEIVED, at)
            return {
                "event": "rights.received",
                "subject": None if asking is None else str(asking.who.id),
                "request": str(request_id),
                "right": new.right,
                "dataset": new.dataset,
                "purpose": new.purpose,
                "received_at": at.isoformat(),
                "due_on": due.isoformat(),
                "routed_to": sorted(to),
            }

        return work

    def routing(self, request_id: UUID, to: Iterable[str], subject: Identifier | None) -> Work:
        """Send a request on to institutions; only the coordinator does, and whoever runs the machine.

        ``subject`` says who asks where the identifier presented was not known. Raises Conflict while nobody is.
        """
        targets = frozenset(to)
        known = None if subject is None else _normal(subject, "/subject/value")

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            if actor.institution not in (None, COORDINATOR):
                raise errors.NotFound("not-found")
            row = await store.request(connection, request_id, lock=True)
            parts = await store.parts(connection, [request_id], COORDINATOR)
            if not parts and actor.institution is not None:
                raise errors.NotFound("not-found")
            listed = await institutions(connection)
            if not targets <= listed:
                raise refusals.unknown_code("/institutions", listed)
            person_id = row.person_id or await self._settle(connection, row, known, at)
            await store.add_parts(connection, request_id, targets, ROUTED, at)
            if parts and parts[0].state == RECEIVED:
                own: dict[str, Any] = {"state": ROUTED}
                if COORDINATOR not in targets:
                    own = {"state": ANSWERED, "outcome": FORWARDED, "answered_by": str(actor)}
                await store.change_part(connection, request_id, COORDINATOR, state_at=at, **own)
            return _said("rights.routed", row, person_id, routed_to=sorted(targets))

        return work

    async def _settle(self, connection: AsyncConnection, row: Row[Any], known: Identifier | None, at: datetime) -> UUID:
        """Find out who asks, by another identifier if one is given, and forget as whom they presented themselves."""
        subject, other = store.presented(self._vault, row)
        asking = await routing.identify(connection, self._vault, known or subject, other, at)
        if asking is None:
            raise refusals.unresolved()
        await connection.execute(
            update(rights_request)
            .where(rights_request.c.id == row.id)
            .values(person_id=asking.who.id, representative_id=asking.representative, identity=None)
        )
        return asking.who.id

    def starting(self, request_id: UUID, institution: str) -> Work:
        """Begin with an institution's part."""

        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            row = await store.request(connection, request_id, lock=True)
            part = await store.part_of(connection, request_id, institution)
            state = _next(part.state, "start")
            await store.change_part(connection, request_id, institution, state=state, state_at=at)
            return _said("rights.started", row, row.person_id, by=institution, state=state)

        return work

    def answering(self, request_id: UUID, answer: Answer, institution: str) -> Work:
        """Answer an institution's part; a granted opposition and a restriction are in force when this commits.

        Raises BadRequest for an outcome that does not go with the right or lacks what it needs, Conflict out of order.
        """

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            row = await store.request(connection, request_id, lock=True)
            part = await store.part_of(connection, request_id, institution)
            _check_answer(row.right, answer, at)
            state = _next(part.state, "answer")
            if row.person_id is None and answer.outcome not in _WITHOUT_IDENTITY:
                raise refusals.unresolved()
            effective_on = None
            if row.right == "opposition" and answer.outcome == "granted":
                effective_on = local_day(at)
                objection = await people.object_to(connection, row.person_id, row.purpose, at=at)
                await self._also(connection, objection, actor, at)
            if answer.until is not None and row.person_id is not None:
                restriction = await restrictions.restrict(
                    connection,
                    row.person_id,
                    norm=answer.norm or "",
                    reference=str(request_id),
                    until=answer.until,
                    at=at,
                    holder=institution,
                    dataset=row.dataset or "",
                )
                await self._also(connection, restriction, actor, at)
            if row.person_id is not None:
                await share(connection, await same_persons(connection, row.person_id))
            reference, sha256 = answer.delivered or (None, None)
            told = {
                "outcome": answer.outcome,
                "norm": answer.norm,
                "until": answer.until,
                "effective_on": effective_on,
            }
            await store.change_part(
                connection,
                request_id,
                institution,
                state=state,
                state_at=at,
                answer=store.seal_answer(self._vault, request_id, institution, answer.text, reference),
                sha256=None if sha256 is None else bytes.fromhex(sha256),
                answered_by=str(actor),
                **told,
            )
            dates = {name: None if told[name] is None else str(told[name]) for name in ("until", "effective_on")}
            late = terms.is_over(row.due_on, at)
            said = told | dates | {"sha256": sha256, "state": state, "late": late}
            return _said("rights.answered", row, row.person_id, by=institution, **said)

        return work

    async def _also(self, connection: AsyncConnection, said: dict[str, Any], actor: Actor, at: datetime) -> None:
        """Stage the entry of a change that comes with a step."""
        entry = evidence.entry(
            said["event"],
            "done",
            at=at,
            policy_version="none",
            subject=UUID(said["subject"]),
            actor={"institution": actor.institution, "user": actor.user},
            what=answer_of(said),
        )
        await self._audit.stage(connection, entry)

    def withdrawing(self, request_id: UUID, person: UUID | None) -> Work:
        """Withdraw what is open: ``person`` asks, who acts for them, or else the institution that took the request."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            row = await store.request(connection, request_id, lock=True)
            if person is not None:
                await self.require_own(connection, row, person, at)
            elif actor.institution not in (None, row.received_by):
                raise errors.NotFound("not-found")
            open_parts = (rights_part.c.request_id == request_id, rights_part.c.state.in_(OPEN))
            done = await connection.execute(update(rights_part).where(*open_parts).values(state=WITHDRAWN, state_at=at))
            if not done.rowcount:
                raise refusals.rights_out_of_order()
            return _said("rights.withdrawn", row, row.person_id)

        return work

    async def require_own(self, connection: AsyncConnection, row: Row[Any], person: UUID, at: datetime) -> None:
        """Raise NotFound unless a request is a person's own, or of somebody they asked for and still may act for."""
        if row.person_id == person:
            return
        if row.representative_id == person:
            who = await registry.find_person(connection, self._vault, "siis", str(row.person_id))
            if who is not None and await routing.may_act(connection, who, person, at):
                return
        raise errors.NotFound("not-found")


def _check_new(new: NewRequest) -> None:
    lists = (("right", "rights", new.right), ("dataset", "datasets", new.dataset), ("purpose", "purposes", new.purpose))
    for name, codes, given in lists:
        if given is not None and given not in code_list(codes):
            raise refusals.unknown_code(f"/{name}", code_list(codes))
    if (new.right == "opposition") != (new.purpose is not None):
        raise refusals.purpose_with_opposition()


def _check_answer(right: str, answer: Answer, at: datetime) -> None:
    spec = code_list("rights")[right]
    if answer.outcome not in spec["outcomes"]:
        raise refusals.unknown_code("/outcome", spec["outcomes"])
    if code_list("rights-outcomes")[answer.outcome].get("reasoned"):
        for name, given in (("norm", answer.norm), ("text", answer.text)):
            if not given:
                raise refusals.no_reason(name)
    delivers = bool(spec.get("delivers")) and answer.outcome in ("granted", "partly")
    if delivers != (answer.delivered is not None):
        raise refusals.delivery()
    if (answer.outcome == "restricted") != (answer.until is not None):
        raise refusals.restriction_end()
    if answer.until is not None and answer.until <= local_day(at):
        raise refusals.restriction_end()


def _next(state: str, step: str) -> str:
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise refusals.rights_out_of_order() from None


def _normal(identifier: Identifier, pointer: str) -> Identifier:
    try:
        return identifier[0], registry.normalise(*identifier)
    except InvalidIdentifier:
        raise errors.BadRequest("bad-identifier", pointer=pointer) from None


def _said(event: str, row: Row[Any], person: UUID | None, **more: Any) -> dict[str, Any]:
    return {
        "event": event,
        "subject": None if person is None else str(person),
        "request": str(row.id),
        "right": row.right,
        **more,
    }
