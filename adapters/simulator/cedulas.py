"""Decides which identity card number a person gets: unique, and higher the later they were born."""

from __future__ import annotations

from bisect import bisect
from functools import lru_cache
from random import Random

from adapters.simulator.proportions import CEDULA_BLOCKS, OLD_SERIES

_OVERFLOW = 30_000_000  # eight digits, once the block of a year of birth is used up
_STEP = 611_953  # a prime above the size of every block: walks through the whole block before it meets itself
_OLD_SERIES_UNTIL = 1960
YEARS = range(1900, 2101)


class Cedulas:
    """Numbers in the form of :func:`schemas.ids.parse_cedula`; memory is two figures per year of birth."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._shift = {year: rng.random() for year in YEARS}
        self._used = dict.fromkeys(self._shift, 0)
        self._overflow = _OVERFLOW

    def next(self, year: int) -> str:
        """Return a number never given before to somebody born in ``year`` (one of ``YEARS``)."""
        start = _first_number(year)
        size = _first_number(year + 1) - start
        used = self._used[year]
        self._used[year] = used + 1
        if used >= size:
            self._overflow += 1
            return str(self._overflow)
        number = start + (used * _STEP + int(self._shift[year] * size)) % size
        lettered = year < _OLD_SERIES_UNTIL and self._rng.random() < OLD_SERIES
        return f"{number}{'ABC'[number % 3]}" if lettered else str(number)


@lru_cache(maxsize=256)
def _first_number(year: int) -> int:
    """Return where a year's block starts: in proportion between the years of the table, and onwards beyond its end."""
    years = [row[0] for row in CEDULA_BLOCKS]
    right = min(max(bisect(years, year), 1), len(years) - 1)
    (year0, number0), (year1, number1) = CEDULA_BLOCKS[right - 1], CEDULA_BLOCKS[right]
    return number0 + (number1 - number0) * (year - year0) // (year1 - year0)
