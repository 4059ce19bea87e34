"""Shows referrals to their parties: one with history and parts, or lists of codes; each reading is an entry first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Receipt
from consent.models import Caller
from gateway import errors
from gateway.referrals import capacity, lists, states, store
from gateway.referrals.desk import Desk
from gateway.referrals.models import Line, Shown
from gateway.referrals.releases import releases
from schemas import geography
from schemas.errors import InvalidIdentifier, UnknownCode
from schemas.text import _


async def read(desk: Desk, caller: Caller, referral_id: UUID) -> Shown:
    """Return a referral with its events and parts to one of its two parties; NotFound to anybody else.

    What has not reached its recipient is decided for it as if it were sent now. Raises Denied.
    """
    await desk.require(caller, "referral.read")
    async with desk.attempt(caller, referral_id, "read"), desk.database.connection() as connection:
        current = await store.by_id(connection, referral_id)
        if current is None or caller.institution not in (current.requester, current.recipient):
            raise errors.NotFound("not-found")
        # Its texts tell of the person.
        if await _kept_back(connection, desk, caller, [referral_id]):
            raise errors.NotFound("not-found")
        happened = await store.events(connection, desk.vault, referral_id)
        parts = await store.parts(connection, referral_id)
        repeats = None
        if caller.institution == current.recipient:
            repeats = await lists.earlier_equal(connection, current)
            if repeats is not None and await _kept_back(connection, desk, caller, [repeats]):
                repeats = None
    receipt = await desk.audit.append(
        desk.entry("referral.read", caller, desk.now(), subject=current.person_id, referral=str(referral_id))
    )
    return Shown(current, happened, parts, repeats, receipt)


async def listed(
    desk: Desk, caller: Caller, *, sent: bool, states: Sequence[str], after: UUID | None, limit: int
) -> tuple[list[Line], Receipt]:
    """Return the referrals that the caller's institution sent or received, oldest first, codes only; raises Denied.

    Of what was not transmitted to it a recipient sees what would be if it were sent now, as where it reads one.
    """
    await desk.require(caller, "referral.read")
    found: list[Line] = []
    more = True
    async with desk.database.connection() as connection:
        while more and len(found) < limit:
            part = await lists.lines(connection, caller.institution, sent=sent, states=states, after=after, limit=limit)
            found += part if sent else await _given(connection, desk, caller, part)
            more = len(part) == limit
            after = part[-1].id if part else after
    found = found[:limit]
    receipt = await desk.audit.append(
        desk.entry(
            "referral.listed",
            caller,
            desk.now(),
            list="sent" if sent else "received",
            states=list(states),
            referrals=[str(each.id) for each in found],
        )
    )
    return found, receipt


async def room(desk: Desk, service: str, district: str | None) -> str:
    """Return whether a service can take one more (``capacity``); raises BadRequest for codes that there are not.

    Nothing is asked about a person, so nothing is put on record.
    """
    known = (await desk.catalogue.services()).get(service)
    if known is None:
        raise errors.BadRequest("unknown-service", pointer="/service")
    if district is not None:
        _require_district(district)
        places = await desk.catalogue.locations(service)
        if places and not await desk.catalogue.locations(service, district=district):
            return capacity.MORE_ASSESSMENT
    async with desk.database.connection() as connection:
        held = 0 if known.capacity is None else await store.held_by(connection, service)
    return capacity.answer(known, held)


async def _given(connection: AsyncConnection, desk: Desk, caller: Caller, part: Sequence[Line]) -> list[Line]:
    """Return the lines that their recipient may have, and of them only the repetitions of what it may have too."""
    ids = {each.id for each in part} | {each.duplicate_of for each in part if each.duplicate_of is not None}
    kept_back = await _kept_back(connection, desk, caller, ids)
    return [
        replace(each, duplicate_of=None) if each.duplicate_of in kept_back else each
        for each in part
        if each.id not in kept_back
    ]


async def _kept_back(connection: AsyncConnection, desk: Desk, caller: Caller, ids: Collection[UUID]) -> frozenset[UUID]:
    """Return which referrals the caller, their recipient, may not have: not transmitted, nor would they be if sent now.

    Its own it knows; of an open one everybody sees that it is there.
    """
    waiting = [
        each
        for each in await lists.untransmitted(connection, ids)
        if each.requester != caller.institution and each.state != states.OPEN
    ]
    decided = await releases(connection, desk.vault, desk.policies.current, waiting, desk.now()) if waiting else []
    return frozenset(each.current.id for each in decided if each.person is None)


def _require_district(code: str) -> None:
    try:
        geography.district(code)
    except (UnknownCode, InvalidIdentifier):
        detail = _("Use el código del distrito según el INE, de cuatro dígitos.")
        same = [each for each in geography.departments() if each.ine == code[:2]]
        allowed = [found.ine for each in same for found in geography.districts(each.ine)]
        raise errors.BadRequest("unknown-code", pointer="/district", allowed=allowed, detail=detail) from None
