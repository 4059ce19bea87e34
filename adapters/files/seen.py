"""Decides which files of a folder were taken before, from the cursor of the last poll: by what they hold, not by name.

The cursor remembers the files that lie in the folder: a short digest of each one's name, size and time, by which it is
passed over unread, and one of its content, by which a copy under another name is.
"""

from __future__ import annotations

from collections.abc import Sequence

from adapters.files.folder import Entry
from schemas.canonical import sha256

#: Files remembered once nothing waits any more; of older ones it is enough to know how old they are.
MOST = 1000
_DIGITS = 12


class Seen:
    """The files taken so far.

    The cursor is the time up to which files are not looked at any more, in nanoseconds of Unix time, and two digests
    of 48 bits for each file behind it.
    """

    def __init__(self, cursor: str | None) -> None:
        """Read a cursor; one that is none counts as the beginning: a reply that comes again has no effect."""
        since, *pairs = (cursor or "0").split(" ")
        usable = since.isdigit() and all(len(pair) == 2 * _DIGITS for pair in pairs)
        self._since = int(since) if usable else 0
        self._taken = {pair[:_DIGITS]: pair[_DIGITS:] for pair in pairs} if usable else {}
        self._contents = set(self._taken.values())

    def passes(self, entry: Entry) -> bool:
        """Say whether a file needs no look: taken as it lies there, or older than what is remembered."""
        return _mark(entry) in self._taken or 0 < entry.modified <= self._since

    def take(self, entry: Entry, digest: bytes) -> bool:
        """Remember a file by the SHA-256 of its content; say whether that is new."""
        content = digest.hex()[:_DIGITS]
        new = content not in self._contents
        self._taken[_mark(entry)] = content
        self._contents.add(content)
        return new

    def cursor(self, entries: Sequence[Entry]) -> str:
        """Write the cursor; ``entries`` is what lies in the folder, and the rest is forgotten."""
        here = [(entry, mark) for entry in entries if (mark := _mark(entry)) in self._taken]
        waiting = any(not self.passes(entry) for entry in entries)
        since = self._since
        if len(here) > MOST and not waiting:
            here.sort(key=lambda item: item[0].modified)
            since = max(since, here[-MOST - 1][0].modified)
            here = here[-MOST:]
        return " ".join([str(since), *(mark + self._taken[mark] for mark in sorted(mark for _entry, mark in here))])


def _mark(entry: Entry) -> str:
    return sha256(f"{entry.name}\0{entry.size}\0{entry.modified}".encode("utf-8", "surrogateescape")).hex()[:_DIGITS]
