"""Decides who may learn of an event, who wants to, and what is said: asked when it is handed on and again at delivery.

An institution learns of referrals to which it is a party now; whoever was one only then learns no more of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue.models import COORDINATOR
from gateway.subscriptions.models import CANDIDATE, Filter, Happened, Parties
from schemas.codes import code_list

#: Tells who acts for the boards of a place (department, district).
Boards = Callable[[AsyncConnection, str | None, str | None], Awaitable[frozenset[str]]]


def may_learn(institution: str, happened: Happened, parties: Parties | None, boards: frozenset[str]) -> bool:
    """Say whether an institution may learn of an event.

    ``parties`` of its referral; None: the person is erased, or the event is of no referral. ``boards``: who acts for
    the boards of its place, if the referral is on the priority track.
    """
    if happened.referral_id is None:
        return institution in happened.institutions
    if parties is None:
        return False
    if institution == COORDINATOR:
        return True
    told = code_list("event-types").get(happened.type, {}).get("to", ())
    parts = parties.parts(institution)
    # A candidate had no part in it yet, so it is not among those that had.
    if not (parts if institution in happened.institutions else parts & {CANDIDATE}).isdisjoint(told):
        return True
    return "board" in told and institution in boards


def wants(wanted: Filter, institution: str, happened: Happened, parties: Parties | None) -> bool:
    """Say whether a filter lets an event through."""
    if wanted.types and happened.type not in wanted.types:
        return False
    if wanted.services and wanted.services.isdisjoint(_services(institution, happened, parties)):
        return False
    somewhere = wanted.departments or wanted.districts
    if somewhere and happened.department not in wanted.departments and happened.district not in wanted.districts:
        return False
    return not wanted.parts or (parties is not None and not wanted.parts.isdisjoint(parties.parts(institution)))


def message(institution: str, happened: Happened, parties: Parties | None, position: int) -> dict[str, Any]:
    """Return what an institution is told of an event, by webhook and pull: ids and codes, what is not known left out.

    The form is that of Standard Webhooks (type, timestamp, data).
    """
    data = {
        "position": position,
        "referral": None if happened.referral_id is None else str(happened.referral_id),
        "sequence": happened.sequence,
        "service": min(_services(institution, happened, parties), default=None),
        "requester": None if parties is None else parties.requester,
        "recipient": None if parties is None else parties.recipient,
        "department": happened.department,
        "district": happened.district,
        **happened.facts,
    }
    return {
        "id": str(happened.id),
        "type": happened.type,
        "timestamp": happened.at.isoformat(),
        "data": {name: value for name, value in data.items() if value is not None},
    }


def _services(institution: str, happened: Happened, parties: Parties | None) -> frozenset[str]:
    """Whoever could claim a referral learns which of its own services could, and none of anybody else's."""
    if parties is not None and parties.parts(institution) == {CANDIDATE}:
        return parties.candidates[institution]
    return frozenset() if happened.service is None else frozenset({happened.service})
