"""Moves a referral along the state table in the caller's transaction: the one place where that is done.

A move writes its events, the row's milestones, what the result means for the protection status, and the entry; and the
last part to be closed closes the referral it is a part of.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Entry, Receipt
from audit.service import AuditLog
from gateway import errors, evidence
from gateway.catalogue import service as catalogue
from gateway.clock import local_day
from gateway.events.service import publish
from gateway.referrals import states, store
from gateway.referrals.milestones import milestones
from gateway.referrals.models import Part, Referral
from gateway.registry import recompute
from gateway.registry import service as registry
from gateway.vault import Vault
from schemas.codes import code_list

INITIATOR, RECIPIENT = "initiator", "recipient"
PROVIDED, PARTLY, NOT_PROVIDED = "provided", "partly_provided", "not_provided"


def legal_for(state: str, party: str) -> list[str]:
    """Return what a party (``actor`` of the list ``referral-events``) may report of a referral in a state."""
    return [
        event
        for event, spec in code_list("referral-events").items()
        if spec["actor"] == party and states.path(state, event) is not None
    ]


def reached(current: Referral, event: str, party: str) -> str:
    """Return the state that a party's event leads to; raises Conflict naming the state and what would be legal."""
    steps = states.path(current.state, event)
    if steps is None:
        raise out_of_order(current.state, event, party)
    state = current.state
    for kind in steps:
        state = states.TRANSITIONS[(state, kind)]
    return state


def out_of_order(state: str, event: str, party: str) -> errors.Conflict:
    """Build the refusal of an event that is not legal in a state."""
    return errors.Conflict("out-of-order", detail=f"{state} → {event}", state=state, legal=legal_for(state, party))


async def perform(
    connection: AsyncConnection,
    vault: Vault,
    audit: AuditLog,
    current: Referral,
    event: str,
    entry: Entry,
    *,
    actor: str,
    at: datetime,
    occurred_on: date | None = None,
    message_id: str | None = None,
    synthesised: bool = False,
    facts: dict[str, Any] | None = None,
    texts: dict[str, Any] | None = None,
    outcome: str | None = None,
    reason: str | None = None,
    **columns: Any,
) -> Receipt:
    """Make the move ``event`` of a locked referral, with what went unreported before it; return the entry's receipt.

    ``columns`` of the row are set with it. Raises Conflict when the table has no such move.
    """
    steps = states.path(current.state, event)
    if steps is None:
        raise errors.Conflict("out-of-order", detail=f"{current.state} → {event}")
    state, values = current.state, dict[str, Any]()
    for kind in steps[:-1]:
        state = await store.add_event(
            connection, vault, current, kind, actor=actor, at=at, state_before=state, synthesised=True
        )
        values |= milestones(kind, state, at)
    state = await store.add_event(
        connection,
        vault,
        current,
        event,
        actor=actor,
        at=at,
        state_before=state,
        occurred_on=occurred_on,
        synthesised=synthesised,
        message_id=message_id,
        facts=facts,
        texts=texts,
        entry_id=entry.id,
    )
    values |= milestones(event, state, at, outcome=outcome, reason=reason)
    if "send" in steps:
        values["delivery"] = "transmitted"
    if outcome is not None and await _record(connection, vault, current, outcome, occurred_on or local_day(at), at):
        values["status_changed_at"] = at
        await publish(
            connection,
            type="status.changed",
            at=at,
            institutions=(current.requester, current.recipient),
            department=current.department,
            district=current.district,
            referral_id=current.id,
            service=current.service,
            facts={"priority": current.priority},
        )
    await store.change(connection, current.id, **{**values, **columns})
    if state in states.TERMINAL and current.parent_id is not None:
        await _close_whole(connection, vault, audit, current, at, entry.policy_version)
    return await audit.stage(connection, entry)


def summed_up(parts: Iterable[Part]) -> str:
    """Return the outcome of a referral whose parts are all closed.

    Provided when every part was; not provided when none was, not even partly (a rejected or cancelled part has no
    result); else partly provided.
    """
    outcomes = {part.outcome for part in parts}
    if outcomes == {PROVIDED}:
        return PROVIDED
    return PARTLY if outcomes & {PROVIDED, PARTLY} else NOT_PROVIDED


async def _close_whole(
    connection: AsyncConnection, vault: Vault, audit: AuditLog, part: Referral, at: datetime, policy_version: str
) -> None:
    """Complete the referral of which the last open part was closed, unless its recipient has to say more first."""
    # Two parts closed at once wait for one another here, so the second sees both closed.
    whole = None if part.parent_id is None else await store.by_id(connection, part.parent_id, lock=True)
    if whole is None or states.path(whole.state, "outcome") is None:
        return
    parts = await store.parts(connection, whole.id)
    if any(each.state not in states.TERMINAL for each in parts):
        return
    outcome = summed_up(parts)
    facts = {"outcome": outcome, "parts": len(parts)}
    reason = "parts-not-provided" if outcome == NOT_PROVIDED else None
    if reason is not None:
        facts["reason"] = reason
    entry = evidence.entry(
        "referral.summed_up",
        "done",
        at=at,
        policy_version=policy_version,
        subject=whole.person_id,
        exchange={
            "referral": str(whole.id),
            "requester": whole.requester,
            "recipient": whole.recipient,
            "state_before": whole.state,
            "state_after": states.COMPLETED,
            **facts,
        },
    )
    await perform(
        connection,
        vault,
        audit,
        whole,
        "outcome",
        entry,
        actor=whole.recipient,
        at=at,
        occurred_on=local_day(at),
        synthesised=True,
        facts=facts,
        outcome=outcome,
        reason=reason,
    )


async def _record(
    connection: AsyncConnection, vault: Vault, current: Referral, outcome: str, day: date, at: datetime
) -> bool:
    """Record what a result says of the protection, as a fact of the recipient; return whether that changed."""
    services = await catalogue.services(connection)
    service = services.get(current.service)
    who = await registry.find_person(connection, vault, "siis", str(current.person_id))
    if service is None or who is None:
        return False
    await registry.record_fact(
        connection,
        person_id=current.person_id,
        household_id=who.household_id,
        service=service,
        protected=code_list("outcomes")[outcome]["protected"],
        source=current.recipient,
        instrument="counter-referral",
        observed_on=day,
        referral_id=current.id,
    )
    home = who.household_id if "household" in service.categories else None
    changed = await recompute.arrived(
        connection,
        services,
        persons=(who.id,) if home is None else (),
        households=() if home is None else (home,),
        at=at,
        because="counter-referral",
    )
    # Where two records were found to be one person, the status stands under the other's id.
    return any(unit.of(current.service) for unit in changed.values())
