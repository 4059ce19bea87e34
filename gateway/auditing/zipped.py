"""Writes a ZIP while it is being sent: nothing of it is kept, and one that is cut off has no end, so it never opens."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from datetime import UTC, datetime
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

_MODE = 0o600 << 16


class _Pipe(io.RawIOBase):
    """Takes what a ZIP writes, for whoever sends it on; it cannot be rewound, so sizes follow each member."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._waiting += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken


async def zipped(members: Iterable[tuple[str, AsyncIterable[bytes]]], at: datetime) -> AsyncGenerator[bytes, None]:
    """Yield a ZIP of the members, each written when it is its turn."""
    pipe, stamp = _Pipe(), at.astimezone(UTC).timetuple()[:6]
    with ZipFile(pipe, "w") as archive:
        for name, chunks in members:
            info = ZipInfo(name, stamp)
            info.compress_type, info.external_attr = ZIP_DEFLATED, _MODE
            with archive.open(info, "w", force_zip64=True) as member:
                async for chunk in chunks:
                    await asyncio.to_thread(member.write, chunk)
                    if taken := pipe.take():
                        yield taken
    yield pipe.take()
