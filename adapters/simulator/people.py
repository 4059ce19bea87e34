"""The identity register both identity services answer from, with the fields their answers have."""

from __future__ import annotations

import re
import zlib
from datetime import date, datetime, timedelta, timezone
from itertools import chain
from zoneinfo import ZoneInfo

from adapters.simulator.pension_cases import households
from adapters.simulator.population import SimPerson, generate

_ASUNCION = ZoneInfo("America/Asuncion")
_CEDULA = re.compile(r"0*([1-9][0-9]{0,7}[A-D]?)\Z")
NOT_FOUND = "Persona no encontrada."
#: The register writes adjectives in capitals, the simulated country has ISO 3166-1 codes.
_NATIONALITIES = {
    "PRY": "PARAGUAYA",
    "ARG": "ARGENTINA",
    "BRA": "BRASILEÑA",
    "DEU": "ALEMANA",
    "UKR": "UCRANIANA",
}


def load(persons: int, seed: int) -> dict[str, SimPerson]:
    """Return everybody who has a cédula, by cédula, the named applicants of the pension among them."""
    return {
        person.cedula: person
        for household in chain(generate(persons, seed), households())
        for person in household.members
        if person.cedula is not None
    }


def cedula_key(text: str) -> str | None:
    """Return the key of a cédula, zero-padded or not; ``None`` for dots, other letters or too many digits."""
    match = _CEDULA.match(text.strip().upper())
    return match[1] if match else None


def midnight(day: date) -> str:
    """Write a date as the services do: a dateTime at midnight in Asunción, as in ``1960-05-01T00:00:00-04:00``."""
    local = datetime(day.year, day.month, day.day, tzinfo=_ASUNCION)
    hours = round((local.utcoffset() or timedelta(hours=-4)) / timedelta(hours=1))
    # Whole hours, because local mean time, in force until 1931, has seconds that xs:dateTime cannot write.
    return local.replace(tzinfo=timezone(timedelta(hours=hours))).isoformat()


def nationality(person: SimPerson) -> str:
    """Return the nationality as the register writes it; a Paraguayan with a foreign document is a naturalised one."""
    if person.nationality == "PRY" and person.foreign_documents:
        return "PARAGUAYA NATURALIZADA"
    return _NATIONALITIES.get(person.nationality, person.nationality)


def record(person: SimPerson) -> dict[str, str]:
    """Return the fields both services answer, by their own names, without those that are empty."""
    fields = {
        "cedula": person.cedula,
        "nombres": person.given_names,
        "apellido": person.surnames,
        "sexo": person.sex,
        "fechNacim": midnight(person.birth_date),
        "estadoCivil": person.marital_status,
        "nacionalidadBean": nationality(person),
        "profesionBean": person.profession,
    }
    return {name: value for name, value in fields.items() if value}


def birth_entry(person: SimPerson) -> dict[str, str]:
    """Return the card's print date and the birth entry behind it, which only the SOAP service answers."""
    draw = zlib.crc32((person.cedula or "").encode())
    entered = person.birth_date + timedelta(days=draw % 60)
    printed = max(person.birth_date, date(2016, 1, 1)) + timedelta(days=draw % 3000)
    return {
        "fechImpresion": midnight(printed),
        "icActa": str(draw % 900 + 1),
        "icFeccar": entered.strftime("%d/%m/%Y"),
        "icFolio": str(draw // 7 % 300 + 1),
        "icOfnac": f"{draw // 11 % 260:03d}",
        "icTomo": str(draw // 13 % 40 + 1),
    }
