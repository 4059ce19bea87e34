"""Identifiers: our own (UUIDv7) and those of persons and taxpayers in Paraguay."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid

from schemas.errors import InvalidIdentifier

_CEDULA = re.compile(r"[1-9][0-9]{0,7}[A-D]?\Z")
_RUC = re.compile(r"([1-9][0-9]{0,7}[A-D]?)-([0-9])\Z")
_lock = threading.Lock()
_last = 0


def uuid7() -> uuid.UUID:
    """Make a UUID version 7 (RFC 9562 clause 5.7): 48 bits of Unix milliseconds, then a counter and random bits.

    Ids made by one process sort in the order they were made: the 12 bits of ``rand_a`` hold the fraction of the
    millisecond (clause 6.2 method 3), and never run backwards.
    """
    global _last
    with _lock:
        stamp = max(time.time_ns() * 4096 // 1_000_000, _last + 1)
        _last = stamp
    milliseconds, fraction = divmod(stamp, 4096)
    tail = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    return uuid.UUID(int=(milliseconds << 80) | (7 << 76) | (fraction << 64) | (0b10 << 62) | tail)


def parse_uuid(text: str) -> uuid.UUID:
    """Read a UUID in its canonical form only (RFC 9562 clause 4); raise :class:`InvalidIdentifier` otherwise."""
    try:
        value = uuid.UUID(text)
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidIdentifier("uuid") from error
    if str(value) != text.lower():
        raise InvalidIdentifier("uuid")
    return value


def parse_cedula(text: str) -> str:
    """Return a cédula as the key it is stored under: digits without dots or leading zeros, upper-case series letter.

    Old series carry one letter A to D and are zero-padded by some producers; both forms give the same key.
    Raises :class:`InvalidIdentifier` for dots, other letters, none or more than eight digits.
    """
    key = text.strip().upper().lstrip("0")
    if len(text) > 12 or not _CEDULA.match(key):
        raise InvalidIdentifier("cedula")
    return key


def ruc_check_digit(base: str) -> int:
    """Compute the check digit of a RUC (DNIT, modulo 11, weights 2 to 11 from the right; letters as ASCII numbers)."""
    digits = "".join(c if c.isdigit() else str(ord(c)) for c in base.upper())
    total = sum(int(digit) * (2 + place % 10) for place, digit in enumerate(reversed(digits)))
    remainder = total % 11
    return 11 - remainder if remainder > 1 else 0


def parse_ruc(text: str) -> str:
    """Return a RUC ``base-digit`` whose check digit is right; raise :class:`InvalidIdentifier` otherwise."""
    match = _RUC.match(text.strip().upper())
    if match is None or ruc_check_digit(match[1]) != int(match[2]):
        raise InvalidIdentifier("ruc")
    return match[0]
