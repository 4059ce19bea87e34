"""The states of a referral and the one next state per (state, event).

Source: BSeR 2.0.0-ballot harmonised state transitions (HL7/bser, 34 rows), with three additions of ours: ``created``
before the message is transmitted, ``5.1 active`` completed by an outcome, and an outcome of a referral whose
acceptance nobody reported (the acceptance is synthesised and marked, see :func:`path`).
"""

from __future__ import annotations

CREATED = "created"
RECEIVED = "received"
ACCEPTED = "accepted"
REJECTED = "rejected"
ACTIVE = "active"
SCHEDULED = "scheduled"
UNATTENDED = "unattended"
APPOINTMENT_CANCELLED = "appointment_cancelled"
EVENT_DONE = "event_done"
CANCEL_REQUESTED = "cancel_requested"
CANCELLED = "cancelled"
COMPLETED = "completed"

TERMINAL = frozenset({REJECTED, CANCELLED, COMPLETED})

# BSeR business status codes, for faces that need them.
BUSINESS_STATUS = {
    CREATED: "1.0",
    RECEIVED: "2.0",
    ACCEPTED: "3.0",
    REJECTED: "4.0",
    ACTIVE: "5.1",
    SCHEDULED: "5.1.1",
    UNATTENDED: "5.1.2",
    APPOINTMENT_CANCELLED: "5.1.3",
    EVENT_DONE: "5.1.4",
    CANCEL_REQUESTED: "5.2",
    CANCELLED: "6.0",
    COMPLETED: "7.0",
}

_ROWS: dict[str, dict[str, str]] = {
    CREATED: {"send": RECEIVED},
    RECEIVED: {"accept": ACCEPTED, "decline": REJECTED, "request_cancel": CANCEL_REQUESTED},
    ACCEPTED: {
        "decline": REJECTED,
        "schedule": SCHEDULED,
        "request_cancel": CANCEL_REQUESTED,
        "note": EVENT_DONE,
        "outcome": COMPLETED,
    },
    ACTIVE: {"decline": REJECTED, "request_cancel": CANCEL_REQUESTED, "outcome": COMPLETED},
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

TRANSITIONS: dict[tuple[str, str], str] = {
    (state, event): following for state, events in _ROWS.items() for event, following in events.items()
}


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
