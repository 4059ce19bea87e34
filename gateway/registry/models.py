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
    """The status of one service that applies to a unit (code list ``protection-states``), and why.

    ``fact``: the one that counts. ``rule`` (code list ``status-rules``): why that one. ``core``: whether the service is
    of the core package, which alone decides whether the protection is concurrent.
    """

    service: str
    category: str
    status: str
    fact: Fact | None
    rule: str
    core: bool = True


@dataclass(frozen=True, slots=True)
class ProtectionStatus:
    """All services that apply to a unit on a day; concurrent when every one of the core package is protected.

    ``category``: by age, or the kind of unit. ``categories``: all that the unit is in; a pregnant woman is in two.
    ``due_on``: the first later day on which time alone may change any of it.
    """

    unit: str
    category: str | None
    services: tuple[ServiceStatus, ...]
    categories: tuple[str, ...] = ()
    due_on: date | None = None

    @property
    def concurrent(self) -> bool:
        """Whether every applicable service of the core package is reached (False when none applies)."""
        return _all_reached([item for item in self.services if item.core])

    @property
    def applicable_in(self) -> tuple[str, ...]:
        """The categories in which a service of the core package applies."""
        core = {item.category for item in self.services if item.core}
        return tuple(code for code in self.categories if code in core)

    @property
    def concurrent_in(self) -> tuple[str, ...]:
        """The categories in which every applicable service of the core package is reached."""
        core = [item for item in self.services if item.core]
        return tuple(code for code in self.categories if _all_reached([item for item in core if item.category == code]))

    @property
    def gaps(self) -> tuple[str, ...]:
        """Codes of the applicable services that are not known to be reached."""
        return tuple(item.service for item in self.services if item.status != "protected")


def _all_reached(services: list[ServiceStatus]) -> bool:
    return bool(services) and all(item.status == "protected" for item in services)
