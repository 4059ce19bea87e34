"""Says which columns of a referral's row sum up an event: when it was received, accepted, closed, and with what."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gateway.referrals import states
from gateway.referrals.tables import referral


def milestones(
    event: str, after: str, at: datetime, *, outcome: str | None = None, reason: str | None = None
) -> dict[str, Any]:
    """Return the values to set when ``event`` led to the state ``after``; what reopening undoes is emptied."""
    values: dict[str, Any] = {"state": after}
    if event == "send":
        values["received_at"] = at
    elif event in ("accept", "claim"):
        values["accepted_at"] = at
        if event == "claim":
            # Its service has a term of its own from now on.
            values |= {"reminded_at": None, "overdue_at": None, "escalated_at": None}
    elif event == "no_show":
        values["no_shows"] = referral.c.no_shows + 1
    elif event == "reopen":
        values |= {"reopened": referral.c.reopened + 1, "closed_at": None, "outcome": None, "end_reason": None}
        values |= {"reminded_at": None, "overdue_at": None, "escalated_at": None}
    if after in states.TERMINAL:
        values |= {"closed_at": at, "outcome": outcome, "end_reason": reason}
    return values
