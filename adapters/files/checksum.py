"""Decides whether a file is the one its side file speaks of (``NAME.md5``, ``NAME.sha256``)."""

from __future__ import annotations

import hashlib
import re
from io import BufferedIOBase
from typing import Literal

from adapters.files.errors import WrongFile

Algorithm = Literal["md5", "sha256"]
_DIGITS = {"md5": 32, "sha256": 64}


def check_sum(file: BufferedIOBase, side_file: bytes, name: str, algorithm: Algorithm) -> None:
    """Compare a file with its side file: the digest alone, or lines ``digest  name`` as md5sum and sha256sum write.

    Raises :class:`~adapters.files.errors.WrongFile` where it is another, or the side file says nothing of this file.
    MD5 shows that a copy is complete, never who made it.
    """
    expected = _expected(side_file, name, algorithm)
    if expected is None:
        raise WrongFile(f"the {algorithm} file says nothing of this file")
    digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if digest != expected:
        raise WrongFile(f"not the {algorithm} sum agreed")


def _expected(side_file: bytes, name: str, algorithm: Algorithm) -> str | None:
    form = re.compile(rf"([0-9a-f]{{{_DIGITS[algorithm]}}})(?:\s+\*?(.+))?", re.ASCII | re.IGNORECASE)
    for line in side_file.decode("utf-8-sig", "replace").splitlines():
        match = form.fullmatch(line.strip())
        # Some write the path the file had on their own machine before the name.
        if match is not None and (match[2] is None or re.split(r"[/\\]", match[2])[-1] == name):
            return match[1].lower()
    return None
