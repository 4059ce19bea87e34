"""The keys of personal data at rest: one key-encryption key per deployment, data keys wrapped by it in the database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

from sqlalchemy import Column, LargeBinary, SmallInteger, Table, Text, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.keys import Epochs
from gateway.database import metadata
from schemas import crypto

data_key = Table(
    "data_key",
    metadata,
    Column("purpose", Text, primary_key=True),
    Column("id", SmallInteger, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
)


class MissingKey(RuntimeError):
    """A key file that must exist does not; the text names the file."""


class Vault:
    """Encrypts and indexes fields with keys held in memory."""

    def __init__(self, field_key: bytes, index_key: bytes) -> None:
        self._field_key, self._index_key = field_key, index_key

    def seal(self, column: str, row: UUID, text: str) -> bytes:
        """Encrypt a text for one column (``table.column``) of one row."""
        return crypto.encrypt(self._field_key, text.encode(), _context(column, row))

    def open(self, column: str, row: UUID, sealed: bytes) -> str:
        """Decrypt what :meth:`seal` made for the same column and row; raise DecryptionError otherwise."""
        return crypto.decrypt(self._field_key, sealed, _context(column, row)).decode()

    def index(self, system: str, value: str) -> bytes:
        """Return the blind index of an identifier."""
        return crypto.blind_index(self._index_key, system, value)

    def register_index(self, system: str) -> Callable[[str], bytes]:
        """Return the blind index of registers for identifiers of one system: another one than that of persons."""
        return crypto.quick_indexer(self._index_key, f"register/{system}")

    def rows(self, column: str, whole: UUID) -> crypto.RowCipher:
        """Return what seals and opens the numbered rows of one whole (a register's file) in one column."""
        return crypto.RowCipher(self._field_key, _context(column, whole))


async def open_vault(connection: AsyncConnection, kek: bytes) -> Vault:
    """Read the data keys, making them the first time."""
    return Vault(await _key(connection, kek, "field"), await _key(connection, kek, "index"))


def load_kek(keys_dir: Path, *, create: bool) -> bytes:
    """Read the key-encryption key (32 bytes) from ``kek.key``; make it with mode 0600 if ``create``.

    Raises :class:`MissingKey` when it is absent and may not be made, or has another length.
    """
    path = keys_dir / "kek.key"
    if create and not path.exists():
        write_secret(path, crypto.new_key())
    if not path.exists():
        raise MissingKey(str(path))
    key = path.read_bytes()
    if len(key) != crypto.KEY_BYTES:
        raise MissingKey(str(path))
    return key


def load_epochs(keys_dir: Path, *, create: bool) -> Epochs:
    """Read the keys that wrap the log's data keys, ``epochs/NUMBER.key`` (32 bytes each); make the first if ``create``.

    The highest number is the current one. Raises :class:`MissingKey` when there is none, or one has another length.
    """
    folder = _epochs_dir(keys_dir)
    if create and not any(folder.glob("*.key")):
        write_secret(folder / "1.key", crypto.new_key())
    keys = _epoch_keys(folder)
    for number, key in keys.items():
        if len(key) != crypto.KEY_BYTES:
            raise MissingKey(str(folder / f"{number}.key"))
    if not keys:
        raise MissingKey(str(folder / "1.key"))
    return Epochs(max(keys), keys, partial(_epoch_keys, folder))


def make_epoch(keys_dir: Path, number: int) -> None:
    """Make the key of an epoch; one that is there already stays."""
    write_secret(_epochs_dir(keys_dir) / f"{number}.key", crypto.new_key())


def destroy_epoch(keys_dir: Path, number: int) -> None:
    """Overwrite the file of an epoch's key and remove it; one that is gone already is fine.

    A file system that copies on write, or a disk that spreads its writes, may keep the old bytes somewhere.
    """
    path = _epochs_dir(keys_dir) / f"{number}.key"
    if not path.exists():
        return
    with path.open("r+b") as stream:
        stream.write(os.urandom(crypto.KEY_BYTES))
        stream.flush()
        os.fsync(stream.fileno())
    path.unlink()
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _epochs_dir(keys_dir: Path) -> Path:
    return keys_dir / "epochs"


def _epoch_keys(folder: Path) -> dict[int, bytes]:
    keys = {}
    for path in folder.glob("*.key"):
        # One may be destroyed while we read.
        with contextlib.suppress(FileNotFoundError):
            if path.stem.isdecimal():
                keys[int(path.stem)] = path.read_bytes()
    return keys


def write_secret(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 that appears whole or not at all; one that exists already stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


async def _key(connection: AsyncConnection, kek: bytes, purpose: str) -> bytes:
    context = f"siis.data_key/{purpose}/1".encode()
    fresh = crypto.encrypt(kek, crypto.new_key(), context)
    await connection.execute(insert(data_key).values(purpose=purpose, id=1, wrapped=fresh).on_conflict_do_nothing())
    wrapped = await connection.scalar(
        select(data_key.c.wrapped).where(data_key.c.purpose == purpose, data_key.c.id == 1)
    )
    return crypto.decrypt(kek, bytes(wrapped or b""), context)


def _context(column: str, row: UUID) -> bytes:
    return f"siis.{column}/{row}".encode()
