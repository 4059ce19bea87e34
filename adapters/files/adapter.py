"""Speaks to a producer through folders on its SFTP server: one file per referral out, files of replies in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, cast

import asyncssh
import httpx

from adapters.base import ProducerAdapter, Secrets
from adapters.connections import Connection
from adapters.files.csvfile import WrongFile, read_rows, write_row
from adapters.files.sftp import SftpLink
from adapters.manifest import Dataset, Manifest, Polling, Sending
from adapters.mapping import FieldTable
from adapters.models import (
    AlreadyTaken,
    FetchOutcome,
    Page,
    PollOutcome,
    ReferralMessage,
    RejectedRow,
    Reply,
    SendOutcome,
    Taken,
)
from adapters.reading import Unsayable, read_replies
from adapters.resilience import Call, Guard
from schemas.text import _

_OFF_LOOP_BYTES = 32 * 1024
_Read = tuple[tuple[Reply, ...], tuple[RejectedRow, ...]]


class FileAdapter(ProducerAdapter):
    """Folders on an SFTP server."""

    schemes = ("sftp", "file")

    @classmethod
    def connect(
        cls,
        manifest: Manifest,
        guard: Guard,
        connection: Connection,
        secret: Secrets,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> FileAdapter:
        """Make the adapter; refuse a host key that is none."""
        password = secret("auth", "secret")
        try:
            link = SftpLink(connection.address, connection.host_key, manifest.auth["username"], password)
        except ValueError:
            connection.source.refuse([manifest.name, "host_key"], _("no es una clave pública de SSH"))
        return cls(manifest, guard, link)

    def __init__(self, manifest: Manifest, guard: Guard, link: SftpLink) -> None:
        super().__init__(manifest, guard)
        self._link = link

    async def close(self) -> None:
        """End the connection."""
        await self._link.close()

    def _encode(self, request: Mapping[str, Any], values: dict[str, Any]) -> bytes:
        spec = self.manifest.send
        if spec is None or request is not spec.request:
            return b""
        try:
            return write_row(spec.body.names, values, request)
        except UnicodeEncodeError:
            raise Unsayable(f"a character that {request['encoding']} does not have") from None

    async def _fetch(
        self, call: Call, *, spec: Dataset, value: str, query: Mapping[str, Any], content: bytes
    ) -> FetchOutcome:
        raise TypeError("no dataset is fetched from files")

    async def _send(
        self, call: Call, *, spec: Sending, message: ReferralMessage, query: Mapping[str, Any], content: bytes
    ) -> SendOutcome:
        """Upload under another name, then rename: the recipient never sees half a file, nor the same one twice."""
        final = f"{spec.request['folder']}/{message.referral_id}.csv"
        part = f"{final}.part"
        async with self._link.session(call) as sftp:
            if await sftp.exists(final):
                return AlreadyTaken("", call.provenance())
            async with sftp.open(part, "wb") as file:
                await file.write(content)
            call.sent = True
            try:
                await sftp.rename(part, final)
            except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
                # SFTP version 3 says no more than "failure" of a name already taken.
                if not await sftp.exists(final):
                    raise
                await sftp.remove(part)
                return AlreadyTaken("", call.provenance())
        return Taken("", call.provenance())

    async def _poll(
        self, call: Call, *, spec: Polling, cursor: str | None, query: Mapping[str, Any], content: bytes
    ) -> PollOutcome:
        """Take the first file after the cursor, which is the name of the last one taken."""
        folder, most = spec.request["folder"], self.manifest.limits.max_body
        pattern, after = spec.request.get("match", "*.csv"), cursor or ""
        async with self._link.session(call) as sftp:
            names = [str(name) for name in await sftp.listdir(folder)]
            waiting = sorted(name for name in names if name > after and _wanted(name, pattern))
            if not waiting:
                return Page((), (), after, False, call.provenance())
            async with sftp.open(f"{folder}/{waiting[0]}", "rb") as file:
                raw = cast(bytes, await file.read(most + 1))
        call.took(raw)
        if len(raw) > most:
            # The file stays where it is, and the note of it is the intake's; the files behind it go on.
            read: _Read = (), (RejectedRow(0, "", f"the file is longer than {most} bytes"),)
        elif len(raw) > _OFF_LOOP_BYTES:
            read = await asyncio.to_thread(_read, raw, spec.request, spec.table)
        else:
            read = _read(raw, spec.request, spec.table)
        return Page(*read, waiting[0], len(waiting) > 1, call.provenance())


def _wanted(name: str, pattern: str) -> bool:
    return not name.startswith(".") and fnmatchcase(name, pattern)


def _read(raw: bytes, request: Mapping[str, Any], table: FieldTable) -> _Read:
    rejects: list[RejectedRow] = []
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        for row in read_rows(raw, request):
            if isinstance(row, RejectedRow):
                rejects.append(row)
            else:
                rows.append(row)
    except WrongFile as error:
        return (), (RejectedRow(0, "", str(error)),)
    replies, more = read_replies(table, rows)
    return replies, tuple(sorted((*rejects, *more), key=lambda item: item.row))
