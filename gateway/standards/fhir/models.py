"""What a FHIR referral message says, in our words; and, leaf by leaf, what of it found no place here.

Fields with data about a person are left out of ``repr``, so that an event in a log line or a traceback shows none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

Event = Literal["start", "refer", "review"]
Priority = Literal["routine", "urgent", "asap", "stat"]


@dataclass(frozen=True, slots=True)
class Coding:
    """A code as it was received: R4 ``Coding`` without ``version`` and ``userSelected``."""

    system: str | None
    code: str | None
    display: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignIdentifier:
    """An identifier given by somebody else, value untouched.

    ``system`` is the identifier's own; without one, ``system#code`` of its type. ``check_digit`` is what the sender
    put beside the value, not verified here.
    """

    system: str
    value: str = field(repr=False)
    check_digit: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Patient:
    """The person referred, read from the Patient resource of the message.

    ``reference_fullurl`` is the absolute URL that other messages about the same person point to. ``surnames`` joins
    the family name and the second surname of the extension; ``sex`` is ``M``, ``F`` or ``None`` (other, unknown,
    unsaid); ``birth_date`` is ``None`` when the sender knows less than the day.
    """

    reference_fullurl: str
    identifiers: tuple[ForeignIdentifier, ...]
    given_names: str = field(repr=False)
    surnames: str = field(repr=False)
    birth_date: date | None = field(repr=False)
    sex: Literal["M", "F"] | None = field(repr=False)
    phones: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PatientReference:
    """A pointer to a person whose Patient resource is not in the message: by URL, by identifier, or both."""

    reference_fullurl: str | None
    identifiers: tuple[ForeignIdentifier, ...]


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody who acts: the role's codes and its organization, as far as the message carries them."""

    reference: str | None
    roles: tuple[Coding, ...]
    organization_identifiers: tuple[ForeignIdentifier, ...]
    organization_name: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """Where the referral goes: our service and its institution (``schemas/codes/services.yaml``), and the raw codes."""

    service: str
    institution: str
    codings: tuple[Coding, ...]
    performer: Party | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: our code (``schemas/codes/reasons.yaml``), the raw codes and the texts, in the order of the message."""

    code: str
    codings: tuple[Coding, ...] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)

    @property
    def text(self) -> str:
        """The texts in one line; empty when the message has none."""
        return "; ".join(self.texts)


@dataclass(frozen=True, slots=True)
class Review:
    """What the reviewer said. ``pertinent`` is the meaning of the code, ``None`` where it is neither yes nor no.

    ``contradictory``: the code says one thing and an explicit ``doNotPerform`` the other; both stand as received.
    """

    pertinence: Coding | None
    pertinent: bool | None
    do_not_perform: bool | None
    motive: Coding | None
    motive_text: str | None = field(repr=False)
    requires_exam: bool | None
    contradictory: bool


@dataclass(frozen=True, slots=True)
class Default:
    """A value the message did not give: the event's field, the pointer where it would stand, and what was put."""

    field: str
    pointer: str
    value: str


@dataclass(frozen=True, slots=True)
class Kept:
    """One leaf of the message: its JSON Pointer and its value as received (an empty object or list is a leaf)."""

    pointer: str
    value: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReferralEvent:
    """One message. ``taken`` (pointers), ``kept`` and ``structural`` together are every leaf of it, each once.

    ``kept`` is what the fields above do not hold; ``structural`` is the envelope of FHIR itself (``resourceType``,
    resource ids, ``fullUrl``, ``meta.profile``) and the narrative, which repeats the data as HTML and is never
    rendered. ``requester`` is ``ServiceRequest.requester``, else the message's author: in a review, the reviewer.
    ``message_id`` is ``None`` when the sender gave no id at all. Times are UTC.
    """

    event: Event
    message_id: str | None
    sent_at: datetime | None
    source_endpoint: str
    interconsultation: ForeignIdentifier | None
    patient: Patient | PatientReference
    requester: Party | None
    target: Target
    reason: Reason
    priority: Priority
    authored_on: datetime | None
    review: Review | None
    defaults: tuple[Default, ...]
    taken: tuple[str, ...] = field(repr=False)
    kept: tuple[Kept, ...] = field(repr=False)
    structural: tuple[Kept, ...] = field(repr=False)
