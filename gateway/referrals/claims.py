"""Open referrals: any service among those named may claim one; the first to claim it gets it, and the person's data."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Entry, Receipt
from consent.models import Caller
from gateway import errors, evidence
from gateway.catalogue.models import Service
from gateway.clock import local_day
from gateway.commands import Command, Done, receipt_json, remember, remembered
from gateway.referrals import lists, moves, states, store
from gateway.referrals.desk import Desk
from gateway.referrals.models import Claimable, Referral
from gateway.referrals.releases import Release, refuse_while_stopped, releases
from schemas.canonical import sha256


class _Claim(NamedTuple):
    """Who claims an open referral, for which service of theirs, by which command."""

    actor: dict[str, Any]
    service: Service
    command: Command


async def claim(desk: Desk, caller: Caller, command: Command, referral_id: UUID, service: str) -> Done:
    """Let an institution take an open referral for a service of its own: 201 with the released data of the person.

    The decision is taken again, for this institution. Raises NotFound for what is not open to it, Conflict once
    somebody else has it, Denied, or EvidenceStopped while the log's witnesses are missing. The repetition of a claim
    decides again too, and shows the data again.
    """
    await desk.require(caller, "referral.reply")
    actor = {**evidence.actor(caller), "channel": "api"}
    version = desk.policies.current.version
    await refuse_while_stopped(desk.audit, desk.quorum, "referral.stopped", actor=actor, version=version, at=desk.now())
    async with desk.attempt(caller, referral_id, "claim"):
        own = (await desk.catalogue.services()).get(service)
        if own is None or own.institution != caller.institution:
            raise errors.NotFound("not-found")
        asked = _Claim(actor, own, command)
        try:
            async with desk.database.transaction() as connection:
                taken = await _claim(connection, desk, asked, referral_id)
        except IntegrityError:
            # The same requester referred this person to this very service as well.
            raise errors.Conflict("already-referred") from None
        if isinstance(taken, Done):
            return taken
        receipt = await desk.audit.append(_entry(taken, asked))
        if taken.decision.hides_subject or taken.decision.permit is not None:
            raise errors.NotFound("not-found", receipt=receipt)
        raise errors.Denied(taken.decision.reasons, receipt)


async def claimable(desk: Desk, caller: Caller, *, after: UUID | None, limit: int) -> tuple[list[Claimable], Receipt]:
    """Return the open referrals that an institution's services could claim, without anything of the person."""
    await desk.require(caller, "referral.read")
    services = await desk.catalogue.services()
    own = [code for code, service in services.items() if service.institution == caller.institution]
    async with desk.database.connection() as connection:
        found = await lists.claimable(connection, own, after=after, limit=limit)
    receipt = await desk.audit.append(
        desk.entry("referral.listed", caller, desk.now(), list="open", referrals=[str(each.id) for each in found])
    )
    return found, receipt


async def _claim(connection: AsyncConnection, desk: Desk, asked: _Claim, referral_id: UUID) -> Done | Release:
    """Claim in the caller's transaction; a release of nothing where the decision was no, and then nothing is done."""
    service, at = asked.service, desk.now()
    earlier = await remembered(connection, asked.command)
    current = await store.by_id(connection, referral_id, lock=True)
    if current is None or service.code not in (current.candidates or ()):
        raise errors.NotFound("not-found")
    again = earlier is not None and current.recipient == service.institution
    if current.state != states.OPEN and not again:
        raise errors.Conflict("already-claimed")
    due_on = current.due_on if again else local_day(at) + timedelta(days=service.response_days)
    claimed = replace(current, recipient=service.institution, service=service.code, due_on=due_on)
    [release] = await releases(connection, desk.vault, desk.policies.current, [claimed], at)
    if release.person is None:
        return release
    if again:
        receipt = await desk.audit.stage(connection, _entry(release, asked))
        return Done(200, _told(release, receipt), replayed=True)
    reached = moves.reached(current, "claim", moves.RECIPIENT)
    release = replace(release, current=replace(claimed, state=reached))
    receipt = await moves.perform(
        connection,
        desk.vault,
        desk.audit,
        current,
        "claim",
        _entry(release, asked, before=current),
        actor=service.institution,
        at=at,
        facts={"service": service.code},
        recipient=service.institution,
        service=service.code,
        due_on=due_on,
        received_at=at,
        delivery="transmitted",
    )
    # What is kept for a repetition may hold nothing of the person.
    kept = {"id": str(current.id), "state": reached, "receipt": receipt_json(receipt)}
    await remember(connection, asked.command, Done(201, kept, replayed=False))
    return Done(201, _told(release, receipt), replayed=False)


def _entry(release: Release, asked: _Claim, *, before: Referral | None = None) -> Entry:
    current = release.current
    return release.entry(
        "referral.claim_denied" if release.person is None else "referral.claimed",
        actor=asked.actor,
        exchange={
            "requester": current.requester,
            "service": asked.service.code,
            "state_before": (before or current).state,
            "state_after": current.state,
            "request_sha256": sha256(asked.command.body).hex(),
        },
    )


def _told(release: Release, receipt: Receipt) -> dict[str, Any]:
    current = release.current
    return {
        "id": str(current.id),
        "state": current.state,
        "service": current.service,
        "requester": current.requester,
        "priority": current.priority,
        "reason": {"code": current.reason_code, "text": release.reason_text},
        "due_on": None if current.due_on is None else current.due_on.isoformat(),
        "person": release.person,
        "receipt": receipt_json(receipt),
    }
