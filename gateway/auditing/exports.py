"""Makes exports of the log: a file of entries, its proof while it is written, and at the end the export's own entry.

An export that was not put on record, or of which that cannot be proven, ends without its last line: nobody can take it
for whole.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from audit.errors import SubjectErased
from audit.export import Proven, accepted_heads, last_line, proven, record_line, wait_for_proof, write_proof_head
from audit.models import LoggedEntry, Receipt
from audit.proofs import SignedHead, logs
from audit.verify import parse_policy
from consent.models import Caller
from gateway import errors, evidence
from gateway.auditing.forms import Form
from gateway.auditing.service import Asked, Auditing, Reader

POLICY_NAME = "policy.txt"
PROOF_SUFFIX = ".proof"
# Without witnesses a checkpoint comes within seconds; they are asked every minute (SIIS_WITNESS_INTERVAL_S).
_PATIENCE_S, _WITNESSES_S = 10.0, 15.0
_AT_ONCE = 2
_CHUNK = 1 << 16

#: Numbers what waits, where no process does it all the time.
Integrate = Callable[[], Awaitable[object]]


class Exports:
    """What makes exports; two at a time, because each keeps a processor busy for minutes."""

    def __init__(
        self,
        auditing: Auditing,
        *,
        policy: Callable[[Iterable[int]], str],
        witness_interval_s: float,
        folder: Path,
        integrate: Integrate | None = None,
    ) -> None:
        """``policy`` gives the C2SP tlog-policy to verify logs (years) by; files in the making lie below ``folder``."""
        self._auditing, self._policy, self._folder, self._integrate = auditing, policy, folder, integrate
        self._interval_s, self._running = witness_interval_s, 0
        if folder.is_dir():
            with _locked(folder):
                _clear_away(folder)

    @contextmanager
    def place(self) -> Iterator[Path]:
        """Give a folder for one export, removed at its end; raises Conflict while too many are being made."""
        if self._running == _AT_ONCE:
            raise errors.Conflict("exports-under-way")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._running += 1
        try:
            with own_folder(self._folder) as own:
                yield own
        finally:
            self._running -= 1

    async def begin(self, caller: Caller | None, asked: Asked, form: Form, proof: IO[bytes]) -> Export:
        """Authorise an export, put on record that it begins, and fix the checkpoints that it will be proven by.

        ``proof`` takes the proof file. Raises as :meth:`Auditing.search`, and AuditUnavailable where witnesses have
        not signed what is there.
        """
        reader = await self._auditing.reader(caller, asked, {"export": form.kind})
        if self._integrate is not None:
            await self._integrate()
        database = self._auditing.governance.database
        async with database.connection() as connection:
            policy = self._policy(await logs(connection))
        trusted = parse_policy(policy)
        heads = await accepted_heads(database.engine, trusted, _PATIENCE_S)
        patience = _PATIENCE_S if trusted.quorum == "none" else _WITNESSES_S + 2 * self._interval_s
        return Export(self._auditing, reader, form, proof, heads, policy, patience, self._integrate)


class Export:
    """One export being written: first :meth:`data` to its end, then :meth:`finish`."""

    def __init__(
        self,
        auditing: Auditing,
        reader: Reader,
        form: Form,
        proof: IO[bytes],
        heads: Mapping[int, SignedHead],
        policy: str,
        patience_s: float,
        integrate: Integrate | None,
    ) -> None:
        self._auditing, self._reader, self._form, self._proof = auditing, reader, form, proof
        self._heads, self.policy, self._patience_s, self._integrate = heads, policy, patience_s, integrate
        self._sha256, self.records = hashlib.sha256(), 0

    @property
    def receipt(self) -> Receipt:
        """That the export's beginning is in the log."""
        return self._reader.receipt

    async def data(self) -> AsyncGenerator[bytes, None]:
        """Yield DATA; the lines of the proof are written meanwhile."""
        notes = {log: head.note for log, head in self._heads.items()}
        self._proof.write(write_proof_head(self._form.kind, notes, self.policy))
        yield self._hashed(self._form.begin())
        database = self._auditing.governance.database
        groups = proven(database.engine, self._auditing.epochs, self._reader.criteria, self._heads)
        async with aclosing(groups):
            async for group in groups:
                yield self._hashed(await asyncio.to_thread(self._write, group))
                self.records += len(group)
        pieces = self._form.end()
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield self._hashed(piece)

    async def finish(self) -> Receipt:
        """Put the export on record, wait until that is proven, and write the last line of the proof.

        Raises :class:`~audit.errors.AuditUnavailable` when it is not proven in time.
        """
        digest, auditing = self._sha256.digest(), self._auditing
        said = {
            "sha256": digest.hex(),
            "records": self.records,
            "format": self._form.kind,
            "criteria": self._reader.said,
            "logs": {str(log): head.size for log, head in self._heads.items()},
        }
        try:
            receipt = await auditing.audit.append(self._entry(said, self._reader.subject))
        except SubjectErased:
            # Erased while the export was under way: that it was made goes on record all the same.
            receipt = await auditing.audit.append(self._entry(said, None))
        if self._integrate is not None:
            await self._integrate()
        engine, policy = auditing.governance.database.engine, parse_policy(self.policy)
        own, note = await wait_for_proof(engine, auditing.epochs, receipt.entry_id, policy, self._patience_s)
        self._proof.write(last_line(own, note, self.records, digest))
        self._proof.flush()
        return receipt

    async def proof(self) -> AsyncIterator[bytes]:
        """Finish, then yield the proof from its beginning."""
        await self.finish()
        self._proof.seek(0)
        while piece := await asyncio.to_thread(self._proof.read, _CHUNK):
            yield piece

    def members(self) -> list[tuple[str, AsyncIterator[bytes]]]:
        """Return what a ZIP of the export holds, in the order in which it comes to be."""
        name = self._form.name
        return [(name, self.data()), (f"{name}{PROOF_SUFFIX}", self.proof()), (POLICY_NAME, _once(self.policy))]

    def _entry(self, said: dict[str, Any], subject: UUID | None) -> Any:
        return evidence.entry(
            "log.exported",
            "done",
            at=self._auditing.governance.now(),
            policy_version="none",
            subject=subject,
            actor=self._reader.actor,
            what=said,
        )

    def _write(self, group: Sequence[Proven]) -> bytes:
        pieces = []
        for each in group:
            record, piece = self._form.add(_logged(each))
            pieces.append(piece)
            self._proof.write(record_line(each, record))
        return b"".join(pieces)

    def _hashed(self, piece: bytes) -> bytes:
        self._sha256.update(piece)
        return piece


def _logged(each: Proven) -> LoggedEntry:
    entry = each.entry
    detail = None if entry.groups is None else {name: group["value"] for name, group in entry.groups.items()}
    return LoggedEntry(UUID(entry.envelope["id"]), entry.log, entry.index, entry.envelope, detail)


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """Give a folder that is removed at the end; its lock says that its process lives."""
    with _locked(parent):
        _clear_away(parent)
        own = Path(tempfile.mkdtemp(dir=parent))
        lock = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield own
    finally:
        shutil.rmtree(own)
        os.close(lock)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _clear_away(parent: Path) -> None:
    """Remove what killed processes left: it tells of persons, and no erasure would find it."""
    for left in parent.iterdir():
        with suppress(FileNotFoundError, NotADirectoryError, BlockingIOError):
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(lock)


async def _once(text: str) -> AsyncIterator[bytes]:
    yield text.encode()
