"""The states of a referral and the one next state per (state, event).

Source: BSeR 2.0.0-ballot harmonised state transitions (HL7/bser, 34 rows) in :data:`BSER`; what it leaves out and
Gravity SDOH Clinical Care 3.0.0 or our users need is in :data:`ADDITIONS`. An outcome of a referral whose acceptance
nobody reported gets the acceptance synthesised and marked, see :func:`path`.
"""

from __future__ import annotations

OPEN = "open"
CREATED = "created"
RECEIVED = "received"
ACCEPTED = "accepted"
REJECTED = "rejected"
ACTIVE = "active"
SCHEDULED = "scheduled"
UNATTENDED = "unattended"
APPOINTMENT_CANCELLED = "appointment_cancelled"
EVENT_DONE = "event_done"
ON_HOLD = "on_hold"
CANCEL_REQUESTED = "cancel_requested"
CANCELLED = "cancelled"
COMPLETED = "completed"

TERMINAL = frozenset({REJECTED, CANCELLED, COMPLETED})

# BSeR business status codes, for faces that need them.
BUSINESS_STATUS = {
    OPEN: "1.0",
    CREATED: "1.0",
    RECEIVED: "2.0",
    ACCEPTED: "3.0",
    REJECTED: "4.0",
    ACTIVE: "5.1",
    SCHEDULED: "5.1.1",
    UNATTENDED: "5.1.2",
    APPOINTMENT_CANCELLED: "5.1.3",
    EVENT_DONE: "5.1.4",
    ON_HOLD: "5.1",
    CANCEL_REQUESTED: "5.2",
    CANCELLED: "6.0",
    COMPLETED: "7.0",
}

_Rows = dict[str, dict[str, str]]

# Rows 31 and 32 of the drawing (accepted, then 5.1 without its detail) are what the addition ``start`` reports.
BSER: _Rows = {
    CREATED: {"send": RECEIVED},
    RECEIVED: {"accept": ACCEPTED, "decline": REJECTED, "request_cancel": CANCEL_REQUESTED},
    ACCEPTED: {
        "decline": REJECTED,
        "schedule": SCHEDULED,
        "request_cancel": CANCEL_REQUESTED,
        "note": EVENT_DONE,
        "outcome": COMPLETED,
    },
    ACTIVE: {"decline": REJECTED, "request_cancel": CANCEL_REQUESTED},
    SCHEDULED: {
        "decline": REJECTED,
        "reschedule": SCHEDULED,
        "no_show": UNATTENDED,
        "appointment_cancelled": APPOINTMENT_CANCELLED,
        "request_cancel": CANCEL_REQUESTED,
        "note": EVENT_DONE,
        "outcome": COMPLETED,
    },
    UNATTENDED: {
        "decline": REJECTED,
        "reschedule": SCHEDULED,
        "appointment_cancelled": APPOINTMENT_CANCELLED,
        "request_cancel": CANCEL_REQUESTED,
    },
    APPOINTMENT_CANCELLED: {"schedule": SCHEDULED, "request_cancel": CANCEL_REQUESTED},
    EVENT_DONE: {
        "decline": REJECTED,
        "schedule": SCHEDULED,
        "appointment_cancelled": APPOINTMENT_CANCELLED,
        "request_cancel": CANCEL_REQUESTED,
        "note": EVENT_DONE,
        "outcome": COMPLETED,
    },
    CANCEL_REQUESTED: {"confirm_cancel": CANCELLED, "outcome": COMPLETED},
}

ADDITIONS: _Rows = {
    # A referral that any capable service may claim has no recipient to ask when it is taken back.
    OPEN: {"claim": ACCEPTED, "withdraw": CANCELLED},
    # Asked for before the message was transmitted: what was never sent is cancelled by the gateway itself.
    CREATED: {"request_cancel": CANCEL_REQUESTED},
    ACCEPTED: {"start": ACTIVE, "hold": ON_HOLD},
    ACTIVE: {"schedule": SCHEDULED, "note": EVENT_DONE, "hold": ON_HOLD, "outcome": COMPLETED},
    SCHEDULED: {"hold": ON_HOLD},
    EVENT_DONE: {"hold": ON_HOLD},
    ON_HOLD: {
        "resume": ACTIVE,
        "decline": REJECTED,
        "request_cancel": CANCEL_REQUESTED,
        "outcome": COMPLETED,
    },
    # A rejection may cross the request on the way, as an outcome may.
    CANCEL_REQUESTED: {"decline": REJECTED},
    REJECTED: {"reopen": RECEIVED},
    COMPLETED: {"reopen": RECEIVED},
}

TRANSITIONS: dict[tuple[str, str], str] = {
    (state, event): following
    for rows in (BSER, ADDITIONS)
    for state, events in rows.items()
    for event, following in events.items()
}


def legal(state: str) -> tuple[str, ...]:
    """Return the events that are legal in a state, in the order of the table."""
    return tuple(event for at, event in TRANSITIONS if at == state)


def path(state: str, event: str) -> tuple[str, ...] | None:
    """Return the events to apply so that ``event`` is legal in ``state``: itself, or with what went unreported before.

    A recipient that answers a referral not yet marked as transmitted proves that it was; one that reports only a
    result had accepted. ``None``: the event is out of order.
    """
    if (state, event) in TRANSITIONS:
        return (event,)
    if state == CREATED and event != "send":
        rest = path(RECEIVED, event)
        return None if rest is None else ("send", *rest)
    if state == RECEIVED and (ACCEPTED, event) in TRANSITIONS:
        return ("accept", event)
    return None
