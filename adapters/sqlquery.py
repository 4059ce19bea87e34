"""Decides whether a manifest's query is one SELECT that only reads, and which parameters it has.

The second lock; the first is that the connection is read-only and its user may do no more than read.
"""

from __future__ import annotations

import re

from sqlalchemy import text

from schemas.text import _

_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`")
_MARKS = re.compile(r";|--|/\*|\\(?!:)")
# What a statement that begins with SELECT or WITH can still change or hold: data, files, locks.
_WRITES = re.compile(r"\b(?:insert|update|delete|merge|into)\b|\bfor\s+(?:no\s+key|key|share)\b", re.IGNORECASE)


def parameters(query: str) -> frozenset[str]:
    r"""Return the names of a query's parameters, ``:name`` each; ``\:`` is a colon that begins none."""
    return frozenset(text(query).compile().params)


def unfit(query: str) -> str | None:
    """Say what makes a query more than one SELECT that reads; ``None`` where nothing does."""
    if (mark := _MARKS.search(query)) is not None:
        return _("una sola consulta, sin comentarios: no se admite {mark}").format(mark=mark[0])
    if (word := _WRITES.search(_QUOTED.sub(" ", query))) is not None:
        return _("una consulta que solo lee: no se admite {word}").format(word=word[0].upper())
    return None
