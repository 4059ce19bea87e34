"""Shows referrals to their parties: one with history and parts, or lists of codes; each reading is an entry first."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Receipt
from consent.models import Caller
from gateway import errors
from gateway.referrals import capacity, lists, states, store
from gateway.referrals.desk import Desk
from gateway.referrals.models import Line, Referral, Shown
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
        await _require_released(connection, desk, caller, current)
        happened = await store.events(connection, desk.vault, referral_id)
        parts = await store.parts(connection, referral_id)
        repeats = None
        if caller.institution == current.recipient:
            repeats = await lists.earlier_equal(connection, current)
    receipt = await desk.audit.append(
        desk.entry("referral.read", caller, desk.now(), subject=current.person_id, referral=str(referral_id))
    )
    return Shown(current, happened, parts, repeats, receipt)


async def listed(
    desk: Desk, caller: Caller, *, sent: bool, states: Sequence[str], after: UUID | None, limit: int
) -> tuple[list[Line], Receipt]:
    """Return the referrals that the caller's institution sent or received, oldest first, codes only; raises Denied."""
    await desk.require(caller, "referral.read")
    async with desk.database.connection() as connection:
        found = await lists.lines(connection, caller.institution, sent=sent, states=states, after=after, limit=limit)
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


async def _require_released(connection: AsyncConnection, desk: Desk, caller: Caller, current: Referral) -> None:
    """Raise NotFound where the recipient may not have what was not transmitted to it: its texts tell of the person."""
    if caller.institution == current.requester or current.delivery == "transmitted" or current.state == states.OPEN:
        return
    [release] = await releases(connection, desk.vault, desk.policies.current, [current], desk.now())
    if release.person is None:
        raise errors.NotFound("not-found")


def _require_district(code: str) -> None:
    try:
        geography.district(code)
    except (UnknownCode, InvalidIdentifier):
        detail = _("Use el código del distrito según el INE, de cuatro dígitos.")
        same = [each for each in geography.departments() if each.ine == code[:2]]
        allowed = [found.ine for each in same for found in geography.districts(each.ine)]
        raise errors.BadRequest("unknown-code", pointer="/district", allowed=allowed, detail=detail) from None
