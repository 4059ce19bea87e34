"""Keeps two kinds of keys: the log's signing key in a file, and one data key per subject, wrapped, in the database."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
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
_SELECT = "SELECT subject, pseudonym, wrapped_key FROM audit.subject_key WHERE subject = ANY(%s)"
_INSERT = """
INSERT INTO audit.subject_key (subject, pseudonym, wrapped_key, epoch)
SELECT subject, pseudonym, wrapped_key, extract(year FROM now() AT TIME ZONE 'UTC')
FROM unnest(%s::uuid[], %s::uuid[], %s::bytea[]) AS made (subject, pseudonym, wrapped_key)
ON CONFLICT (subject) DO NOTHING
"""


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


def wrap_key(kek: bytes, subject: UUID, key: bytes) -> bytes:
    """Seal a subject's data key under the key-encryption key, bound to the subject's row."""
    return encrypt(kek, key, _wrapping_context(subject))


def unwrap_key(kek: bytes, subject: UUID, wrapped: bytes) -> bytes:
    """Open a wrapped data key; raise :class:`~schemas.errors.DecryptionError` under another key-encryption key."""
    return decrypt(kek, wrapped, _wrapping_context(subject))


def _wrapping_context(subject: UUID) -> bytes:
    return b"audit.subject_key.wrapped_key" + subject.bytes


class SubjectKeys:
    """The data keys in use: made at a subject's first entry, remembered so that a known subject costs no query.

    Keys are committed by themselves, not in the caller's transaction: a key remembered here but rolled back there
    would leave later details that nobody can open.
    """

    def __init__(self, engine: AsyncEngine, kek: bytes) -> None:
        self._kek = kek
        self._connection = OwnConnection(engine)
        self._known: OrderedDict[UUID, SubjectKey] = OrderedDict()
        self._batcher: Batcher[UUID, SubjectKey] = Batcher(self._fetch, group=_GROUP, bound=_BOUND)

    async def of(self, subject: UUID | None) -> SubjectKey:
        """Return the key of a subject, the log's own for ``None``.

        Raises :class:`SubjectErased` if it was destroyed, :class:`AuditUnavailable` if the database does not answer
        or the key does not open under our key-encryption key.
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
        found = {subject: self._open(subject, pseudonym, wrapped) for subject, pseudonym, wrapped in rows}
        return [found[subject] for subject in wanted]

    async def _rows(self, driver: Driver, subjects: list[UUID]) -> list[tuple[UUID, UUID, bytes | None]]:
        """Select the rows, making those that are not there; sorted, so that two processes cannot lock crosswise."""
        async with driver.cursor(binary=True) as cursor:
            await cursor.execute(_SELECT, (subjects,))
            rows = await cursor.fetchall()
            there = {row[0] for row in rows}
            new = [subject for subject in subjects if subject not in there]
            if new:
                wrapped = [wrap_key(self._kek, subject, new_key()) for subject in new]
                await cursor.execute(_INSERT, (new, [uuid4() for _ in new], wrapped))
                await cursor.execute(_SELECT, (new,))
                rows += await cursor.fetchall()
        return [(subject, pseudonym, wrapped) for subject, pseudonym, wrapped in rows]

    def _open(self, subject: UUID, pseudonym: UUID, wrapped: bytes | None) -> SubjectKey | AuditError:
        if wrapped is None:
            return SubjectErased("the key of this subject was destroyed")
        try:
            key = SubjectKey(pseudonym, unwrap_key(self._kek, subject, wrapped))
        except DecryptionError:
            return AuditUnavailable("a subject key does not open under this key-encryption key")
        self._known[subject] = key
        if len(self._known) > _CACHED:
            self._known.popitem(last=False)
        return key
