"""Speaks to a producer through folders: one file per referral out, files of replies in, whole registers in."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from adapters.base import ProducerAdapter, Secrets
from adapters.connections import Connection
from adapters.errors import ContractBroken
from adapters.files.checksum import check_sum
from adapters.files.errors import WrongFile
from adapters.files.folder import Entry, GivenFiles, Link, LocalFolder, Session, read
from adapters.files.formats import Format, compile_format
from adapters.files.register import FileRegister, Spool
from adapters.files.rows import read_rows
from adapters.files.seen import Seen
from adapters.files.sftp import SftpLink
from adapters.files.writing import write_row
from adapters.manifest import Bulk, Dataset, Manifest, Polling, Sending
from adapters.mapping import FieldTable
from adapters.models import (
    AlreadyTaken,
    FetchOutcome,
    NotFound,
    Page,
    PollOutcome,
    ReferralMessage,
    Register,
    RejectedRow,
    Reply,
    SendOutcome,
    Taken,
)
from adapters.reading import Unsayable, reply_of
from adapters.resilience import Call, Guard
from schemas.canonical import sha256
from schemas.text import _

_LONGEST_NAME = 255
_STILL_S = 2.0
_Read = tuple[tuple[Reply, ...], tuple[RejectedRow, ...]]


class FileAdapter(ProducerAdapter):
    """Folders on an SFTP server, or on this machine."""

    schemes = ("sftp", "file")

    @classmethod
    def check(cls, manifest: Manifest) -> None:
        """Refuse options of a file that do not go together."""
        _formats(manifest)

    @classmethod
    def connect(
        cls,
        manifest: Manifest,
        guard: Guard,
        connection: Connection,
        secret: Secrets,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> FileAdapter:
        """Make the adapter; refuse a host key that is none, and an SFTP server without a user."""
        parts = urlsplit(connection.address)
        if parts.scheme == "file":
            if parts.netloc:
                connection.source.refuse([manifest.name, "address"], _("se esperaba file:///carpeta"))
            return cls(manifest, guard, LocalFolder(Path(unquote(parts.path))))
        if manifest.auth["type"] != "password":
            manifest.source.refuse(["auth", "type"], _("un servidor SFTP pide type: password"))
        password = secret("auth", "secret")
        try:
            link = SftpLink(connection.address, connection.host_key, manifest.auth["username"], password)
        except ValueError:
            connection.source.refuse([manifest.name, "host_key"], _("no es una clave pública de SSH"))
        return cls(manifest, guard, link)

    @classmethod
    def of_files(cls, manifest: Manifest, paths: Iterable[Path]) -> FileAdapter:
        """Make an adapter that takes files a person names, whatever their name, for the registers of a manifest."""
        bulk = {name: replace(spec, request={**spec.request, "match": "*"}) for name, spec in manifest.bulk.items()}
        made = cls(replace(manifest, bulk=bulk), Guard(manifest), GivenFiles(paths))
        made.still_s = 0.0
        return made

    def __init__(self, manifest: Manifest, guard: Guard, link: Link) -> None:
        super().__init__(manifest, guard)
        self._link = link
        #: Seconds in which a file without a side file must not have changed to be taken for complete.
        self.still_s = _STILL_S
        self._formats = _formats(manifest)
        # What a file held the last time, or what was wrong with it: one that lies there unchanged is not fetched again.
        self._known: dict[tuple[str, tuple[Entry, Entry | None]], bytes | str] = {}

    async def close(self) -> None:
        """End the connection."""
        await self._link.close()

    def _encode(self, request: Mapping[str, Any], values: dict[str, Any]) -> bytes:
        specs = [spec for spec in (self.manifest.send, *self.manifest.further.values()) if spec is not None]
        spec = next((spec for spec in specs if spec.request is request), None)
        if spec is None:
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
        folder, final = spec.request["folder"], f"{message.key}.csv"
        part = f"{final}.part"
        async with self._link.session(call) as session:
            if await session.exists(folder, final):
                return AlreadyTaken("", call.provenance())
            await session.write(folder, part, content)
            call.sent = True
            if not await session.rename(folder, part, final):
                await session.remove(folder, part)
                return AlreadyTaken("", call.provenance())
        return Taken("", call.provenance())

    async def _poll(
        self, call: Call, *, spec: Polling, cursor: str | None, query: Mapping[str, Any], content: bytes
    ) -> PollOutcome:
        """Take the first file, by name, whose content was not taken before."""
        folder, format, most = spec.request["folder"], self._formats["poll"], self.manifest.limits.max_body
        seen = Seen(cursor)
        async with self._link.session(call) as session:
            entries = await session.entries(folder)
            waiting = [pair for pair in _complete(entries, spec.request, format) if not seen.passes(pair[0])]
            for place, (entry, side) in enumerate(waiting, start=1):
                raw = await read(session, folder, entry.name, most)
                if not seen.take(entry, sha256(raw)):
                    continue
                beside = b"" if side is None else await read(session, folder, side.name, most)
                call.took(raw)
                found = await asyncio.to_thread(_read, raw, beside, entry.name, format, spec.table, most)
                more = place < len(waiting)
                return Page(*found, seen.cursor(entries), more, call.provenance(), source=entry.name)
        return Page((), (), seen.cursor(entries), False, call.provenance())

    async def _bulk(self, call: Call, *, spec: Bulk, taken: Collection[bytes]) -> Register | NotFound:
        """Fetch the oldest file whose content was not taken; one that is still being written waits."""
        folder, format, most = spec.request["folder"], self._formats[f"bulk {spec.name}"], self.manifest.limits.max_body
        async with self._link.session(call) as session:
            waiting = _complete(await session.entries(folder), spec.request, format)
            self._known = {key: what for key, what in self._known.items() if key[0] != folder or key[1] in waiting}
            fresh = [pair for pair in waiting if (folder, pair) not in self._known]
            if fresh and format.checksum is None and self.still_s:
                await asyncio.sleep(self.still_s)
                later = await session.entries(folder)
                fresh = [pair for pair in fresh if pair[0] in later]
            for pair in (pair for pair in waiting if pair in fresh or (folder, pair) in self._known):
                known = self._known.get((folder, pair))
                if isinstance(known, str) or known in taken:
                    continue
                spool = Spool()
                try:
                    found = await _fetched(session, folder, pair, spool, format, most)
                except BaseException:
                    spool.close()
                    raise
                self._known[folder, pair] = found
                if isinstance(found, bytes) and found not in taken:
                    call.raw_sha256 = found
                    return FileRegister(pair[0].name, found, call.provenance(), spool, format, spec.table)
                spool.close()
        for pair in waiting:
            wrong = self._known.get((folder, pair))
            if isinstance(wrong, str):
                raise ContractBroken(wrong)
        return NotFound(call.provenance())


def _formats(manifest: Manifest) -> dict[str, Format]:
    """Compile the file options of every verb; refuse those that contradict each other."""
    found = {}
    places: list[tuple[tuple[str, ...], Mapping[str, Any]]] = []
    if manifest.poll is not None:
        places.append((("poll",), manifest.poll.request))
    places += [(("bulk", name), spec.request) for name, spec in manifest.bulk.items()]
    for place, request in places:
        try:
            found[" ".join(place)] = compile_format(request)
        except ValueError as error:
            manifest.source.refuse([*place, "request"], str(error))
    return found


def _complete(entries: Sequence[Entry], request: Mapping[str, Any], format: Format) -> list[tuple[Entry, Entry | None]]:
    """Return the files asked for, oldest first, each with the side file agreed; without it a file is not complete."""
    pattern, by_name = request.get("match", "*.csv"), {entry.name: entry for entry in entries}
    found = []
    for entry in entries:
        side = by_name.get(f"{entry.name}.{format.checksum}")
        if _wanted(entry.name, pattern) and (side is not None or format.checksum is None):
            found.append((entry, side))
    # The newest is taken last, since it replaces what came before; of one second's files 10 comes behind 9.
    return sorted(found, key=lambda pair: (pair[0].modified // 1_000_000_000, _natural(pair[0].name)))


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that orders names by the numbers in them."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"([0-9]+)", name)]


def _wanted(name: str, pattern: str) -> bool:
    unfinished = name.startswith(".") or name.endswith((".part", ".tmp", ".filepart", ".md5", ".sha256"))
    plain = name.isprintable() and len(name) <= _LONGEST_NAME
    return plain and not unfinished and fnmatchcase(name, pattern)


async def _fetched(
    session: Session, folder: str, pair: tuple[Entry, Entry | None], spool: Spool, format: Format, most: int
) -> bytes | str:
    """Bring a file here; return its SHA-256, or what is wrong with it."""
    entry, side = pair
    if entry.size > most:
        return f"the file is longer than {most} bytes"
    async with aclosing(session.blocks(folder, entry.name)) as blocks:
        async for block in blocks:
            await asyncio.to_thread(spool.add, block)
            if spool.size > most:
                return f"the file is longer than {most} bytes"
    digest = spool.finish()
    if side is not None and format.checksum is not None:
        beside = await read(session, folder, side.name, most)
        try:
            await asyncio.to_thread(check_sum, spool.file, beside, entry.name, format.checksum)
        except WrongFile as error:
            return str(error)
    return digest


def _read(raw: bytes, beside: bytes, name: str, format: Format, table: FieldTable, most: int) -> _Read:
    """Read a file of replies; what is wrong with it as a whole is the note of row 0, and the files behind it go on."""
    replies: list[Reply] = []
    rejects: list[RejectedRow] = []
    if len(raw) > most:
        return (), (RejectedRow(0, "", f"the file is longer than {most} bytes"),)
    try:
        if format.checksum is not None:
            check_sum(io.BytesIO(raw), beside, name, format.checksum)
        for batch in read_rows(raw, format, table):
            for row in batch:
                if isinstance(row, RejectedRow):
                    rejects.append(row)
                else:
                    replies.append(reply_of(row.facts, row.raw_codes))
    except WrongFile as error:
        return (), (RejectedRow(0, "", str(error)),)
    return tuple(replies), tuple(rejects)
