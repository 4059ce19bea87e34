"""Keeps two kinds of keys: the log's signing key in a file, and one data key per subject, wrapped, in the database.

Data keys are wrapped by the key of an epoch, which lies apart from the database: once an epoch's key is destroyed, no
backup of the database opens what was wrapped by it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.batch import Batcher
from audit.connection import Driver, OwnConnection, within_budget
from audit.envelope import SubjectKey
from audit.errors import AuditError, AuditUnavailable, SubjectErased, UnsafeKeyFile
from audit.models import LOG_SUBJECT
from schemas.crypto import decrypt, encrypt, new_key
from schemas.errors import DecryptionError

_CACHED = 50_000
_GROUP = 500
_BOUND = 20_000
_SELECT = "SELECT subject, pseudonym, wrapped_key, epoch FROM audit.subject_key WHERE subject = ANY(%s)"
# Nothing is wrapped under an epoch that was left, whatever a process knows: its key is about to be destroyed.
_INSERT = """
INSERT INTO audit.subject_key (subject, pseudonym, wrapped_key, epoch)
SELECT subject, pseudonym, wrapped_key, %(epoch)s
FROM unnest(%(subjects)s::uuid[], %(pseudonyms)s::uuid[], %(wrapped)s::bytea[])
    AS made (subject, pseudonym, wrapped_key)
WHERE %(epoch)s = (SELECT max(number) FROM audit.epoch)
ON CONFLICT (subject) DO NOTHING
"""
_NEWEST_EPOCH = "SELECT max(number) FROM audit.epoch"


def load_or_create_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read the log's signing key (PKCS #8 PEM, RFC 8410); make one with mode 0600 where there is no file.

    Two processes that start together end with the same key. Raises :class:`UnsafeKeyFile` when group or others may
    read the file or it holds something else, :class:`OSError` when the folder cannot be used.
    """
    if not path.exists():
        _create_signing_key(path)
    if path.stat().st_mode & 0o077:
        raise UnsafeKeyFile(f"{path}: mode must be 0600")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise UnsafeKeyFile(f"{path}: not a private key in PEM without password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UnsafeKeyFile(f"{path}: not an Ed25519 key")
    return key


def _create_signing_key(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # A hard link appears whole or not at all, and refuses to replace the key of whoever was first.
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)


@dataclass(slots=True)
class Epochs:
    """The keys that wrap data keys, 32 bytes each, by the number of their epoch; new data keys go under ``current``.

    ``read`` reads the keys there are now, for a process that meets an epoch younger than itself.
    """

    current: int
    keys: Mapping[int, bytes]
    read: Callable[[], Mapping[int, bytes]] | None = None

    def renew(self) -> None:
        """Take the keys there are now: new epochs come, and those whose key was destroyed are forgotten."""
        if self.read is not None:
            self.keys = self.read()

    def turn_to(self, epoch: int) -> None:
        """Wrap under another epoch from now on; raises :class:`AuditUnavailable` where its key is not here."""
        if epoch not in self.keys:
            self.renew()
        if epoch not in self.keys:
            raise AuditUnavailable("the key of the newest epoch is not here")
        self.current = epoch

    def wrap(self, subject: UUID, key: bytes) -> bytes:
        """Seal a subject's data key under the current epoch's key, bound to the subject's row."""
        return encrypt(self.keys[self.current], key, _wrapping_context(subject))

    def opened(self, epoch: int, subject: UUID, wrapped: bytes | None) -> bytes | None:
        """Open a wrapped data key; ``None`` where it or its epoch's key was destroyed.

        Raises :class:`~schemas.errors.DecryptionError` under another key of the epoch, and :class:`AuditUnavailable`
        where the epoch is younger than any key here: that one was not destroyed, it has not arrived.
        """
        if wrapped is not None and epoch not in self.keys and epoch > max(self.keys):
            self.renew()
            if epoch > max(self.keys):
                raise AuditUnavailable("the key of the newest epoch is not here")
        key = self.keys.get(epoch)
        return None if wrapped is None or key is None else decrypt(key, wrapped, _wrapping_context(subject))


def _wrapping_context(subject: UUID) -> bytes:
    return b"audit.subject_key.wrapped_key" + subject.bytes


class SubjectKeys:
    """The data keys in use: made at a subject's first entry, remembered so that a known subject costs no query.

    Keys are committed by themselves, not in the caller's transaction: a key remembered here but rolled back there
    would leave later details that nobody can open.
    """

    def __init__(self, engine: AsyncEngine, epochs: Epochs) -> None:
        self._epochs = epochs
        self._connection = OwnConnection(engine)
        self._known: OrderedDict[UUID, SubjectKey] = OrderedDict()
        self._batcher: Batcher[UUID, SubjectKey] = Batcher(self._fetch, group=_GROUP, bound=_BOUND)

    async def of(self, subject: UUID | None) -> SubjectKey:
        """Return the key of a subject, the log's own for ``None``.

        Raises :class:`SubjectErased` if it was destroyed, :class:`AuditUnavailable` if the database does not answer
        or the key does not open under the key of its epoch.
        """
        wanted = LOG_SUBJECT if subject is None else subject
        known = self._known.get(wanted)
        if known is not None:
            self._known.move_to_end(wanted)
            return known
        [key] = await self._batcher.submit([wanted])
        return key

    async def of_all(self, subjects: Iterable[UUID | None]) -> list[SubjectKey]:
        """Return the keys of several subjects, in their order, the unknown ones in one go; raises as :meth:`of`."""
        wanted = [LOG_SUBJECT if subject is None else subject for subject in subjects]
        new = list({subject for subject in wanted if subject not in self._known})
        made = dict(zip(new, await self._batcher.submit(new), strict=True)) if new else {}
        return [made[subject] if subject in made else await self.of(subject) for subject in wanted]

    def forget(self, subjects: Iterable[UUID]) -> None:
        """Drop keys from memory: those of persons whose key was destroyed."""
        for subject in subjects:
            self._known.pop(subject, None)

    async def start(self) -> None:
        """Open the connection now and make sure of the log's own key."""
        await self.of(None)

    async def close(self) -> None:
        """Finish what waits and close the connection."""
        await self._batcher.close()
        await self._connection.drop()

    async def _fetch(self, wanted: list[UUID]) -> Sequence[SubjectKey | AuditError]:
        try:
            async with self._connection as driver:
                rows = await within_budget(self._rows(driver, sorted(set(wanted))))
        except (SQLAlchemyError, psycopg.Error, OSError) as error:
            raise AuditUnavailable("subject keys cannot be read or made") from error
        found = {row[0]: self._open(*row) for row in rows}
        return [found[subject] for subject in wanted]

    async def _rows(self, driver: Driver, subjects: list[UUID]) -> list[tuple[UUID, UUID, bytes | None, int]]:
        """Select the rows, making those that are not there; sorted, so that two processes cannot lock crosswise."""
        async with driver.cursor(binary=True) as cursor:
            await cursor.execute(_SELECT, (subjects,))
            rows = await cursor.fetchall()
            there = {row[0] for row in rows}
            new = [subject for subject in subjects if subject not in there]
            while new:
                await cursor.execute(_INSERT, self._made(new))
                await cursor.execute(_SELECT, (new,))
                found = await cursor.fetchall()
                rows += found
                there = {row[0] for row in found}
                new = [subject for subject in new if subject not in there]
                if new:
                    # An epoch was left meanwhile: the database knows which is the newest.
                    await cursor.execute(_NEWEST_EPOCH)
                    newest = await cursor.fetchone()
                    if newest is None or newest[0] is None:
                        raise AuditUnavailable("the log has no epoch of keys")
                    self._epochs.turn_to(newest[0])
        return rows

    def _made(self, subjects: list[UUID]) -> dict[str, Any]:
        return {
            "epoch": self._epochs.current,
            "subjects": subjects,
            "pseudonyms": [uuid4() for _ in subjects],
            "wrapped": [self._epochs.wrap(subject, new_key()) for subject in subjects],
        }

    def _open(self, subject: UUID, pseudonym: UUID, wrapped: bytes | None, epoch: int) -> SubjectKey | AuditError:
        try:
            opened = self._epochs.opened(epoch, subject, wrapped)
        except DecryptionError:
            return AuditUnavailable("a subject key does not open under the key of its epoch")
        except AuditUnavailable as error:
            return error
        if opened is None:
            return SubjectErased("the key of this subject was destroyed")
        key = SubjectKey(pseudonym, opened)
        self._known[subject] = key
        if len(self._known) > _CACHED:
            self._known.popitem(last=False)
        return key
