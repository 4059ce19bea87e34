"""Decides what is asked of a folder, wherever it is, and asks it of one of this machine; an SFTP server has its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from adapters.errors import CallFailed
from adapters.resilience import Call

#: Bytes of a file read at once.
BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A regular file as its folder lists it; ``modified`` in nanoseconds of Unix time, as fine as the system tells."""

    name: str
    size: int
    modified: int


class Session(Protocol):
    """What one call may do in the folders of a system; failures are those of its transport."""

    async def entries(self, folder: str) -> list[Entry]:
        """Return the regular files of a folder, by name."""
        ...

    def blocks(self, folder: str, name: str) -> AsyncGenerator[bytes, None]:
        """Give the content of a file in blocks."""
        ...

    async def exists(self, folder: str, name: str) -> bool:
        """Say whether a file is there."""
        ...

    async def write(self, folder: str, name: str, content: bytes) -> None:
        """Write a file, over one of this name."""
        ...

    async def rename(self, folder: str, name: str, new: str) -> bool:
        """Rename a file; say whether it was done, which it is not where the name is taken."""
        ...

    async def remove(self, folder: str, name: str) -> None:
        """Remove a file."""
        ...


class Link(Protocol):
    """Where the folders are."""

    def session(self, call: Call) -> AbstractAsyncContextManager[Session]:
        """Lend a session for a call; whatever goes wrong in it becomes CallFailed."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


async def read(session: Session, folder: str, name: str, most: int) -> bytes:
    """Return a file, or its first ``most`` bytes and some."""
    content = bytearray()
    async with aclosing(session.blocks(folder, name)) as blocks:
        async for block in blocks:
            content += block
            if len(content) > most:
                break
    return bytes(content)


class LocalFolder:
    """Folders below one of this machine; whose permissions let us in is the deployment's affair."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    @asynccontextmanager
    async def session(self, call: Call) -> AsyncIterator[Session]:
        """Lend the folder; the system's errors become CallFailed."""
        try:
            yield _Local(self._root)
        except OSError as error:
            raise CallFailed(f"folder: {type(error).__name__}") from None

    async def close(self) -> None:
        """There is nothing to end."""


class GivenFiles:
    """Files that a person names, as if they lay in the folder that is asked for; with their side files."""

    def __init__(self, paths: Iterable[Path]) -> None:
        named = [path.resolve() for path in paths]
        beside = [path.with_name(f"{path.name}.{kind}") for path in named for kind in ("md5", "sha256")]
        self._files = {path.name: path for path in (*beside, *named)}

    @asynccontextmanager
    async def session(self, call: Call) -> AsyncIterator[Session]:
        """Lend the files; the system's errors become CallFailed."""
        try:
            yield _Given(self._files)
        except OSError as error:
            raise CallFailed(f"file: {type(error).__name__}") from None

    async def close(self) -> None:
        """There is nothing to end."""


class _Local:
    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, folder: str, name: str = "") -> Path:
        path = (self._root / folder.lstrip("/")).resolve()
        if not path.is_relative_to(self._root):
            raise PermissionError("a folder outside the one connected")
        return path / name

    async def entries(self, folder: str) -> list[Entry]:
        return await asyncio.to_thread(_scan, self._path(folder))

    async def blocks(self, folder: str, name: str) -> AsyncGenerator[bytes, None]:
        async with aclosing(_blocks(self._path(folder, name))) as blocks:
            async for block in blocks:
                yield block

    async def exists(self, folder: str, name: str) -> bool:
        return self._path(folder, name).exists()

    async def write(self, folder: str, name: str, content: bytes) -> None:
        await asyncio.to_thread(_write, self._path(folder, name), content)

    async def rename(self, folder: str, name: str, new: str) -> bool:
        if await self.exists(folder, new):
            return False
        self._path(folder, name).rename(self._path(folder, new))
        return True

    async def remove(self, folder: str, name: str) -> None:
        self._path(folder, name).unlink()


class _Given(_Local):
    def __init__(self, files: dict[str, Path]) -> None:
        super().__init__(Path("/"))
        self._files = files

    def _path(self, folder: str, name: str = "") -> Path:
        return self._files[name]

    async def entries(self, folder: str) -> list[Entry]:
        return [entry for path in self._files.values() if path.exists() for entry in [_entry(path.name, path.stat())]]


def _scan(folder: Path) -> list[Entry]:
    with os.scandir(folder) as found:
        return sorted(_entry(item.name, item.stat()) for item in found if item.is_file(follow_symlinks=False))


def _entry(name: str, found: os.stat_result) -> Entry:
    return Entry(name, found.st_size, found.st_mtime_ns)


async def _blocks(path: Path) -> AsyncGenerator[bytes, None]:
    file: BinaryIO = await asyncio.to_thread(path.open, "rb")
    with file:
        while block := await asyncio.to_thread(file.read, BLOCK):
            yield block


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
