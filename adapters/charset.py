"""Decides which charsets an answer may be in, and turns its bytes into UTF-8."""

from __future__ import annotations

import codecs
import re

from adapters.errors import ContractBroken

_IN_HEADER = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9._:-]+)", re.IGNORECASE)
# Charsets of texts alone: Python knows others that run what they decode, or take time without measure for it.
_ALLOWED = re.compile(r"utf-8|utf-16(-le|-be)?|ascii|iso8859-\d{1,2}|cp125\d")


def charset_in(content_type: str) -> str | None:
    """Return the charset a Content-Type header states, as :func:`charset_of` does; ``None`` where it states none."""
    stated = _IN_HEADER.search(content_type)
    return None if stated is None else charset_of(stated[1])


def charset_of(name: str) -> str:
    """Return the one name of a charset, whichever of its names it is given; raise ContractBroken for an unknown one."""
    try:
        known = codecs.lookup(name).name
    except (LookupError, UnicodeError):
        known = ""
    if not _ALLOWED.fullmatch(known):
        raise ContractBroken("the answer is in an unknown charset")
    return known


def to_utf8(body: bytes, charset: str) -> bytes:
    """Write a text in UTF-8; ``charset`` as :func:`charset_of` names it. Raises ContractBroken where it is not so."""
    try:
        return body.decode(charset).encode()
    except UnicodeError:
        raise ContractBroken("the answer is not in the charset it declares") from None
