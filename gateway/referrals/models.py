"""Types of referrals."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

from consent.models import Channel
from gateway.registry.models import NewPerson


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReferral:
    """A referral as a requester sends it, checked against its schema.

    ``identifiers``: (system, value) of the person, the first one known decides who it is.
    ``registers``: a person who comes with the message (a FHIR Bundle) and is registered if nobody has the identifier.
    ``foreign``: system and value of the number the sender's own system gave it.
    ``kept``: what came with the message and has no place in the model; stored with the event, encrypted.
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
