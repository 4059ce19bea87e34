"""DNIT: the taxpayer register as ten ZIP files by the RUC's last digit, pipes between the fields and behind them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

from adapters.simulator.population import SimPerson
from adapters.simulator.publisher import Publisher, archive_of
from adapters.simulator.records import Dossier, Taxpayer
from adapters.simulator.settings import Settings

_SPOILT_ONE_IN = 10
#: Entities have numbers of eight digits; these are beyond any that has been given.
_ENTITIES = (
    ("89999901", "MOLINO ÑU PORÃ S.A."),
    ("89999912", "COOPERATIVA YKUA SATI LTDA."),
    ("89999923", "FRIGORIFICO ARROYO MOKOI S.R.L."),
    ("89999934", "COMERCIAL PEÑA E HIJOS S.R.L."),
)


class Dnit(Publisher):
    """The tax authority's list of RUC."""

    name = "dnit"

    def register(self, *, spoilt: bool) -> Mapping[str, bytes]:
        """Return ``ruc0.zip`` to ``ruc9.zip``; spoilt, one check digit in ten is wrong."""
        rows: dict[str, list[str]] = {str(digit): [] for digit in range(10)}
        for number, (ruc, name, previous, status) in enumerate(self._taxpayers()):
            digit = check_digit(ruc)
            if spoilt and number % _SPOILT_ONE_IN == 0:
                digit = (digit + 1) % 10
            last = ruc.rstrip("ABC")[-1]
            rows[last].append(f"{ruc}|{name}|{digit}|{previous}|{status}|\n")
        return {
            f"publicado/ruc{last}.zip": archive_of(f"ruc{last}.txt", "".join(lines).encode())
            for last, lines in rows.items()
        }

    def _taxpayers(self) -> Iterator[tuple[str, str, str, str]]:
        for cedula, dossier in self.archive.items():
            if dossier.taxpayer is not None:
                yield _row(cedula, dossier, dossier.taxpayer)
        for ruc, name in _ENTITIES:
            yield ruc, name, "", "ACTIVO"


def _row(cedula: str, dossier: Dossier, taxpayer: Taxpayer) -> tuple[str, str, str, str]:
    person = dossier.person
    name = f"{person.surnames}, {person.given_names}".upper()
    return cedula, name, _previous(person), taxpayer.status


def _previous(person: SimPerson) -> str:
    """Write a RUC of the time before 2005: letters of the name, the birth date, a digit."""
    parts = [*person.surnames.split()[:2], *person.given_names.split()[:2]]
    plain = unicodedata.normalize("NFD", "".join(part[:1] for part in parts)).encode("ascii", "ignore").decode()
    return f"{plain.upper():X<4}{person.birth_date:%y%m%d}{person.birth_date.day % 10}"


def check_digit(ruc: str) -> int:
    """Return the check digit of a RUC as DNIT describes it: modulo 11, weights 2 to 11 from the right and again."""
    digits = "".join(letter if letter.isdigit() else str(ord(letter)) for letter in ruc)
    total, weight = 0, 2
    for digit in reversed(digits):
        total += int(digit) * weight
        weight = 2 if weight == 11 else weight + 1
    rest = total % 11
    return 0 if rest < 2 else 11 - rest


def build(settings: Settings) -> Dnit:
    """Return the institution, ready to serve."""
    return Dnit(settings)
