"""Types of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any, Final, Literal

from schemas.text import language

#: The institution that coordinates: it routes what has no other place, and its auditors oversee everybody.
COORDINATOR = "UTGS"

#: What the catalogue holds, in the order in which one kind builds on another.
KINDS: Final = ("institutions", "programmes", "requirements", "services", "locations", "packages", "routes")

PackageKind = Literal["core", "extended", "differential"]


class Named:
    """Something with a name in Spanish and English."""

    __slots__ = ()
    names: dict[str, str]

    @property
    def name(self) -> str:
        """The name in the language in force."""
        return self.names[language()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Institution(Named):
    """An institution (OEE), and how everybody reaches it."""

    code: str
    names: dict[str, str]
    phone: str | None = None
    email: str | None = None
    website: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme(Named):
    """A programme of an institution, to which services belong."""

    code: str
    institution: str
    names: dict[str, str]
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement(Named):
    """A paper that a person brings; ``issuer``: the institution that gives it, ``website``: where it is asked for."""

    code: str
    names: dict[str, str]
    issuer: str | None = None
    website: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Named):
    """One service: who gives it to whom, ages in completed years (both ends included), terms in calendar days.

    ``categories``: life-cycle categories to whose members it applies by itself; empty: only who is referred or asks.
    ``response_days``: the guarantee, within which the recipient answers. ``coverage_days``: for how long a delivery
    protects; None: for as long as nothing else is said. ``capacity``: how many open referrals it takes; None: no bound.
    ``requirements``: codes of the catalogue's ``requirements``, what the person brings. The texts are Spanish:
    ``application``: how one asks for it, ``fees``: what it costs, ``eligibility``: what else is asked for.
    ``outside_core``: categories whose core package there is without it; there it counts in no concurrent protection.
    """

    code: str
    institution: str
    names: dict[str, str]
    categories: frozenset[str]
    requires: str | None
    from_age: int | None
    response_days: int
    to_age: int | None = None
    coverage_days: int | None = None
    capacity: int | None = None
    programme: str | None = None
    requirements: tuple[str, ...] = ()
    description: str | None = None
    application: str | None = None
    eligibility: str | None = None
    fees: str | None = None
    outside_core: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Weekly hours, local time; ``days`` as in RFC 5545 (``MO`` to ``SU``)."""

    days: tuple[str, ...]
    opens: time
    closes: time


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A service at a location: when it is given there, and to which districts (statistics-office codes)."""

    service: str
    openings: tuple[Opening, ...]
    districts: tuple[str, ...]
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Location(Named):
    """A place where services are given; district by the statistics office's code, coordinates in degrees (WGS 84)."""

    code: str
    names: dict[str, str]
    institution: str
    department: str
    district: str
    address: str | None = None
    phone: str | None = None
    email: str | None = None
    latitude: str | None = None
    longitude: str | None = None
    offers: tuple[Offer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePackage(Named):
    """A package (núcleo, ampliado, diferencial) of a life-cycle category, its services in the order to look at them.

    ``populations``: codes of the list ``populations`` for whom a differential package is meant.
    """

    code: str
    names: dict[str, str]
    kind: PackageKind
    category: str
    services: tuple[str, ...]
    populations: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """Where a route goes on: ``to`` a later step, None: it ends; ``after`` an outcome of the referral, None: any.

    ``when``: the condition that a person judges, in Spanish; None: none.
    """

    to: str | None
    after: str | None = None
    when: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteStep:
    """One step of a route: a service, why it is there (Spanish), and where it goes on; without branches it ends."""

    id: str
    service: str
    reason: str | None
    next: tuple[Branch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRoute(Named):
    """A route of services; it begins with its first step, and branches lead to later ones only."""

    code: str
    names: dict[str, str]
    steps: tuple[RouteStep, ...]
    description: str | None = None
    populations: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the catalogue as it is kept: its document, the number of its revision and since when it holds."""

    document: dict[str, Any]
    revision: int
    at: datetime


#: The catalogue as it is kept: kind → code → item; what was withdrawn is not in it.
Items = Mapping[str, Mapping[str, Item]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One change of one entry: who, when, and the document from then on (None: withdrawn) and until then."""

    kind: str
    code: str
    number: int
    change_id: str
    at: datetime
    institution: str | None
    actor: str
    document: dict[str, Any] | None
    before: dict[str, Any] | None
