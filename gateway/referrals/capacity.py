"""Says whether a service can take one more referral, and keeps two requests from sharing the last place.

The vocabulary is that of Gravity SDOH Clinical Care 3.0.0. More assessment is due where the catalogue names places of
the service and none for the district: then somebody has to look.
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.catalogue.models import Service
from gateway.referrals import store

HAS_CAPACITY, NO_CAPACITY, WAITLIST, MORE_ASSESSMENT = "has_capacity", "no_capacity", "waitlist", "more_assessment"


def answer(service: Service, held: int) -> str:
    """Return what a service with ``held`` referrals under way answers; one without a stated capacity has room.

    Beyond its capacity as many may wait as it can take: who comes after them would wait for nothing.
    """
    if service.capacity is None or held < service.capacity:
        return HAS_CAPACITY
    return WAITLIST if held < 2 * service.capacity else NO_CAPACITY


async def require_room(connection: AsyncConnection, service: Service, *, waits: bool) -> bool:
    """Raise Conflict unless a service has room for one more, or for one more who waits; return whether they wait.

    Only services with a stated capacity are counted, one request at a time for each of them.
    """
    if service.capacity is None:
        return False
    found = answer(service, await store.held_by(connection, service.code, lock=True))
    if found == NO_CAPACITY or (found == WAITLIST and not waits):
        raise errors.Conflict("no-capacity", service=service.code, capacity=found)
    return found == WAITLIST
