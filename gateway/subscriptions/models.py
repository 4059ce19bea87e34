"""Types of subscriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

Channel = Literal["webhook", "pull"]
UNVERIFIED: Final = "unverified"
ACTIVE: Final = "active"
DISABLED: Final = "disabled"
CANDIDATE: Final = "candidate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events are wanted; an empty set wants all. Places are codes of the statistics office.

    ``parts``: of which referrals, those where the institution is ``requester``, ``recipient`` or ``candidate``.
    """

    types: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    departments: frozenset[str] = frozenset()
    districts: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSubscription:
    """A subscription as it is asked for; ``institution`` counts only for whoever runs the machine."""

    channel: Channel
    wanted: Filter
    url: str | None = None
    institution: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A subscription as its institution sees it; ``waiting``: events not taken yet, None: not counted."""

    id: UUID
    institution: str
    channel: Channel
    state: str
    wanted: Filter
    url: str | None
    position: int
    failures: int
    failing_since: datetime | None
    taken_at: datetime | None
    old_secret_until: datetime | None
    created_at: datetime
    waiting: int | None = None


@dataclass(frozen=True, slots=True)
class Happened:
    """An event as others are told of it."""

    id: UUID
    type: str
    at: datetime
    institutions: frozenset[str]
    referral_id: UUID | None
    sequence: int | None
    service: str | None
    department: str | None
    district: str | None
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parties:
    """The institutions of a referral, as it stands now; ``received``: its recipient has it.

    ``candidates``: of an open one, who could claim it, each with its own services among those named.
    """

    requester: str
    recipient: str
    received: bool
    candidates: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def parts(self, institution: str) -> frozenset[str]:
        """Return in which parts an institution is in it."""
        both = (("requester", self.requester), ("recipient", self.recipient if self.received else None))
        parts = {part for part, code in both if code == institution}
        return frozenset(parts | {CANDIDATE}) if institution in self.candidates else frozenset(parts)
