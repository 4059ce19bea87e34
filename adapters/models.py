"""The contract between the gateway and a producer's system: four verbs and the outcomes they may end in.

Nothing else crosses this border: an adapter never returns ``None`` and never lets an exception of its transport out.
Every verb asks for a :class:`~schemas.permit.Permit`, which only a decision can issue. The norm, with what each outcome
promises, is docs/reference/adapter-contract.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from schemas.permit import Permit

#: No attributes: what most questions come with.
NOTHING: Mapping[str, str] = MappingProxyType({})
#: Where HTTP has room for a receipt beside its message.
RECEIPT_HEADER = "X-SIIS-Receipt"


@dataclass(frozen=True, slots=True)
class Identifier:
    """One identifier of a person: the system that gave it (``cedula``, or a URI for foreign ones) and its value."""

    system: str
    value: str


@dataclass(frozen=True, slots=True)
class EntryReceipt:
    """What the other side keeps as proof that a call is in our log: entry, leaf hash (RFC 6962), address of the proof.

    The entry was committed before the call; its proof appears at that address a second or two later.
    """

    entry_id: UUID
    leaf_hash: bytes
    proof: str

    def __str__(self) -> str:
        """Write it as the header ``X-SIIS-Receipt`` has it."""
        return f"entry_id={self.entry_id};leaf={self.leaf_hash.hex()};proof={self.proof}"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an outcome comes from: adapter, institution, time (UTC), SHA-256 of the raw answer, effort.

    ``register`` names the file it was read from, where the answer comes from a register taken before: ``at`` is then
    when that was taken, and ``raw_sha256`` the file's. ``message_id`` is the X-Road id of our last message, and
    ``signature`` the SHA-256 of our signature's value in it (WS-Security), where the manifest asks for them.
    """

    adapter: str
    institution: str
    at: datetime
    raw_sha256: bytes | None
    duration_ms: int
    attempts: int
    register: str = ""
    message_id: str = ""
    signature: bytes | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The producer answered with facts, mapped to the dataset's field names; ``raw_codes`` keeps codes unmapped."""

    facts: Mapping[str, Any]
    provenance: Provenance
    raw_codes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotFound:
    """The producer answered that it has nothing about the subject."""

    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Rejected:
    """The producer understood and refused; ``reason`` is its own text, never shown to third parties unmasked."""

    code: str
    reason: str
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No usable answer within the time budget. ``effect_unknown``: the producer may have acted on what was sent."""

    reason: str
    provenance: Provenance
    retry_after_s: float | None = None
    effect_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Malformed:
    """The producer answered something that is not its contract; ``reason`` says which rule, without the content."""

    reason: str
    provenance: Provenance
    effect_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """The recipient took the message; ``reference`` is its own number for it, empty when it gives none."""

    reference: str
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class AlreadyTaken:
    """The recipient had taken this message before: the effect is there, once."""

    reference: str
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Reply:
    """A counter-referral as a recipient reports it, in our codes (``schemas/codes/referral-events.yaml``).

    ``raw_codes`` keeps the recipient's own code of each field that was translated.
    """

    referral_id: UUID
    message_id: str
    event: str
    occurred_on: date
    outcome: str | None = None
    reason_code: str | None = None
    reason_text: str | None = None
    appointment_at: str | None = None
    place: str | None = None
    proof_reference: str | None = None
    raw_codes: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row or item that could not be read: its number (1 is the first data row), the column, and the rule broken.

    ``masked`` shows the shape of the value that broke it, never the value.
    """

    row: int
    column: str
    what: str
    masked: str = ""


class Row(NamedTuple):
    """A row of a register in the dataset's field names; ``raw_codes`` keeps codes unmapped.

    There is one for every row of a register, and a tuple is what is made fastest.
    """

    row: int
    facts: Mapping[str, Any]
    raw_codes: Mapping[str, str] = NOTHING


class Register(Protocol):
    """A whole register, fetched and waiting to be read; ``sha256`` of its content tells whether it was taken before."""

    name: str
    sha256: bytes
    provenance: Provenance

    def rows(self, after: int = 0) -> AsyncIterator[Sequence[Row | RejectedRow]]:
        """Give the rows behind number ``after``, in batches and in order; raise ContractBroken where it is no register.

        A row is in one batch, a rejected row once; memory does not grow with the register.
        """
        ...

    async def close(self) -> None:
        """Let go of what the register was kept in."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """What a poll brought: replies in the recipient's order, unreadable rows, and the cursor to continue from.

    ``source`` names what they stood in, where that has a name: a file.
    """

    items: tuple[Reply, ...]
    rejects: tuple[RejectedRow, ...]
    cursor: str
    more: bool
    provenance: Provenance
    source: str = ""


#: What a recipient may be told of a referral it has, where its manifest says how.
FURTHER = ("cancel", "reopen", "note")


@dataclass(frozen=True, slots=True)
class ReferralMessage:
    """What leaves towards a recipient: no more of the person than its service needs.

    ``kind`` is ``referral`` or one of :data:`FURTHER`; such a message has an id of its own, ``message_id``, and
    nothing of the person but the identifiers.
    """

    referral_id: UUID
    service: str
    requester: str
    recipient: str
    identifiers: tuple[Identifier, ...]
    given_names: str
    surnames: str
    birth_date: date | None
    sex: str | None
    department: str | None
    district: str | None
    reason_code: str
    reason_text: str
    priority: str
    issued_at: datetime
    due_on: date | None
    kind: str = "referral"
    message_id: UUID | None = None

    @property
    def key(self) -> UUID:
        """The id under which a recipient recognises a repetition."""
        return self.referral_id if self.message_id is None else self.message_id


FetchOutcome = Found | NotFound | Rejected | Unavailable | Malformed
SendOutcome = Taken | AlreadyTaken | Rejected | Unavailable | Malformed
PollOutcome = Page | Rejected | Unavailable | Malformed
BulkOutcome = Register | NotFound | Rejected | Unavailable | Malformed


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What an adapter makes sure of, and what it does not check, in sentences for the one who relies on it."""

    sure: tuple[str, ...]
    unchecked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a producer's last answer was usable, since when (UTC), and if not, why."""

    ok: bool
    since: datetime
    reason: str


class Adapter(Protocol):
    """One producer's system. Verbs it does not have answer ``Rejected`` with code ``unsupported``."""

    name: str
    institution: str
    kind: str
    connected: bool
    datasets: frozenset[str]
    registers: frozenset[str]
    services: frozenset[str]
    polls: bool
    deduplicates: bool

    @property
    def health(self) -> Health:
        """What the last call showed."""
        ...

    @property
    def guarantees(self) -> Guarantees:
        """What it makes sure of and what it does not check."""
        ...

    def asks_by(self, dataset: str) -> str:
        """The identifier system by which this producer knows a subject of a dataset it holds."""
        ...

    async def fetch(
        self,
        permit: Permit,
        dataset: str,
        identifier: Identifier,
        presented: Mapping[str, str] = NOTHING,
        *,
        receipt: EntryReceipt | None = None,
    ) -> FetchOutcome:
        """Ask for a dataset about one subject; ``presented`` is what the person showed, to be matched at the source.

        ``receipt`` goes with the question where the producer's interface has room for it.
        """
        ...

    async def send(
        self, permit: Permit, message: ReferralMessage, *, receipt: EntryReceipt | None = None
    ) -> SendOutcome:
        """Transmit a referral, or more about it, under ``message.key``; ``receipt`` as with a question."""
        ...

    async def poll(self, permit: Permit, cursor: str | None) -> PollOutcome:
        """Ask for counter-referrals after ``cursor`` (``None``: from the beginning)."""
        ...

    async def bulk(self, permit: Permit, dataset: str, taken: Collection[bytes]) -> BulkOutcome:
        """Fetch the first register whose SHA-256 is not among ``taken``; NotFound when there is none.

        Whoever gets a register closes it.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
