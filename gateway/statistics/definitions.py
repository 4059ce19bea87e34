"""The definitions of the funnel, each once: which steps there are, which of them a referral reached, how it ended.

The API, the CSV, the command line and the snapshots count with these alone; ``docs/explanation/funnel.md`` says them in
words. A change of meaning is a new :data:`VERSION`, so that a snapshot is never compared with one of another meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.referrals import states

VERSION = 1

GAP_FOUND, REFERRED, RECEIVED = "gap_found", "referred", "received"
ACCEPTED, DELIVERED, STATUS_CHANGED = "accepted", "delivered", "status_changed"
#: Codes of the list ``funnel-steps``, in their order; every referral reaches the first two.
STEPS = (GAP_FOUND, REFERRED, RECEIVED, ACCEPTED, DELIVERED, STATUS_CHANGED)

#: The result that the service was given, wholly or in part (code list ``outcomes``).
GIVEN = ("provided", "partly_provided")
WAITING, UNCHANGED, CHANGED, UNREFERRED = "waiting", "unchanged", "changed", "unreferred"
#: What became of a message that never left, by the column ``delivery``; a dead letter waits for a person.
_NOT_SENT = {"withheld": "withheld", "rejected": "undeliverable"}


class Place(NamedTuple):
    """The furthest step a referral reached, and how it ended there (code list ``funnel-endings``)."""

    step: str
    ending: str


def place(
    *, state: str, delivery: str, outcome: str | None, received: bool, accepted: bool, status_changed: bool
) -> Place:
    """Return where a referral stands in the funnel, from its row."""
    if state == states.COMPLETED and outcome in GIVEN:
        return Place(STATUS_CHANGED, CHANGED) if status_changed else Place(DELIVERED, UNCHANGED)
    # Who accepted, had received: a claimed referral was never sent to anybody.
    reached = ACCEPTED if accepted else RECEIVED if received else REFERRED
    if state in states.TERMINAL:
        return Place(reached, {states.REJECTED: "rejected", states.CANCELLED: "cancelled"}.get(state, "not_provided"))
    return Place(reached, _NOT_SENT.get(delivery, WAITING) if reached == REFERRED else WAITING)


class Between(NamedTuple):
    """A span as SQL over the row ``r``: the seconds, and for which referrals it counts."""

    seconds: str
    counts: str


def _between(start: str, end: str, *, given: bool = False) -> Between:
    condition = f"{end} >= {start}"
    return Between(
        f"date_part('epoch', {end} - {start})",
        f"{condition} AND r.state = 'completed' AND r.outcome IN ('provided', 'partly_provided')"
        if given
        else condition,
    )


_TAKEN = "coalesce(r.received_at, r.accepted_at)"
_MADE_ON = "(r.created_at AT TIME ZONE 'America/Asuncion')::date"
#: A span whose end lies before its start (a reopened referral was accepted anew) is not counted. A gap is known by its
#: day, so its span is whole days, and none where it was found out later; the condition is cheap, the day is not.
SPANS: Mapping[str, Between] = {
    "gap_to_referral": Between(f"greatest({_MADE_ON} - r.gap_since, 0) * 86400.0::float8", "r.gap_since IS NOT NULL"),
    "referral_to_receipt": _between("r.created_at", _TAKEN),
    "receipt_to_acceptance": _between(_TAKEN, "r.accepted_at"),
    "acceptance_to_delivery": _between("r.accepted_at", "r.closed_at", given=True),
    "delivery_to_status": _between("r.closed_at", "r.status_changed_at", given=True),
    "referral_to_delivery": _between("r.created_at", "r.closed_at", given=True),
}
