"""Decides what each institution knows of a person of the simulated country, so that their answers fit together.

Who works has an employer at the labour ministry and contributions at the social insurance, or a post on the public
payroll; who died has a death record; nobody is on a roll that the person's household has nothing to do with. Whoever is
on the pension roll and dead is so on purpose (:data:`~adapters.simulator.proportions.DEAD_STILL_SERVED`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from random import Random

from adapters.simulator import names
from adapters.simulator import proportions as shares
from adapters.simulator.pension_cases import CASES
from adapters.simulator.population import SimHousehold, SimPerson, generate
from adapters.simulator.records import (
    Abrazo,
    Benefit,
    Certificate,
    Dossier,
    Employer,
    Enrolment,
    Event,
    Insurance,
    Membership,
    Post,
    Residence,
    Taxpayer,
)

TODAY = date(2026, 11, 22)
#: Communities that live where they always have, and have no registration yet.
UNREGISTERED = frozenset(names.COMMUNITIES[::5])
_FIRMS = (
    "Molino Ñu Porã S.A.", "Cooperativa Ykua Satĩ Ltda.", "Frigorífico Arroyo Mokõi S.R.L.", "Panadería La Concepción",
    "Transportes Yvytu S.A.", "Tejidos Ñanduti E.A.S.", "Aserradero Ka'aguy S.A.", "Comercial Peña e Hijos S.R.L.",
)  # fmt: skip
_POSITIONS = ("Auxiliar administrativo", "Operario", "Chofer", "Encargado de depósito", "Vendedor", "Técnico")
_OFFICES = (
    ("12", "PODER EJECUTIVO", "8", "MINISTERIO DE SALUD PUBLICA Y BIENESTAR SOCIAL", "NIVEL CENTRAL", "Enfermería"),
    ("12", "PODER EJECUTIVO", "7", "MINISTERIO DE EDUCACION Y CIENCIAS", "NIVEL CENTRAL", "Docente de grado"),
    ("12", "PODER EJECUTIVO", "3", "MINISTERIO DEL INTERIOR", "POLICIA NACIONAL", "Suboficial"),
    ("30", "MUNICIPALIDADES", "1", "MUNICIPALIDAD DE ÑEMBY", "ADMINISTRACION CENTRAL", "Auxiliar de servicios"),
)
SCHOOLS = (
    ("1101001", "Escuela Básica San Blas"),
    ("1101002", "Colegio Nacional Ñu Porã"),
    ("1101003", "Escuela Mbo'ehao Ko'ẽmbota"),
    ("1101004", "Escuela Santa Librada"),
)
_PLACES_OF_BIRTH = {"BRA": "Foz do Iguaçu", "ARG": "Posadas", "DEU": "Köln", "UKR": "Odesa"}
_KINDS = ("FISICA", "INTELECTUAL", "VISUAL", "AUDITIVA", "PSICOSOCIAL")
_CENTRES = ("Centro Abierto Mitã Róga", "Centro Abierto Ñemby", "Centro Abierto Villeta")
_SCHEDULE = ("BCG", "Pentavalente 1", "Pentavalente 2", "Pentavalente 3", "SPR 1", "SPR 2", "DPT refuerzo")


def archive(persons: int, seed: int) -> dict[str, Dossier]:
    """Return the dossier of everybody who has a cédula, by cédula, the named ones of the pension case included."""
    # Imported here, because the named persons are made of the types above.
    found = {}
    for household in generate(persons, seed, TODAY):
        found.update({item.person.cedula or "": item for item in _household(household, seed)})
    found.update({case.dossier.person.cedula or "": case.dossier for case in CASES})
    return found


def age(person: SimPerson, on: date = TODAY) -> int:
    """Return completed years of life on a day."""
    born = person.birth_date
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))


def _household(household: SimHousehold, seed: int) -> Iterable[Dossier]:
    """Draw the dossiers of a household; what one adult has, such as insurance, may reach the others."""
    known = [member for member in household.members if member.cedula is not None]
    adults = [member for member in known if age(member) >= 18 and member.deceased_on is None]
    holder = min(adults, key=lambda member: (member.sex != "F", member.number), default=None)
    clerks = {member.number: _Clerk(member, household, seed) for member in known}
    work = {number: clerk.work() for number, clerk in clerks.items()}
    insured = any(insurance is not None and insurance.enrolled for insurance, _post in work.values())
    for member in known:
        insurance, post = work[member.number]
        clerk = clerks[member.number]
        yield clerk.dossier(
            insurance or clerk.beneficiary(insured), post, "TITULAR" if member is holder else "INTEGRANTE"
        )


class _Clerk:
    """Draws one person's facts, from a stream of the person's own: nobody's change when another's do."""

    def __init__(self, person: SimPerson, household: SimHousehold, seed: int) -> None:
        self.person, self.household = person, household
        self.rng = Random(f"dossier:{seed}:{person.cedula}")
        self.age, self.alive = age(person), person.deceased_on is None

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def between(self, low: int, high: int) -> int:
        return low + int(self.rng.random() * (high - low + 1))

    def day(self, years_from: int, years_to: int) -> date:
        """Draw a day so many years ago, but none before the person was born or after the death."""
        drawn = date(TODAY.year - self.between(years_from, years_to), self.between(1, 12), self.between(1, 28))
        last = min(TODAY, self.person.deceased_on or TODAY)
        return max(self.person.birth_date, min(drawn, last))

    def work(self) -> tuple[Insurance | None, Post | None]:
        """Draw what a person lives on: at most one of private employment, a public post, and retirement."""
        if not self.alive or self.age < 19:
            return None, None
        share = shares.FORMAL_WORK[self.household.poverty] if self.age < 65 else shares.WORK_AFTER_65
        if self.chance(share):
            if self.chance(shares.PUBLIC_EMPLOYMENT):
                return None, self.post()
            return Insurance("TITULAR", (self.employer(active=True),), self.between(0, 3)), None
        if self.age >= 60 and self.chance(shares.RETIRED_BY_INSURANCE):
            return Insurance("JUBILADO", life_certificate=date(TODAY.year + 1, self.between(1, 12), 28)), None
        if self.age >= 25 and self.chance(shares.PAST_EMPLOYMENT):
            return Insurance("TITULAR", (self.employer(active=False),)), None
        return None, None

    def employer(self, *, active: bool) -> Employer:
        firm = self.between(0, len(_FIRMS) - 1)
        of_age = date(self.person.birth_date.year + 18, self.person.birth_date.month, 1)
        started = max(self.day(1 if active else 5, 9).replace(day=1), of_age)
        last = date(2026, 10, 1) if active else date(min(started.year + 3, 2024), self.between(1, 12), 1)
        return Employer(
            f"0101-71-{firm:05d}", _FIRMS[firm], _POSITIONS[self.between(0, 5)], min(started, last), last, active
        )

    def post(self) -> Post:
        level, level_name, entity, entity_name, office, position = _OFFICES[self.between(0, len(_OFFICES) - 1)]
        salary = 50_000 * self.between(57, 140)
        contract = "PERMANENTE" if self.chance(0.75) else "CONTRATADO"
        since = TODAY.year - self.between(1, max(1, min(self.age - 18, 30)))
        return Post((level, level_name), (entity, entity_name), office, position, contract, since, salary)

    def beneficiary(self, insured: bool) -> Insurance | None:
        if insured and self.alive and self.age < 18 and self.chance(shares.INSURED_CHILDREN):
            return Insurance("BENEFICIARIO")
        return None

    def dossier(self, insurance: Insurance | None, post: Post | None, role: str) -> Dossier:
        person, services = self.person, self.person.services
        certified = shares.CERTIFIED.get(person.disability)
        community, foreign = person.indigenous_community, person.nationality != "PRY"
        taxpaying = self.age >= 18 and self.chance(shares.TAXPAYERS[self.household.poverty])
        pension = self.benefit("TITULAR") if "universal-pension" in services else None
        in_tekopora = "tekopora" in self.household.services and self.alive
        return Dossier(
            person,
            insurance=insurance,
            post=post,
            certificate=self.certificate() if certified and self.chance(certified) else None,
            membership=self.membership(community) if community and self.chance(shares.KNOWN_TO_INDI) else None,
            residences=self.residences() if foreign and self.chance(shares.RESIDENCE_RECORDED) else (),
            taxpayer=Taxpayer(shares.TAXPAYER_STATES.draw(self.rng)) if taxpaying else None,
            pension=pension,
            tekopora=self.benefit(role) if in_tekopora else None,
            enrolment=self.enrolment() if "school-enrolment" in services else None,
            checks=self.checks(),
            doses=self.doses(),
            abrazo=self.abrazo() if "abrazo" in services else None,
        )

    def certificate(self) -> Certificate:
        expired = self.chance(shares.CERTIFICATE_EXPIRED)
        issued = date(2020 if expired else 2024, self.between(1, 12), self.between(1, 28))
        degree = "SEVERO" if self.person.disability == "severe" else ("LEVE" if self.chance(0.6) else "MODERADO")
        # By the person, so that no two have the same; those of the named persons are below.
        number = f"{issued.year}-{100_000 + self.person.number:06d}"
        return Certificate(number, degree, _KINDS[self.between(0, 4)], issued, issued.replace(year=issued.year + 5))

    def membership(self, community: str) -> Membership:
        place = names.COMMUNITIES.index(community)
        people = ("Mbyá Guaraní", "Avá Guaraní", "Nivaclé", "Enxet Sur", "Ayoreo")[place % 5]
        registered = community not in UNREGISTERED
        return Membership(community, f"INDI-{place + 1:04d}" if registered else "", people, registered, self.day(0, 40))

    def residences(self) -> tuple[Residence, ...]:
        registered = self.day(1, 40)
        entry = Residence(
            "PERMANENTE" if TODAY.year - registered.year > 2 else "TEMPORARIA",
            self.between(1_000, 99_999),
            self.between(100, 9_999),
            registered - timedelta(days=self.between(3, 40)),
            registered,
            self.between(10_000, 999_999),
            _PLACES_OF_BIRTH[self.person.nationality],
        )
        return (entry,)

    def benefit(self, role: str) -> Benefit:
        since = self.day(0, 8)
        return Benefit("ACTIVO", since, date(2026, 10, 1), role, f"H{self.household.number:07d}")

    def enrolment(self) -> Enrolment:
        school, grade = SCHOOLS[self.between(0, len(SCHOOLS) - 1)], min(max(self.age - 5, 0), 12)
        level = "EDUCACION INICIAL" if grade == 0 else "EDUCACION ESCOLAR BASICA" if grade < 10 else "EDUCACION MEDIA"
        text = "JARDIN" if grade == 0 else f"{grade}.º GRADO" if grade < 10 else f"{grade - 9}.º CURSO"
        return Enrolment(TODAY.year, level, text, *school)

    def checks(self) -> tuple[Event, ...]:
        served = self.person.services
        kinds = [kind for kind in ("health-control", "growth-control", "prenatal-control") if kind in served]
        if not kinds or not self.alive:
            return ()
        text = {"health-control": "CONTROL ADULTO MAYOR", "growth-control": "CRECIMIENTO Y DESARROLLO"}
        kind = text.get(kinds[0], "CONTROL PRENATAL")
        days = sorted((self.day(0, 1) for _ in range(self.between(1, 14))), reverse=True)
        return tuple(Event(kind, day, f"USF {self.household.locality}") for day in days)

    def doses(self) -> tuple[Event, ...]:
        place = f"USF {self.household.locality}"
        if self.age >= 5:
            vaccine = "Influenza" if self.chance(0.5) else "COVID-19"
            return (Event(vaccine, self.day(0, 3), place),) if self.chance(shares.EXTRA_DOSES) else ()
        given = len(_SCHEDULE) if "vaccination" in self.person.services else self.between(0, 4)
        days = sorted((self.day(0, max(self.age, 1)) for _ in range(given)), reverse=True)
        return tuple(Event(_SCHEDULE[given - 1 - turn], day, place) for turn, day in enumerate(days))

    def abrazo(self) -> Abrazo:
        since = self.day(0, 5)
        months = (TODAY.year - since.year) * 12 + TODAY.month - since.month
        return Abrazo(_CENTRES[self.between(0, len(_CENTRES) - 1)], since, min(months, 72))


def complete(dossier: Dossier) -> bool:
    """Say whether the doses make the schedule of children complete."""
    return {dose.kind for dose in dossier.doses} >= set(_SCHEDULE)
