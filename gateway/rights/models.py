"""Types of the requests of persons and of breaches, and the states an institution's part of a request goes through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

RECEIVED, ROUTED, IN_PROGRESS, ANSWERED, WITHDRAWN = "received", "routed", "in-progress", "answered", "withdrawn"
OPEN = (RECEIVED, ROUTED, IN_PROGRESS)
#: state and step → next state of one institution's part.
TRANSITIONS: Mapping[tuple[str, str], str] = {
    (ROUTED, "start"): IN_PROGRESS,
    (RECEIVED, "answer"): ANSWERED,
    (ROUTED, "answer"): ANSWERED,
    (IN_PROGRESS, "answer"): ANSWERED,
    (RECEIVED, "withdraw"): WITHDRAWN,
    (ROUTED, "withdraw"): WITHDRAWN,
    (IN_PROGRESS, "withdraw"): WITHDRAWN,
}
FORWARDED = "forwarded"

Identifier = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """What a person asks: a right, over one dataset or everything, in their words.

    ``subject`` and ``representative`` are identifiers (system, value) as they came; ``purpose`` is what an opposition
    is about. The text is the person's own and is encrypted before it is stored.
    """

    right: str
    subject: Identifier
    representative: Identifier | None = None
    dataset: str | None = None
    purpose: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one institution answers; ``delivered`` is reference and SHA-256 (hexadecimal) of the data handed over."""

    outcome: str
    norm: str | None = None
    text: str | None = None
    delivered: tuple[str, str] | None = None
    until: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one institution has to do with a request; ``text`` and ``reference`` decrypted, for who may read them."""

    institution: str
    state: str
    outcome: str | None = None
    norm: str | None = None
    until: date | None = None
    effective_on: date | None = None
    sha256: str | None = None
    text: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RightsRequest:
    """A request with those of its parts that the reader may see.

    ``person`` is ``None`` while nobody here is known to be the one who asks. ``text``, ``subject`` (identifiers),
    ``names`` and ``representative`` are there for who has to answer.
    """

    id: UUID
    right: str
    person: UUID | None
    dataset: str | None
    purpose: str | None
    received_by: str | None
    received_at: datetime
    due_on: date
    overdue: bool
    parts: tuple[Part, ...] = ()
    text: str | None = None
    subject: tuple[Identifier, ...] = ()
    names: str | None = None
    representative: Identifier | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBreach:
    """A breach as it becomes known; instants are UTC, ``until`` is excluded and ``None`` while it goes on.

    ``party`` is the institution whose exchanges are concerned (``None``: everybody's, for a breach of the gateway
    itself); ``client`` and ``datasets`` narrow it further.
    """

    kind: str
    what: str
    since: datetime
    known_at: datetime
    until: datetime | None = None
    party: str | None = None
    client: str | None = None
    datasets: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A breach on record; ``affected`` persons were found in the log, ``erased`` ones were there and have no name."""

    id: UUID
    kind: str
    institution: str
    party: str | None
    client: str | None
    datasets: tuple[str, ...]
    since: datetime
    until: datetime | None
    known_at: datetime
    due_at: datetime
    drawn_at: datetime | None
    affected: int | None
    erased: int | None
    notified_agency_at: datetime | None
    notified_people_at: datetime | None
    closed_at: datetime | None
    what: str | None = None
    measures: str | None = None
