"""Institutions that publish whole registers as files in an SFTP folder, again when told to, spoilt when told to."""

from __future__ import annotations

import csv
import io
import socket
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapters.simulator.folder import SftpFolder
from adapters.simulator.register import Register
from adapters.simulator.settings import Settings
from adapters.simulator.web import Reply, Request, json_reply, not_found

#: The day ZIP members bear, so that the same register gives the same bytes.
_STAMP = (2026, 11, 2, 3, 0, 0)


class Publisher(Register):
    """An institution whose register is fetched as files."""

    scheme = "sftp"
    folders: tuple[str, ...] = ("publicado",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.shared = SftpFolder(self, *self.folders)
        self.published = 0
        self._publish()

    def register(self, *, spoilt: bool) -> Mapping[str, bytes]:
        """Return the files of the register by path under the root; ``spoilt``: as on the day something went wrong."""
        raise NotImplementedError

    async def start(self, sock: socket.socket) -> dict[str, str]:
        """Listen for SSH, and return the host key."""
        return await self.shared.start(sock)

    async def stop(self) -> None:
        """Stop listening; without a state file, remove the folders."""
        self.shared.hang_up()
        self.shared.close()

    async def control(self, request: Request) -> Reply:
        """Publish again: ``POST /_control/publish``, spoilt if the switch ``garbage`` is on."""
        if (request.method, request.path) != ("POST", "/_control/publish"):
            return not_found()
        return json_reply(200, {"files": self._publish()})

    def ledger(self) -> dict[str, Any]:
        """Return how often the register was published."""
        return {"published": self.published}

    def _publish(self) -> list[str]:
        files = self.register(spoilt=self.switches.take("garbage"))
        for name, content in files.items():
            final = self.shared.root / name
            part = final.with_name(f".{final.name}.parcial")
            part.write_bytes(content)
            part.rename(final)
        self.published += 1
        return sorted(files)


def archive_of(name: str, content: bytes) -> bytes:
    """Return a ZIP file with one member."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(zipfile.ZipInfo(name, _STAMP), content, zipfile.ZIP_DEFLATED)
    return held.getvalue()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str) -> str:
    """Write a header and rows as CSV (RFC 4180) with this delimiter."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def in_latin_1(text: str) -> bytes:
    """Encode a text in ISO-8859-1; a Guaraní letter it does not have loses its tilde, as in registers of the state."""
    letters = (letter if ord(letter) < 256 else unicodedata.normalize("NFD", letter)[0] for letter in text)
    return "".join(letters).encode("iso-8859-1", "ignore")
