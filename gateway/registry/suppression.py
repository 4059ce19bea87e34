"""Hides small cells of a table of counts so that nothing hidden can be computed from what is shown.

How to use it: give every count that is shown anywhere, totals included, to one call of :func:`hidden`, with the total
that each is a part of. The parts of a total must be all of them and not overlap: where "the others" are not shown, a
reader computes them, so they are a part too (a key of your own that you never print). Print nothing for the keys that
come back. Counts that share persons but are no parts of one total (women, and persons in poverty) are separate tables:
hide each by itself, and hide in the narrower one whatever is hidden in the wider one (``also``).

What is covered: within one table no hidden count follows from those shown by adding and subtracting, and those hidden
under one total never sum up to less than the threshold. What is not: what a reader knows from elsewhere; the difference
between tables of two days; overlapping groups (women and poverty) that are compared with each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

#: Counts from 1 up to one below this are small; none at all says nothing of anybody.
THRESHOLD = 5

Key = TypeVar("Key", bound=Hashable)


def small(*counts: int) -> bool:
    """Say whether one of the counts is small."""
    return any(0 < count < THRESHOLD for count in counts)


def hidden(
    counts: Mapping[Key, int], total_of: Mapping[Key, Key] | None = None, *, also: Iterable[Key] = ()
) -> frozenset[Key]:
    """Return the keys whose counts may not be shown.

    ``counts``: every count, totals included. ``total_of``: the total that a count is a part of; a total may itself be a
    part. ``also``: keys to hide for a reason of the caller's, for example because the rest of their total is small.
    """
    upper = total_of or {}
    parts: defaultdict[Key, list[Key]] = defaultdict(list)
    for part, total in upper.items():
        parts[total].append(part)
    for siblings in parts.values():
        # The smallest cost least; the text of the key decides between equals, so that the same table is cut the same.
        siblings.sort(key=lambda key: (counts[key], str(key)))
    found = {key for key, count in counts.items() if small(count)} | set(also)
    waiting = set(parts)
    while waiting:
        total = waiting.pop()
        changed = _complete(counts, total, parts[total], found)
        found |= changed
        # What is newly hidden is a part of one total, and maybe the total of others.
        near = changed | {upper[key] for key in changed if key in upper}
        waiting |= near & parts.keys()
    return frozenset(found)


def _complete(counts: Mapping[Key, int], total: Key, parts: list[Key], found: set[Key]) -> set[Key]:
    """Return what must be hidden besides so that the parts of one total do not tell each other."""
    behind = [key for key in parts if key in found]
    if total in found:
        # The parts would add up to the total.
        return set() if behind else set(_first(parts, counts) or parts[:1])
    if not behind or (len(behind) > 1 and sum(counts[key] for key in behind) >= THRESHOLD):
        return set()
    shown = [key for key in parts if key not in found]
    return set(_first(shown, counts)) or {total}


def _first(keys: list[Key], counts: Mapping[Key, int]) -> list[Key]:
    """Return the first key that counts anybody; the keys come with the smallest first."""
    return [key for key in keys if counts[key]][:1]
