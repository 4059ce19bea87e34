"""A producer that is a folder: one of this machine, or on an SFTP server that does as a trial says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from adapters.conformance.server import Handler, free_port, listening, reset
from adapters.conformance.trials import Place
from adapters.connections import Connection

#: What an SFTP server may do, beside serving.
HOW = ("serve", "refuse", "other-key", "hang", "cut", "full", "cut-at-rename", "noise", "silence", "reset")


class Folder:
    """Folders with the files given; ``how`` is one of :data:`HOW`, or ``local`` for a folder of this machine."""

    def __init__(self, files: Mapping[str, Mapping[str, bytes]], how: str = "local") -> None:
        self._files, self._how = files, how
        #: Set where what lies there afterwards is looked at.
        self.left: Callable[[Path], str | None] = lambda _root: None
        self._complaint: str | None = None

    def complaint(self) -> str | None:
        """Say what was wrong with what lay there afterwards."""
        return self._complaint

    @asynccontextmanager
    async def opened(self, place: Place) -> AsyncIterator[Connection]:
        """Lay the files out and let in."""
        for folder, files in self._files.items():
            path = place.folder / folder.lstrip("/")
            path.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (path / name).write_bytes(content)
        if self._how == "local":
            yield place.at(f"file://{place.folder}")
        elif self._how in ("noise", "silence", "reset"):
            async with listening(_no_ssh(self._how)) as port:
                yield place.at(f"sftp://127.0.0.1:{port}", _public(_key()))
        else:
            async with self._sftp(place) as connection:
                yield connection
        self._complaint = self.left(place.folder)

    @asynccontextmanager
    async def _sftp(self, place: Place) -> AsyncIterator[Connection]:
        key, how, ended = _key(), self._how, asyncio.Event()
        auth = place.manifest.auth
        password = (place.secrets / auth["secret"]).read_text(encoding="utf-8")

        class Server(asyncssh.SSHServer):
            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, given: str) -> bool:
                return how != "refuse" and (username, given) == (auth["username"], password)

        def files(channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
            return _Files(channel, place.folder, how, ended)

        server = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Server, server_host_keys=[key], sftp_factory=files, config=None
        )
        try:
            shown = _public(_key() if how == "other-key" else key)
            yield place.at(f"sftp://127.0.0.1:{server.get_port()}", shown)
        finally:
            ended.set()
            server.close()
            await server.wait_closed()


class _Files(asyncssh.SFTPServer):
    """Serves a folder as the trial says."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], root: Path, how: str, ended: asyncio.Event) -> None:
        super().__init__(channel, chroot=str(root).encode())
        self._how, self._ended = how, ended

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        """Open a file, or do what stands in its place."""
        if self._how == "hang":
            await self._ended.wait()
        return super().open(path, pflags, attrs)

    async def read(self, file_obj: Any, offset: int, size: int) -> bytes:
        """Read a part of a file, or end the connection."""
        self._cut("cut")
        return super().read(file_obj, offset, size)  # type: ignore[return-value]

    async def write(self, file_obj: Any, offset: int, data: bytes) -> int:
        """Write a part of a file, or end the connection, or have no room."""
        self._cut("cut")
        if self._how == "full":
            raise asyncssh.SFTPFailure("no space left")
        return super().write(file_obj, offset, data)  # type: ignore[return-value]

    async def rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Rename a file, and end the connection where nobody can tell whether it was done."""
        super().rename(oldpath, newpath)
        self._cut("cut-at-rename")

    def _cut(self, how: str) -> None:
        if self._how == how:
            self.connection.abort()


class NoFolder:
    """An SFTP server that is not there."""

    def complaint(self) -> str | None:
        """Nobody was asked."""
        return None

    @asynccontextmanager
    async def opened(self, place: Place) -> AsyncIterator[Connection]:
        """Give an address."""
        yield place.at(f"sftp://127.0.0.1:{free_port()}", _public(_key()))


def _no_ssh(how: str) -> Handler:
    """Speak no SSH: noise, nothing at all, or a reset."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if how == "noise":
            writer.write(b"\x00\xff\xfe\x15\r\n\r\n")
        elif how == "reset":
            reset(writer)
        else:
            await reader.read(-1)

    return handle


def _key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


def _public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()
