"""MINNA (Abrazo): an SFTP folder where referrals arrive as CSV and counter-referrals lie as CSV."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from adapters.simulator.behaviour import refusal
from adapters.simulator.folder import SftpFolder
from adapters.simulator.minna_files import UnreadableFile, read_notices, read_referrals, write_answers
from adapters.simulator.recipient import Recipient
from adapters.simulator.settings import Settings

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
        self.shared = SftpFolder(self, "entrada", "salida", "procesado")
        self.root = self.shared.root
        self.inbox, self.outbox, self.worked = (self.root / name for name in ("entrada", "salida", "procesado"))
        numbers = [int(match[1]) for file in self.outbox.iterdir() if (match := _NAME.match(file.name))]
        self._files = max(numbers, default=0)
        self._garbage = 0
        self._clerk: asyncio.Task[None] | None = None

    async def start(self, sock: socket.socket) -> dict[str, str]:
        """Listen for SSH, put the clerk to work, and return the host key."""
        added = await self.shared.start(sock)
        self._clerk = asyncio.create_task(self._work())
        return added

    async def stop(self) -> None:
        """Stop listening and working; without a state file, remove the folders."""
        self.shared.hang_up()
        if self._clerk:
            self._clerk.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._clerk
        await super().stop()
        self.shared.close()

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
        content = file.read_bytes()
        notices = read_notices(content)
        if notices is not None:
            for notice_id, referral_id, kind, receipt in notices:
                self.note(notice_id, referral_id, kind)
                self.keep(receipt)
            file.rename(self.worked / file.name)
            return
        try:
            referrals = read_referrals(content)
        except UnreadableFile:
            file.rename(file.with_suffix(".ilegible"))
            return
        for referral_id, usable, receipt in referrals:
            self.take(referral_id, None if usable else refusal(self.name, referral_id, "FALTAN_DOCUMENTOS"))
            self.keep(receipt)
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


def build(settings: Settings) -> Minna:
    """Return the institution, ready to serve."""
    return Minna(settings)
