"""The types of the log: what a caller hands in, what it gets back, and what a check of the whole log reports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args
from uuid import UUID

from schemas.ids import uuid7

Outcome = Literal["permit", "permit_redacted", "deny", "done", "failed"]
ProblemKind = Literal["changed", "missing", "reordered", "duplicated", "foreign", "signature", "not_a_prefix"]

GROUPS = frozenset({"actor", "subject", "why", "what", "decision", "exchange"})
OUTCOMES = frozenset(get_args(Outcome))
# The log's own data key, for entries about nobody, is kept in the row of this subject.
LOG_SUBJECT = UUID(int=0)

#: The detail of an entry: fields by group.
Groups = Mapping[str, Mapping[str, Any]]

_TYPE = re.compile(r"[a-z][a-z0-9]*(\.[a-z][a-z0-9_]*){1,3}\Z")
_VERSION = re.compile(r"[A-Za-z0-9._:+-]{1,80}\Z")
_CORRELATION = re.compile(r"[0-9a-f]{32}\Z|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened, as a caller tells it.

    ``at`` is the instant (aware, kept in UTC); ``subject`` the internal id of the one person it is about; ``groups``
    holds the detail under the names of :data:`GROUPS`, JSON values without floating-point numbers. ``correlation``
    ties entries of one exchange together: a W3C trace id (32 hex digits) or a UUID, nothing a caller could have
    written a name into, because it stays in clear for ever. ``statement`` stays in clear as well: what anybody who
    verifies the log must be able to read, and nothing about a person. The recorder is not here: the log that takes the
    entry writes its own name. Raises :class:`ValueError` for codes that are not codes, naming the field only.
    """

    at: datetime
    type: str
    outcome: Outcome
    policy_version: str
    subject: UUID | None = None
    correlation: str | None = None
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    statement: Mapping[str, Any] | None = None
    id: UUID = field(default_factory=uuid7)

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError("entry: at has no time zone")
        if not _TYPE.match(self.type) or len(self.type) > 64:
            raise ValueError("entry: type is not a dotted code")
        if self.outcome not in OUTCOMES:
            raise ValueError("entry: unknown outcome")
        if not _VERSION.match(self.policy_version):
            raise ValueError("entry: policy_version is not a version")
        if self.correlation is not None and not _CORRELATION.match(self.correlation):
            raise ValueError("entry: correlation is neither a trace id nor a UUID")
        if not GROUPS.issuperset(self.groups):
            raise ValueError("entry: unknown group of fields")
        if self.subject == LOG_SUBJECT:
            raise ValueError("entry: the nil UUID is no person")
        object.__setattr__(self, "at", self.at.astimezone(UTC))


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that an entry was taken: its id, its leaf hash (RFC 6962), and the subject's pseudonym in the log."""

    entry_id: UUID
    leaf_hash: bytes
    pseudonym: UUID | None


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """An entry as read back: log (a year) and number in it (``None`` while it waits), envelope, detail (once erased
    ``None``)."""

    entry_id: UUID
    log: int | None
    index: int | None
    envelope: Mapping[str, Any]
    detail: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the stored log; ``what`` is a sentence for the person who reads the report."""

    kind: ProblemKind
    log: int | None
    index: int | None
    entry_id: UUID | None
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a check of the whole log found. ``problems`` starts with the first wrong entry and is cut at a hundred."""

    entries: int
    pending: int
    checkpoints: int
    root: bytes
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """True if nothing is wrong."""
        return not self.problems
