"""What the consent room speaks of: agreements, who asks for what, what is known of the person, and the decision.

Agreements are read strictly from their stored form here; the decision itself is in ``consent/decision.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Literal, NamedTuple
from uuid import UUID

import orjson
from pydantic import AwareDatetime, ConfigDict, Field, TypeAdapter, ValidationError

from consent.errors import InvalidAgreement
from schemas.canonical import canonical_json, sha256
from schemas.permit import Permit

FETCH = "disclosure.fetch"
SEND = "referral.send"
POLL = "reply.poll"
TAKE = "register.take"

SERVICE_PREFIX = "service:"
REPLIES = "replies"
# What of a person leaves with a referral, and what a counter-referral brings back.
REFERRAL_FIELDS = ("identifiers", "given_names", "surnames", "birth_date", "sex", "department", "district")
REPLY_FIELDS = (
    "event",
    "occurred_on",
    "outcome",
    "reason_code",
    "reason_text",
    "appointment_at",
    "place",
    "proof_reference",
)

Effect = Literal["permit", "permit_redacted", "deny"]
Channel = Literal["api", "fhir", "file", "console"]
AgreementStatus = Literal["draft", "proposed", "signed", "active", "suspended", "expired"]
# The states of W3C DPV 2.3 that a record can have; only "given" permits anything.
ConsentState = Literal["requested", "given", "refused", "withdrawn", "revoked", "invalidated", "expired"]
RepresentationKind = Literal["parent", "guardian", "curator", "proxy"]
FlagKind = Literal["sealed", "aggressor", "court-order", "export-ban"]
Treatment = Literal["keep", "district", "age-band", "mask"]

# Every obligation a decision can carry. A gateway that meets one it cannot keep must treat the decision as a denial.
AUDIT_BEFORE_RELEASE = "audit-before-release"
NO_ONWARD_SHARING = "no-onward-sharing"
RETENTION = "retention"
WATERMARK = "watermark"
NOTIFY_OFFICER = "notify-officer"
NOTIFY_SUBJECT = "notify-subject"
REVIEW_DUE = "review-due-72h"
OBLIGATIONS = frozenset(
    {AUDIT_BEFORE_RELEASE, NO_ONWARD_SHARING, RETENTION, WATERMARK, NOTIFY_OFFICER, NOTIFY_SUBJECT, REVIEW_DUE}
)

Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9:._-]{0,79}$")]
_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Codes = Annotated[frozenset[Code], Field(min_length=1)]
_STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class AgreedBasis:
    """A legal basis an agreement rests on, and the norm it cites for it."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    basis: Code
    norm: _Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What ``requester`` may ask of ``holder``: fields per dataset, for which purposes, on which bases, how, and when.

    ``labels`` are the field labels it may see; ``valid_from`` is included, ``valid_to`` excluded (``None``: no end).
    ``treatments`` say per dataset which fields leave reduced (``treatments.yaml``); ``volume_per_day`` is the most
    permits a day in Paraguay, ``retention_days`` how long the requester may keep what it got (``None``: not fixed).
    ``version`` 0 means not stored yet. Only status ``active`` permits anything.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    code: Code
    es: _Text
    en: _Text
    requester: Code
    holder: Code
    datasets: Annotated[Mapping[Code, _Codes], Field(min_length=1)]
    purposes: _Codes
    bases: Annotated[tuple[AgreedBasis, ...], Field(min_length=1)]
    channels: Annotated[frozenset[Channel], Field(min_length=1)]
    minimum_assurance: Annotated[int, Field(ge=1, le=3)]
    labels: _Codes
    roles: _Codes
    valid_from: AwareDatetime
    valid_to: AwareDatetime | None
    status: AgreementStatus
    version: Annotated[int, Field(ge=0)] = 0
    treatments: Mapping[Code, Mapping[Code, Treatment]] = field(default_factory=dict)
    volume_per_day: Annotated[int, Field(ge=1)] | None = None
    retention_days: Annotated[int, Field(ge=1)] | None = None

    def document(self) -> dict[str, Any]:
        """Return the part that the jsonb column holds, lists sorted so that equal agreements give equal documents."""
        return {
            "es": self.es,
            "en": self.en,
            "requester": self.requester,
            "holder": self.holder,
            "datasets": {dataset: sorted(fields) for dataset, fields in self.datasets.items()},
            "purposes": sorted(self.purposes),
            "bases": [{"basis": agreed.basis, "norm": agreed.norm} for agreed in self.bases],
            "channels": sorted(self.channels),
            "minimum_assurance": self.minimum_assurance,
            "labels": sorted(self.labels),
            "roles": sorted(self.roles),
            "treatments": {dataset: dict(sorted(fields.items())) for dataset, fields in self.treatments.items()},
            "volume_per_day": self.volume_per_day,
            "retention_days": self.retention_days,
        }

    def text_sha256(self) -> bytes:
        """Return the hash of what the parties sign: everything but status and version."""
        valid_to = None if self.valid_to is None else self.valid_to.astimezone(UTC).isoformat()
        validity = {"code": self.code, "valid_from": self.valid_from.astimezone(UTC).isoformat(), "valid_to": valid_to}
        return sha256(canonical_json(self.document() | validity))

    def scope_sha256(self) -> bytes:
        """Return the hash of what a person consents to: who gets which fields from whom, for which purposes.

        A consent given under another scope does not count; a new validity or channel leaves consents standing.
        """
        whole = self.document()
        return sha256(canonical_json({name: whole[name] for name in ("requester", "holder", "datasets", "purposes")}))


_AGREEMENT = TypeAdapter(Agreement)


def parse_agreement(document: Mapping[str, Any]) -> Agreement:
    """Read an agreement from its JSON form (``document()`` plus code, status, validity and, if stored, version).

    Raises :class:`InvalidAgreement` naming the first field that is missing, unknown or ill-formed.
    """
    try:
        return _AGREEMENT.validate_json(orjson.dumps(dict(document)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = "/".join(str(part) for part in first["loc"])
        raise InvalidAgreement(str(document.get("code", "?")), field, first["msg"]) from error
    except TypeError as error:
        raise InvalidAgreement(str(document.get("code", "?")), "", "not a JSON value") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: the client, its institution, and the operator it names.

    ``user_verified`` is true only for an operator proved by a signed assertion or a token (DESIGN 9.6); ``assurance``
    runs from 1 (claimed) to 3; ``authenticated_at`` is when that operator last logged in, if known. ``person`` is our
    internal id of a person who comes with a token of their own. ``pilot`` marks a client known by a secret alone.
    ``address`` and ``bound_to`` (thumbprint of the certificate or key the token is bound to) are for the log; no rule
    reads them.
    """

    client_id: str
    institution: str
    user: str | None = None
    user_verified: bool = False
    roles: frozenset[str] = frozenset()
    assurance: int = 1
    authenticated_at: datetime | None = None
    person: UUID | None = None
    pilot: bool = False
    address: str | None = None
    bound_to: str | None = None

    @property
    def holder_of_roles(self) -> str:
        """Under which name roles are granted: the operator's, or the system's own where nobody stands behind it."""
        if self.user is None:
            return f"client:{self.client_id}"
        # An operator cannot take a system's place by calling themselves like one.
        return f"user:{self.user}" if self.user.startswith("client:") else self.user


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who changes what the decision reads: a user of an institution, or whoever runs this machine (``None``)."""

    institution: str | None
    user: str

    def __str__(self) -> str:
        return self.user if self.institution is None else f"{self.institution}/{self.user}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyClaim:
    """What a caller says who breaks the glass: reason (``emergency-reasons``), number of the incident, own words."""

    reason: str
    incident: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked: an action on a holder's dataset (``service:CODE`` for a referral) for a purpose on a basis.

    ``agreement`` is the code the caller claims, if any; ``at`` is the instant (UTC) the decision is for;
    ``registers_subject`` says that this referral itself makes the person known to us.
    """

    action: str
    caller: Caller
    holder: str
    dataset: str
    fields: tuple[str, ...]
    purpose: str
    basis: str
    at: datetime
    on_behalf_of: str | None = None
    agreement: str | None = None
    case: str | None = None
    channel: Channel = "api"
    registers_subject: bool = False
    emergency: EmergencyClaim | None = None

    @property
    def requester(self) -> str:
        """The institution whose agreement counts: the one acted for, else the caller's own."""
        return self.on_behalf_of or self.caller.institution


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentFact:
    """The newest consent record of a person under one agreement, as the decision needs it.

    ``scope_sha256`` is what the agreement asked for then; ``labels`` the sensitive classes it names;
    ``representation`` the id of the mandate by which somebody else gave it.
    """

    id: UUID
    agreement: str
    purposes: frozenset[str]
    fields: frozenset[str]
    state: ConsentState
    text_version: str
    given_at: datetime
    expires_at: datetime | None = None
    labels: frozenset[str] = frozenset()
    scope_sha256: bytes | None = None
    representation: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepresentationFact:
    """A mandate to act for a person. A parent's or guardian's ends when the person comes of age."""

    id: UUID
    representative: UUID
    kind: RepresentationKind
    valid_from: datetime
    valid_to: datetime | None = None
    ended_at: datetime | None = None


class RestrictionFact(NamedTuple):
    """Data that nobody is told of up to and with a day in Paraguay; empty ``holder``, ``dataset``: everybody's, all."""

    holder: str
    dataset: str
    until: date


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedGlass:
    """An emergency access to a person's data that was opened before."""

    institution: str
    user: str
    dataset: str
    incident: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectFacts:
    """What our own store knows of the person asked about; never taken from the request.

    ``subject`` is our internal id, ``None`` when the person is unknown here. ``objections`` are purpose codes;
    ``barred`` are institutions and persons (ids as text) that may learn nothing, ``glasses`` earlier emergencies.
    """

    subject: UUID | None
    birth_date: date | None = None
    deceased: bool = False
    sealed: bool = False
    court_order: bool = False
    export_ban: bool = False
    barred: frozenset[str] = frozenset()
    objections: frozenset[str] = frozenset()
    restrictions: tuple[RestrictionFact, ...] = ()
    consents: tuple[ConsentFact, ...] = ()
    representations: tuple[RepresentationFact, ...] = ()
    glasses: tuple[OpenedGlass, ...] = ()


UNKNOWN_SUBJECT = SubjectFacts(subject=None)


class AgreementRef(NamedTuple):
    """An agreement as a decision cites it."""

    code: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer: effect, the permit if any, and the reasons.

    ``withheld`` maps each field asked and not released to its true reason (``withheld-reasons``; the caller sees only
    ``not-released``). ``reasons`` are ``denial-reasons`` codes, empty unless denied. ``hides_subject``: the answer
    must look exactly like not found (DESIGN 9.4). ``consent`` is the record a release on consent rests on.
    ``treatments`` names the released fields that leave reduced; ``emergency`` says that the glass was broken for it.
    ``trace`` is the way the decision went, one ``rule:verdict[:detail]`` per step, for the log and for ``explain``.
    """

    id: UUID
    effect: Effect
    permit: Permit | None
    released: frozenset[str]
    withheld: Mapping[str, str]
    reasons: tuple[str, ...]
    hides_subject: bool
    agreement: AgreementRef | None
    norm: str | None
    consent: UUID | None
    obligations: tuple[str, ...]
    policy_version: str
    treatments: Mapping[str, str]
    retention_days: int | None
    emergency: bool
    trace: tuple[str, ...]


class Assignment(NamedTuple):
    """A role somebody holds; ``valid_to`` excluded, ``None``: until it is revoked."""

    role: str
    valid_to: datetime | None
