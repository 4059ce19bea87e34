"""Decides what can be known of a person of the simulated country: a dossier, and the records institutions hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from adapters.simulator.population import SimPerson


@dataclass(frozen=True, slots=True)
class Employer:
    """A private employer of a person: contributions run from ``since`` to ``last_paid``, each a first of the month."""

    number: str
    name: str
    position: str
    since: date
    last_paid: date
    active: bool


@dataclass(frozen=True, slots=True)
class Insurance:
    """What the social insurance says: TITULAR, BENEFICIARIO or JUBILADO, and the employers, newest first."""

    kind: str
    employers: tuple[Employer, ...] = ()
    dependants: int = 0
    life_certificate: date | None = None

    @property
    def enrolled(self) -> bool:
        """Whether there is cover now."""
        return self.kind != "TITULAR" or any(employer.active for employer in self.employers)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A disability certificate: LEVE, MODERADO or SEVERO."""

    number: str
    degree: str
    kind: str
    issued_on: date
    valid_until: date


@dataclass(frozen=True, slots=True)
class Membership:
    """Belonging to an indigenous community; ``registered`` says whether the community is in the register."""

    community: str
    number: str
    people: str
    registered: bool
    since: date


@dataclass(frozen=True, slots=True)
class Residence:
    """A foreigner's entry in a book of residents (PERMANENTE or TEMPORARIA)."""

    book: str
    number: int
    resolution: int
    resolved_on: date
    registered_on: date
    file_number: int
    birth_place: str


@dataclass(frozen=True, slots=True)
class Taxpayer:
    """State in the taxpayer register."""

    status: str


@dataclass(frozen=True, slots=True)
class Post:
    """A public servant's post: codes and names of level, entity and office as the payroll has them, guaraníes."""

    level: tuple[str, str]
    entity: tuple[str, str]
    office: str
    position: str
    contract: str
    since: int
    salary: int


@dataclass(frozen=True, slots=True)
class Benefit:
    """A place on a roll of MDS: ACTIVO, SUSPENDIDO or BAJA."""

    status: str
    since: date
    paid_until: date
    role: str = "TITULAR"
    household: str = ""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A pupil's place at school this year."""

    year: int
    level: str
    grade: str
    school: str
    school_name: str


@dataclass(frozen=True, slots=True)
class Event:
    """A health check or a dose: what, when, where."""

    kind: str
    on: date
    place: str


@dataclass(frozen=True, slots=True)
class Abrazo:
    """A child's place in the Abrazo programme."""

    centre: str
    since: date
    instalments: int


@dataclass(frozen=True, slots=True)
class Dossier:
    """Everything institutions know of one person; what is ``None`` or empty they know nothing of.

    ``registered_birth`` is the day in the birth record where it is not the one on the identity card.
    """

    person: SimPerson
    registered_birth: date | None = None
    insurance: Insurance | None = None
    certificate: Certificate | None = None
    membership: Membership | None = None
    residences: tuple[Residence, ...] = ()
    taxpayer: Taxpayer | None = None
    post: Post | None = None
    pension: Benefit | None = None
    tekopora: Benefit | None = None
    enrolment: Enrolment | None = None
    checks: tuple[Event, ...] = ()
    doses: tuple[Event, ...] = ()
    abrazo: Abrazo | None = None
