"""Keeps a whole register on disk between its transfer and its reading, so that memory does not grow with it.

The file has no name, belongs to its owner alone (mode 0600) and ends with the process, whatever happens.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import IO, Any

from adapters.manifest import Bulk
from adapters.mapping import FieldTable
from adapters.masking import shape
from adapters.models import NotFound, Provenance, Register, RejectedRow, Row
from adapters.resilience import Call

_BATCH_BYTES = 512 * 1024
# The standard library's JSON keeps whole numbers of any length; keys are sorted so that order does not change the hash.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


class Spool:
    """A register on its way in: items as the producer gave them, one JSON text a line, hashed as they come.

    Its methods write to disk: call them off the event loop. Whoever does not get to :meth:`outcome` calls
    :meth:`discard`.
    """

    def __init__(self, spec: Bulk) -> None:
        self._spec = spec
        self._file: IO[bytes] = tempfile.TemporaryFile("w+b", prefix="siis-register-")  # noqa: SIM115
        self._digest = hashlib.sha256()
        self._count = 0

    def add(self, items: Iterable[Any]) -> None:
        """Keep more items; whatever JSON can say."""
        for item in items:
            line = _encode(item).encode() + b"\n"
            self._digest.update(line)
            self._file.write(line)
            self._count += 1

    def outcome(self, call: Call, taken: Collection[bytes]) -> Register | NotFound:
        """End the register. None without items, or with a content already taken, is nothing found.

        An empty answer is a producer's commonest fault: it never stands for "everybody has left the register".
        """
        sha256 = self._digest.digest()
        if self._count == 0 or sha256 in taken:
            self.discard()
            return NotFound(call.provenance())
        self._file.flush()
        # What comes without raw bytes, as rows of a database, is known by its content.
        call.raw_sha256 = call.raw_sha256 or sha256
        return _Spooled(self._spec, self._file, sha256, call.provenance())

    def discard(self) -> None:
        """Let go of the file."""
        self._file.close()


class _Spooled:
    """A register that is all here (:class:`~adapters.models.Register`)."""

    def __init__(self, spec: Bulk, file: IO[bytes], sha256: bytes, provenance: Provenance) -> None:
        self.name, self.sha256, self.provenance = spec.name, sha256, provenance
        self._table, self._file = spec.table, file

    async def rows(self, after: int = 0) -> AsyncIterator[Sequence[Row | RejectedRow]]:
        """Give the rows behind number ``after``, in batches and in order."""
        offset = number = 0
        while True:
            lines, offset = await asyncio.to_thread(self._lines, offset)
            if not lines:
                return
            wanted = lines[max(after - number, 0) :]
            first = number + len(lines) - len(wanted) + 1
            number += len(lines)
            if wanted:
                yield await asyncio.to_thread(self._read, first, wanted)

    async def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _lines(self, offset: int) -> tuple[list[bytes], int]:
        self._file.seek(offset)
        lines = self._file.readlines(_BATCH_BYTES)
        return lines, self._file.tell()

    def _read(self, first: int, lines: list[bytes]) -> list[Row | RejectedRow]:
        return [read_item(self._table, number, json.loads(line)) for number, line in enumerate(lines, start=first)]


def read_item(table: FieldTable, number: int, item: Any) -> Row | RejectedRow:
    """Read one item of a register; one with anything wrong is rejected for its first problem."""
    mapped = table.read(item)
    if not mapped.problems:
        return Row(number, mapped.values, mapped.raw_codes)
    name, what = mapped.problems[0]
    members = next((field.members for field in table.fields if field.name == name), None)
    # A value further down is not looked for again: its field and rule say enough.
    names = () if members is None or not isinstance(item, Mapping) else members.names
    values = [item[name] for name in names if item.get(name) is not None]
    masked = shape(" ".join(value if isinstance(value, str) else _encode(value) for value in values))
    return RejectedRow(number, " ".join(names) or name, what, masked)
