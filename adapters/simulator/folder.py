"""Folders on an SFTP server of our own, for institutions that exchange files; misbehaves as the switches say."""

from __future__ import annotations

import asyncio
import hmac
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh

from adapters.simulator.settings import USER, Office
from adapters.simulator.web import cut


class SftpFolder:
    """What an institution shows over SFTP: below ``root``, with the folders named.

    It lies beside the state file; without one it is temporary.
    """

    def __init__(self, office: Office, *folders: str) -> None:
        self._office, state = office, office.settings.state
        self._temporary = None if state else tempfile.TemporaryDirectory(prefix=f"{office.name}-")
        place = Path(self._temporary.name if self._temporary else f"{state}.d")
        self._key_file, self.root = place / "host-key", place / "files"
        for name in folders:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self._acceptor: asyncssh.SSHAcceptor | None = None

    async def start(self, sock: socket.socket) -> dict[str, str]:
        """Listen for SSH, and return the host key for the ready line."""
        key = self._host_key()
        sock.listen()
        sock.setblocking(False)
        self._acceptor = await asyncssh.listen(
            sock=sock,
            server_host_keys=[key],
            server_factory=lambda: _Doorman(self._office.settings.password),
            sftp_factory=lambda channel: _Folder(channel, self.root, self._office),
            allow_scp=False,
        )
        return {"host_key": key.export_public_key().decode().strip()}

    def hang_up(self) -> None:
        """Take no more connections."""
        if self._acceptor:
            self._acceptor.close()

    def close(self) -> None:
        """Remove the folders where they are temporary."""
        if self._temporary:
            self._temporary.cleanup()

    def _host_key(self) -> asyncssh.SSHKey:
        if not self._key_file.exists():
            key = asyncssh.generate_private_key("ssh-ed25519")
            self._key_file.touch(mode=0o600)
            self._key_file.write_bytes(key.export_private_key())
        return asyncssh.read_private_key(str(self._key_file))


class _Doorman(asyncssh.SSHServer):
    """Lets in the user ``siis`` with the password."""

    def __init__(self, password: str) -> None:
        self._password = password

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return username == USER and hmac.compare_digest(password.encode(), self._password.encode())


class _Folder(asyncssh.SFTPServer):
    """The folder one session sees; misbehaves on opening, listing and renaming."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], root: Path, office: Office) -> None:
        super().__init__(channel, chroot=bytes(root))
        self._office = office

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        await self._misbehave()
        return super().open(path, pflags, attrs)

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        await self._misbehave()
        async for entry in super().scandir(path):
            yield entry

    async def rename(self, oldpath: bytes, newpath: bytes) -> None:
        await self._misbehave()
        super().rename(oldpath, newpath)
        await self._after_effect()

    async def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        await self._misbehave()
        super().posix_rename(oldpath, newpath)
        await self._after_effect()

    async def _misbehave(self) -> None:
        office, switches = self._office, self._office.switches
        office.requests += 1
        if switches["latency_ms"]:
            await asyncio.sleep(switches["latency_ms"] / 1000)
        if switches.take("fail_503"):
            raise asyncssh.SFTPPermissionDenied("Permiso denegado")
        if switches.take("reset"):
            await self._drop()

    async def _after_effect(self) -> None:
        if self._office.switches.take("after_effect_reset"):
            await self._drop()

    async def _drop(self) -> None:
        await cut(self.connection)
        raise asyncssh.SFTPConnectionLost("cut by a switch")
