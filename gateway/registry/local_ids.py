"""Numbers for persons who have no cédula: ten digits that can be read out on the phone, the last one a check digit."""

from __future__ import annotations

import re
import secrets

from schemas.errors import InvalidIdentifier

#: The identifier system of these numbers.
LOCAL = "local"
_DIGITS = 10
_SHAPE = re.compile(r"[1-9][0-9]{9}\Z", re.ASCII)
_FILLING = re.compile(r"[ .-]")
# H. M. Damm's quasigroup of order 10 (2004): finds every wrong digit and every exchange of two neighbours.
_DAMM = (
    "0317598642",
    "7092154863",
    "4206871359",
    "1750983426",
    "6123045978",
    "3674209581",
    "5869720134",
    "8945362017",
    "9438617205",
    "2581436790",
)


def new_local_id() -> str:
    """Draw a number in the form it is stored under: nobody can guess the next one, nor count persons by it."""
    base = str(secrets.randbelow(9 * 10 ** (_DIGITS - 2)) + 10 ** (_DIGITS - 2))
    return base + str(_check(base))


def parse_local_id(text: str) -> str:
    """Return a number as it is stored, from one written with blanks, dots or hyphens; raise InvalidIdentifier."""
    key = _FILLING.sub("", text)
    if len(text) > 2 * _DIGITS or not _SHAPE.match(key) or _check(key):
        raise InvalidIdentifier(LOCAL)
    return key


def spoken(local_id: str) -> str:
    """Return a number in the groups in which it is written down and read out: ``123-456-7890``."""
    return f"{local_id[:3]}-{local_id[3:6]}-{local_id[6:]}"


def _check(digits: str) -> int:
    interim = 0
    for digit in digits:
        interim = int(_DAMM[interim][int(digit)])
    return interim
