"""MINNA (Abrazo): an SFTP folder where referrals arrive as CSV and counter-referrals lie as CSV."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import socket
import tempfile
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncssh

from adapters.simulator.behaviour import refusal
from adapters.simulator.minna_files import UnreadableFile, read_referrals, write_answers
from adapters.simulator.recipient import Recipient
from adapters.simulator.settings import USER, Settings
from adapters.simulator.web import cut

_ASUNCION = ZoneInfo("America/Asuncion")
_LOOK_EVERY_S, _ROWS_PER_FILE = 0.05, 1000
_NAME = re.compile(r"contrarreferencias_[0-9]{8}_[0-9]{6}_([0-9]{4,})\.csv\Z")
_GARBAGE = (
    b"<!DOCTYPE html><html><body><h1>Error 500</h1></body></html>",
    b"id_mensaje;id_referencia;even",
    b"\x00\xff\xfe\x15\x80 no es un archivo \xc3\x28",
)


class Minna(Recipient):
    """The file exchange of the Ministry of Childhood and Adolescence."""

    name = "minna"
    scheme = "sftp"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._temporary = None if settings.state else tempfile.TemporaryDirectory(prefix="minna-")
        folder = Path(self._temporary.name if self._temporary else f"{settings.state}.d")
        self._key_file, self.root = folder / "host-key", folder / "files"
        self.inbox, self.outbox, self.worked = (self.root / name for name in ("entrada", "salida", "procesado"))
        for folder in (self.inbox, self.outbox, self.worked):
            folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(match[1]) for file in self.outbox.iterdir() if (match := _NAME.match(file.name))]
        self._files = max(numbers, default=0)
        self._garbage = 0
        self._clerk: asyncio.Task[None] | None = None
        self._acceptor: asyncssh.SSHAcceptor | None = None

    async def start(self, sock: socket.socket) -> dict[str, str]:
        """Listen for SSH, put the clerk to work, and return the host key."""
        key = self._host_key()
        sock.listen()
        sock.setblocking(False)
        self._acceptor = await asyncssh.listen(
            sock=sock,
            server_host_keys=[key],
            server_factory=lambda: _Doorman(self.settings.password),
            sftp_factory=lambda channel: _Folder(channel, self),
            allow_scp=False,
        )
        self._clerk = asyncio.create_task(self._work())
        return {"host_key": key.export_public_key().decode().strip()}

    async def stop(self) -> None:
        """Stop listening and working; without a state file, remove the folders."""
        if self._acceptor:
            self._acceptor.close()
        if self._clerk:
            self._clerk.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._clerk
        await super().stop()
        if self._temporary:
            self._temporary.cleanup()

    def _host_key(self) -> asyncssh.SSHKey:
        if not self._key_file.exists():
            key = asyncssh.generate_private_key("ssh-ed25519")
            self._key_file.touch(mode=0o600)
            self._key_file.write_bytes(key.export_private_key())
        return asyncssh.read_private_key(str(self._key_file))

    async def _work(self) -> None:
        """Look into the inbox and write what is due, as a clerk with a scheduled task does."""
        while True:
            for file in sorted(self.inbox.glob("*.csv")):
                # Whoever uploaded a file may take it away again before it is read.
                with contextlib.suppress(FileNotFoundError):
                    self._take_file(file)
            self._write_due()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _take_file(self, file: Path) -> None:
        """Take a file's referrals, then move it away; killed in between, the next start finds them known already."""
        try:
            referrals = read_referrals(file.read_bytes())
        except UnreadableFile:
            file.rename(file.with_suffix(".ilegible"))
            return
        for referral_id, usable in referrals:
            self.take(referral_id, None if usable else refusal(self.name, referral_id, "FALTAN_DOCUMENTOS"))
        file.rename(self.worked / file.name)

    def _write_due(self) -> None:
        answers = self.book.due(_ROWS_PER_FILE)
        if not answers:
            return
        if self.switches.take("garbage"):
            self._put(_GARBAGE[self._garbage % len(_GARBAGE)])
            self._garbage += 1
        content = write_answers(answers, self.book.given(), self.settings.seed)
        for _ in range(2 if self.switches.take("duplicate") else 1):
            self._put(content)
        # Noted after the file is there: killed in between, the rows are written again, and none is lost.
        self.book.close_answers([answer.number for answer in answers], "given")

    def _put(self, content: bytes) -> None:
        self._files += 1
        name = f"contrarreferencias_{datetime.now(_ASUNCION):%Y%m%d_%H%M%S}_{self._files:04d}.csv"
        part = self.outbox / f".{name}.parcial"
        part.write_bytes(content)
        part.rename(self.outbox / name)


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

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], minna: Minna) -> None:
        super().__init__(channel, chroot=bytes(minna.root))
        self._minna = minna

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
        minna, switches = self._minna, self._minna.switches
        minna.requests += 1
        if switches["latency_ms"]:
            await asyncio.sleep(switches["latency_ms"] / 1000)
        if switches.take("fail_503"):
            raise asyncssh.SFTPPermissionDenied("Permiso denegado")
        if switches.take("reset"):
            await self._drop()

    async def _after_effect(self) -> None:
        if self._minna.switches.take("after_effect_reset"):
            await self._drop()

    async def _drop(self) -> None:
        await cut(self.connection)
        raise asyncssh.SFTPConnectionLost("cut by a switch")


def build(settings: Settings) -> Minna:
    """Return the institution, ready to serve."""
    return Minna(settings)
