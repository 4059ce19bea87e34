"""Types of referrals."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

from audit.models import Receipt
from consent.models import Channel
from gateway.registry.models import NewPerson


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReferral:
    """A referral as a requester sends it, checked against its schema.

    ``identifiers``: (system, value) of the person, the first one known decides who it is.
    ``registers``: a person who comes with the message (a FHIR Bundle) and is registered if nobody has the identifier.
    ``foreign``: system and value of the number the sender's own system gave it.
    ``kept``: what came with the message and has no place in the model; stored with the event, encrypted.
    ``candidates``: of an open referral, the services of which any may claim it; ``service`` is the first of them.
    ``additional``: meant beside an equal one that is under way. ``waitlist``: taken also where the service is full.
    ``parent``: the referral of which this one is a part.
    """

    identifiers: tuple[tuple[str, str], ...]
    service: str
    reason_code: str
    reason_text: str
    priority: str
    purpose: str
    basis: str
    agreement: str | None = None
    case: str | None = None
    correlation: str | None = None
    registers: NewPerson | None = None
    foreign: tuple[str, str] | None = None
    channel: Channel = "api"
    candidates: tuple[str, ...] = ()
    additional: bool = False
    waitlist: bool = False
    parent: UUID | None = None
    event_facts: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewNote:
    """What a reviewer says of a referral, found by the sender's number; it moves nothing, a person decides on it."""

    foreign: tuple[str, str]
    facts: dict[str, Any]
    texts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReferralEvent:
    """One thing that happened to a referral; ``texts`` are decrypted only for a party to it."""

    number: int
    type: str
    actor: str
    at: datetime
    occurred_on: date | None
    state_before: str
    state_after: str
    synthesised: bool
    facts: dict[str, Any]
    texts: dict[str, Any]
    entry_id: UUID | None


@dataclass(frozen=True, slots=True)
class Referral:
    """A referral as it stands, without anything of the person but the internal id."""

    id: UUID
    person_id: UUID
    service: str
    requester: str
    recipient: str
    purpose: str
    basis: str
    agreement: str | None
    caller: dict[str, Any]
    reason_code: str
    priority: str
    state: str
    delivery: str
    delivery_reason: str | None
    attempts: int
    recipient_reference: str | None
    created_at: datetime
    due_on: date | None
    foreign_system: str | None
    foreign_value: str | None
    parent_id: UUID | None = None
    case_id: UUID | None = None
    department: str | None = None
    district: str | None = None
    category: str | None = None
    candidates: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the requester of a referral does with it.

    ``event`` is request_cancel, withdraw or reopen of the state table, or note, which moves nothing.
    """

    event: str
    reason_code: str | None = None
    reason_text: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPart:
    """One part of a referral that its recipient splits over other services."""

    service: str
    reason_code: str
    reason_text: str
    priority: str
    waitlist: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewParts:
    """The parts that a recipient makes of a referral, with the purpose and basis of all of them."""

    parts: tuple[NewPart, ...]
    purpose: str
    basis: str
    agreement: str | None = None
    case: str | None = None
    correlation: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a referral as the parties of the whole see it."""

    id: UUID
    service: str
    recipient: str
    state: str
    outcome: str | None
    end_reason: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """A referral in a list: codes only, and nothing of the person but that there is one."""

    id: UUID
    service: str
    requester: str
    recipient: str
    priority: str
    state: str
    delivery: str
    outcome: str | None
    created_at: datetime
    due_on: date | None
    duplicate_of: UUID | None


@dataclass(frozen=True, slots=True)
class Claimable:
    """An open referral as a service sees it that could claim it: nothing of the person but life-cycle category."""

    id: UUID
    services: tuple[str, ...]
    department: str | None
    district: str | None
    priority: str
    category: str | None
    created_at: datetime
    due_on: date | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A referral as one of its parties sees it.

    ``parts`` are what it was split into; ``duplicate_of`` an earlier referral of the same person to the same service
    that is still under way, told to the recipient of both alone.
    """

    referral: Referral
    events: list[ReferralEvent]
    parts: list[Part]
    duplicate_of: UUID | None
    receipt: Receipt
