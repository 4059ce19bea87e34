"""Decides who the named applicants of the universal pension are: invented people, one for each branch of its rules.

Their numbers are eight digits from 29,900,001 on, which no living person has and which the drawn population never gets.
They belong to no drawn household; every simulated institution knows them beside the drawn population.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from adapters.models import Identifier
from adapters.simulator import names
from adapters.simulator.population import SimHousehold, SimPerson
from adapters.simulator.records import (
    Benefit,
    Certificate,
    Dossier,
    Employer,
    Event,
    Insurance,
    Membership,
    Post,
    Residence,
    Taxpayer,
)
from schemas.geography import district

_FIRST = 29_900_001
_HOMES = {
    "1116": "Centro",
    "0607": "Compañía Potrero",
    "0218": "Colonia San Isidro",
    "1602": "Ka'aguy Rory",
    "0000": "Loma Pytã",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One applicant: a short name, what institutions know, and the certificate number shown with the application."""

    name: str
    dossier: Dossier
    shows_certificate: str | None = None

    @property
    def person(self) -> SimPerson:
        """The applicant."""
        return self.dossier.person


def _person(place: int, given: str, surnames: str, sex: str, born: date, home: str, **more: Any) -> SimPerson:
    passport = more.pop("passport", None)
    system = "http://hl7.org/fhir/sid/passport-"
    fields: dict[str, Any] = {
        "number": place,
        "cedula": str(_FIRST + place - 1),
        "foreign_documents": (Identifier(f"{system}{passport}", f"A{place:08}"),) if passport else (),
        "given_names": given,
        "surnames": surnames,
        "birth_date": born,
        "sex": sex,
        "department": district(home).department,
        "district": home,
        "locality": _HOMES[home],
        "marital_status": "S",
        "nationality": "PRY",
        "profession": None,
        "deceased_on": None,
        "twin_of": None,
        "guardian": None,
        "indigenous_community": None,
        "disability": "none",
        "pregnant": False,
        "child_labour": False,
        "phone": None,
        "services": frozenset(),
        **more,
    }
    groups = {
        "women": sex == "F",
        "older-adults": True,
        "disability": fields["disability"] != "none",
        "indigenous": fields["indigenous_community"] is not None,
    }
    return SimPerson(**fields, special_attention=frozenset(group for group, belongs in groups.items() if belongs))


def _residence(number: int, registered: date, birth_place: str) -> Residence:
    resolved = registered - timedelta(days=19)
    return Residence("PERMANENTE", number, 1000 + number, resolved, registered, 500_000 + number, birth_place)


def _certificate(number: str, degree: str, issued: date) -> Certificate:
    return Certificate(number, degree, "FISICA", issued, issued.replace(year=issued.year + 5))


def _cases() -> Iterator[Case]:
    """Give the applicants in the order of their numbers; the rule each one tests stands in the name."""
    yield Case(
        "65-clear",
        Dossier(
            _person(1, "Ramona Élida", "Zárate Ojeda", "F", date(1955, 3, 14), "1116"),
            checks=(Event("CONTROL ADULTO MAYOR", date(2026, 9, 2), "USF Centro"),),
        ),
    )
    severe = _certificate("2024-000117", "SEVERO", date(2024, 5, 6))
    yield Case(
        "60-severe-certificate",
        Dossier(
            _person(2, "Porfirio", "Cabrera Noguera", "M", date(1963, 7, 2), "0607", disability="severe"),
            certificate=severe,
        ),
        severe.number,
    )
    moderate = _certificate("2024-000232", "MODERADO", date(2024, 8, 19))
    yield Case(
        "60-moderate-certificate",
        Dossier(
            _person(3, "Nélida", "Insfrán Báez", "F", date(1964, 1, 23), "1116", disability="mild"),
            certificate=moderate,
        ),
        moderate.number,
    )
    expired = _certificate("2019-004410", "SEVERO", date(2019, 2, 11))
    yield Case(
        "60-expired-certificate",
        Dossier(
            _person(4, "Isidro", "Quiñónez Miño", "M", date(1962, 11, 30), "0218", disability="severe"),
            certificate=expired,
        ),
        expired.number,
    )
    # The number is the one of the second applicant: forgers kept it and swapped name and cédula.
    yield Case(
        "60-certificate-of-another",
        Dossier(_person(5, "Dominga", "Patiño Céspedes", "F", date(1965, 4, 9), "1116")),
        severe.number,
    )
    community = names.COMMUNITIES[1]
    yield Case(
        "55-indigenous-registered",
        Dossier(
            _person(6, "Kerana", "Takua Jeguaka", "F", date(1970, 8, 12), "1602", indigenous_community=community),
            membership=Membership(community, "INDI-0002", "Nivaclé", True, date(1995, 6, 1)),
        ),
    )
    unregistered = names.COMMUNITIES[0]
    yield Case(
        "55-indigenous-not-registered",
        Dossier(
            _person(7, "Arandu", "Vera Mbo'ehára", "M", date(1969, 2, 3), "1602", indigenous_community=unregistered),
            membership=Membership(unregistered, "", "Mbyá Guaraní", False, date(2001, 1, 1)),
        ),
    )
    yield Case(
        "foreigner-30-years",
        Dossier(
            _person(
                8, "João Batista", "Gonçalves Araújo", "M", date(1958, 6, 24), "0218", passport="BRA", nationality="BRA"
            ),
            residences=(_residence(1801, date(1990, 3, 5), "Foz do Iguaçu"),),
        ),
    )
    yield Case(
        "foreigner-18-years",
        Dossier(
            _person(9, "Käthe", "Löwen Dück", "F", date(1957, 10, 8), "1602", passport="DEU", nationality="DEU"),
            residences=(_residence(1802, date(2008, 4, 21), "Köln"),),
        ),
    )
    # Naturalised: a Paraguayan who has a foreign document.
    yield Case(
        "naturalised-14-years",
        Dossier(
            _person(10, "Nélida Beatriz", "Agüero Muñoz", "F", date(1959, 12, 1), "0000", passport="ARG"),
            residences=(_residence(1803, date(2012, 9, 17), "Posadas"),),
        ),
    )
    yield Case(
        "naturalised-3-years",
        Dossier(
            _person(11, "Osvaldo", "Ledesma Quiroga", "M", date(1958, 5, 19), "0000", passport="ARG"),
            residences=(_residence(1804, date(2023, 7, 3), "Posadas"),),
        ),
    )
    office = ("MINISTERIO DE EDUCACION Y CIENCIAS", "NIVEL CENTRAL", "Docente de grado")
    yield Case(
        "on-payroll",
        Dossier(
            _person(12, "Graciela", "Espínola Franco", "F", date(1960, 9, 27), "1116"),
            post=Post(("12", "PODER EJECUTIVO"), ("7", office[0]), office[1], office[2], "PERMANENTE", 1988, 4_250_000),
        ),
    )
    yield Case(
        "other-pension",
        Dossier(
            _person(13, "Marciano", "Benítez Galeano", "M", date(1957, 1, 16), "0000"),
            insurance=Insurance("JUBILADO", life_certificate=date(2027, 1, 31)),
        ),
    )
    firm, job = "Molino Ñu Porã S.A.", "Encargado de depósito"
    working = Employer("0101-71-00000", firm, job, date(2003, 2, 1), date(2026, 10, 1), True)
    yield Case(
        "insured-contributing",
        Dossier(
            _person(14, "Agustín", "Recalde Yegros", "M", date(1961, 3, 30), "1116"),
            insurance=Insurance("TITULAR", (working,), 1),
        ),
    )
    past = Employer("0101-71-00000", firm, job, date(2011, 5, 1), date(2017, 6, 1), False)
    yield Case(
        "insured-once",
        Dossier(
            _person(15, "Blanca Itatí", "Ovelar Saldívar", "F", date(1956, 7, 7), "0607"),
            insurance=Insurance("TITULAR", (past,)),
        ),
    )
    served = frozenset({"universal-pension"})
    roll = Benefit("ACTIVO", date(2021, 4, 1), date(2026, 10, 1))
    yield Case(
        "dead-on-roll",
        Dossier(
            _person(
                16, "Zacarías", "Leguizamón Cuevas", "M", date(1948, 2, 20), "0218",
                deceased_on=date(2025, 8, 3), services=served,
            ),
            pension=roll,
        ),
    )  # fmt: skip
    yield Case(
        "alive-on-roll",
        Dossier(
            _person(
                17,
                "Úrsula",
                "Mareco Amarilla",
                "F",
                date(1950, 10, 11),
                "0218",
                services=served,
            ),
            pension=roll,
        ),
    )
    yield Case(
        "taxpayer-active",
        Dossier(
            _person(18, "Efraín", "Chaparro O'Leary", "M", date(1956, 12, 5), "0000"),
            taxpayer=Taxpayer("ACTIVO"),
        ),
    )
    yield Case(
        "taxpayer-cancelled",
        Dossier(
            _person(19, "Teresa", "Melgarejo Peña", "F", date(1955, 8, 15), "1116"),
            taxpayer=Taxpayer("CANCELADO"),
        ),
    )
    yield Case(
        "too-young",
        Dossier(_person(20, "Fermín", "Riquelme Brítez", "M", date(1968, 6, 13), "0607")),
    )
    yield Case(
        "birth-dates-differ",
        Dossier(
            _person(21, "Pabla", "Arévalos Ñanduá", "F", date(1961, 5, 10), "1116"),
            registered_birth=date(1966, 5, 10),
        ),
    )


CASES = tuple(_cases())


def households() -> Iterator[SimHousehold]:
    """Give each named applicant as a household of one, to be registered like a drawn population."""
    for case in CASES:
        person = case.person
        yield SimHousehold(
            person.number, (person,), person.department, person.district, person.locality, False, frozenset()
        )
