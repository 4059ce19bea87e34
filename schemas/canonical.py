"""Bytes for hashing: one JSON value, one byte string."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

# What most members are; every entry of the log passes here a dozen times.
_PLAIN = frozenset({str, int, bool, type(None)})


def canonical_json(value: Any) -> bytes:
    """Serialise to JSON with sorted keys and no spaces (as RFC 8785 for strings, integers, booleans, lists, objects).

    Floating-point numbers do not occur in what we hash and are refused with :class:`TypeError`.
    """
    _refuse_floats(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 digest (FIPS 180-4)."""
    return hashlib.sha256(data).digest()


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise TypeError("floating-point number in canonical JSON")
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    # Flat values, which most are, are looked through without a loop of our own.
    if _PLAIN.issuperset(map(type, members)):
        return
    for member in members:
        if type(member) not in _PLAIN:
            _refuse_floats(member)
