"""Types of the registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class PersonRef:
    """What a decision needs of a person: internal id and coded facts, no name."""

    id: UUID
    household_id: UUID | None
    birth_date: date | None
    deceased_on: date | None
    sex: str | None
    department: str | None
    district: str | None
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PersonDetails:
    """A person with names and identifiers, for a message to a recipient."""

    ref: PersonRef
    given_names: str
    surnames: str
    identifiers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NewPerson:
    """A person to register."""

    id: UUID
    given_names: str
    surnames: str
    identifiers: tuple[tuple[str, str], ...]
    birth_date: date | None = None
    sex: str | None = None
    department: str | None = None
    district: str | None = None
    deceased_on: date | None = None
    household_id: UUID | None = None
    guardian_id: UUID | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fact:
    """Whether a unit receives a service, as one source said on one day through one instrument."""

    id: UUID
    service: str
    protected: bool
    source: str
    instrument: str
    observed_on: date
    recorded_at: datetime
    referral_id: UUID | None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The status of one service that applies to a unit: ``protected``, ``unprotected`` or ``unknown``, and why."""

    service: str
    category: str
    status: str
    fact: Fact | None


@dataclass(frozen=True, slots=True)
class ProtectionStatus:
    """All services that apply to a unit on a day; concurrent when every one of them is protected."""

    unit: str
    category: str | None
    services: tuple[ServiceStatus, ...]

    @property
    def concurrent(self) -> bool:
        """Whether every applicable service is reached (False when none applies)."""
        return bool(self.services) and all(item.status == "protected" for item in self.services)

    @property
    def gaps(self) -> tuple[str, ...]:
        """Codes of the applicable services that are not known to be reached."""
        return tuple(item.service for item in self.services if item.status != "protected")
