"""Decides whether a ZIP archive may be opened: no bombs, no encrypted members, no names that lead elsewhere."""

from __future__ import annotations

import stat
import zlib
from pathlib import PurePosixPath
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile, ZipInfo

from adapters.files.errors import WrongFile

MOST_MEMBERS = 1000
MOST_BYTES = 4 * 1024**3
#: Real tables shrink to a tenth or a twentieth, bombs to a thousandth.
MOST_RATIO = 200
_SMALL = 1024**2
_BLOCK = 1024**2


def open_archive(file: BinaryIO, most_bytes: int = MOST_BYTES) -> tuple[ZipFile, list[ZipInfo]]:
    """Open an archive and return its files, each one unpacked once to know that it is what it says to be.

    Raises :class:`~adapters.files.errors.WrongFile` naming the rule an archive breaks.
    """
    try:
        archive = ZipFile(file)
        members = [member for member in archive.infolist() if not member.is_dir()]
        _check(members, file.seek(0, 2), most_bytes)
        for member in members:
            with archive.open(member) as content:
                # The library ends at the size declared and compares the checksum, so a false size does not pass.
                while content.read(_BLOCK):
                    pass
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError, RuntimeError) as error:
        if isinstance(error, WrongFile):
            raise
        raise WrongFile("not a ZIP archive that can be read") from None
    return archive, members


def _check(members: list[ZipInfo], size: int, most_bytes: int) -> None:
    if len(members) > MOST_MEMBERS:
        raise WrongFile("too many files in the archive")
    if not members:
        raise WrongFile("no file in the archive")
    if len({member.filename for member in members}) != len(members):
        raise WrongFile("two files of one name in the archive")
    # Members that share their bytes are how the worst bombs are built.
    if sum(member.compress_size for member in members) > size:
        raise WrongFile("the files of the archive overlap")
    for member in members:
        if member.flag_bits & 0x1:
            raise WrongFile("an encrypted file in the archive")
        if _leads_elsewhere(member):
            raise WrongFile("a file name in the archive that leads elsewhere")
        if member.file_size > max(_SMALL, MOST_RATIO * member.compress_size):
            raise WrongFile("a file of the archive grows beyond measure")
    if sum(member.file_size for member in members) > most_bytes:
        raise WrongFile("the archive grows beyond measure")


def _leads_elsewhere(member: ZipInfo) -> bool:
    name = PurePosixPath(member.filename)
    link = stat.S_ISLNK(member.external_attr >> 16)
    return link or name.is_absolute() or ".." in name.parts or "\\" in member.orig_filename or ":" in member.filename
