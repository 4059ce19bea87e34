"""Keeps a whole register on this machine while it is read: fetched once, summed up, and gone with its process."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from adapters.errors import ContractBroken
from adapters.files.errors import WrongFile
from adapters.files.formats import Format
from adapters.files.rows import read_rows
from adapters.mapping import FieldTable
from adapters.models import Provenance, RejectedRow, Row


class Spool:
    """An unnamed file of mode 0600 with the content of a register."""

    def __init__(self) -> None:
        # Opened by its number where that is possible, it needs no name, and a killed process leaves nothing behind.
        if sys.platform == "linux":
            self.file = cast(BufferedIOBase, tempfile.TemporaryFile())  # noqa: SIM115 - closed by close()
            self.path = Path(f"/dev/fd/{self.file.fileno()}")
        else:
            named = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by close()
            self.file, self.path = cast(BufferedIOBase, named), Path(named.name)
        self._sum = hashlib.sha256()
        self.size = 0

    def add(self, block: bytes) -> None:
        """Add to the content."""
        self.file.write(block)
        self._sum.update(block)
        self.size += len(block)

    def finish(self) -> bytes:
        """Return the SHA-256 of all that was added, ready to be read."""
        self.file.flush()
        self.file.seek(0)
        return self._sum.digest()

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()


class FileRegister:
    """A register that is one file (:class:`~adapters.models.Register`)."""

    def __init__(
        self, name: str, sha256: bytes, provenance: Provenance, spool: Spool, format: Format, table: FieldTable
    ) -> None:
        self.name, self.sha256, self.provenance = name, sha256, provenance
        self._spool, self._format, self._table = spool, format, table

    async def rows(self, after: int = 0) -> AsyncIterator[Sequence[Row | RejectedRow]]:
        """Give the rows behind number ``after``, read in a thread; ContractBroken where it is not the file agreed."""
        batches = read_rows(self._spool.path, self._format, self._table, after)
        while (batch := await asyncio.to_thread(_next, batches)) is not None:
            yield batch

    async def close(self) -> None:
        """Remove what it was kept in."""
        self._spool.close()


def _next(batches: Iterator[list[Row | RejectedRow]]) -> list[Row | RejectedRow] | None:
    try:
        return next(batches, None)
    except WrongFile as error:
        raise ContractBroken(str(error)) from None
