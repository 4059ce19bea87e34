"""Decides what the text of a file is: the encoding agreed, or strict UTF-8 and else Windows-1252, in blocks of lines.

A byte the encoding does not have becomes a lone surrogate, so that it costs its row and not the file.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from adapters.files.errors import WrongFile

#: Opens the bytes of a file from their beginning.
Opener = Callable[[], BinaryIO]

_BLOCK = 64 * 1024
LONGEST_LINE = 1024 * 1024
_UNREADABLE = re.compile("[\0\ud800-\udfff]")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Whole lines. ``unreadable``: some hold a NUL or a byte outside the encoding. ``cut``: the line after them was
    too long and was left out. ``last``: no more come.
    """

    text: str
    unreadable: bool
    cut: bool
    last: bool


def unreadable(cell: str) -> bool:
    """Tell whether a cell holds a NUL or a byte outside the encoding."""
    return _UNREADABLE.search(cell) is not None


def encoding_of(open_file: Opener) -> str:
    """Return ``utf-8`` where every byte of the file is strict UTF-8, else ``cp1252``."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_file() as file:
        try:
            while block := file.read(_BLOCK):
                decoder.decode(block)
            decoder.decode(b"", True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def text_blocks(open_file: Opener, encoding: str) -> Generator[TextBlock, None, None]:
    """Give the file in blocks of some 64 KiB that end where a line ends; memory stays flat.

    Raises :class:`~adapters.files.errors.WrongFile` for a file that says by its first bytes to be in another encoding.
    """
    encoding = encoding.removesuffix("-sig")
    first = True
    with open_file() as file:
        for content, cut, last in _byte_blocks(file):
            if first:
                content = _without_mark(content, encoding)
                first = False
            text, strict = _decode(content, encoding)
            yield TextBlock(text, not strict or "\0" in text, cut, last)


def _without_mark(content: bytes, encoding: str) -> bytes:
    if content.startswith(_UTF16):
        raise WrongFile("in UTF-16, not the encoding agreed")
    if content.startswith(codecs.BOM_UTF8):
        if encoding != "utf-8":
            raise WrongFile("in UTF-8, not the encoding agreed")
        return content[len(codecs.BOM_UTF8) :]
    return content


def _decode(content: bytes, encoding: str) -> tuple[str, bool]:
    try:
        return content.decode(encoding), True
    except UnicodeDecodeError:
        return content.decode(encoding, "surrogateescape"), False


def _byte_blocks(file: BinaryIO) -> Iterator[tuple[bytes, bool, bool]]:
    rest = file.read(_BLOCK)
    while more := file.read(_BLOCK):
        end = _end_of_last_line(rest)
        if end:
            yield rest[:end], False, False
            rest = rest[end:] + more
        elif len(rest) > LONGEST_LINE:
            yield b"", True, False
            rest = _behind_this_line(more, file)
        else:
            rest += more
    yield rest, False, True


def _end_of_last_line(content: bytes) -> int:
    # A file whose lines end in a lone carriage return has no other; one at the very end may still be half of CR LF.
    return content.rfind(b"\n") + 1 or content.rfind(b"\r", 0, len(content) - 1) + 1


def _behind_this_line(content: bytes, file: BinaryIO) -> bytes:
    while content:
        place = content.find(b"\n")
        if place >= 0:
            return content[place + 1 :]
        content = file.read(_BLOCK)
    return b""
