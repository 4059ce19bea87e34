"""Turns a sheet of an XLSX file into CSV, in a process of its own.

The library that reads spreadsheets lays a sheet out in memory whole, and a file of two cells can ask for so much that
it aborts the process it runs in. So it runs in one that has nothing to lose and may only grow so far.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from typing import Any, BinaryIO

from adapters.files.archive import open_archive
from adapters.files.errors import WrongFile

_MOST_UNPACKED = 512 * 1024**2
_MOST_MEMORY = 1024**3
_MOST_OUTPUT = 1024**3
_MOST_SECONDS = 120
_NO_SHEET, _UNREADABLE = 3, 4
#: Beyond it a spreadsheet's number is no longer exact, and is shown as it is stored.
_EXACT = 2.0**53


def sheet_as_csv(file: BinaryIO, sheet: str | None, skip: int) -> BinaryIO:
    """Return a sheet (the first without a name) as CSV in UTF-8, ``skip`` rows passed over, in an unnamed file.

    Whole numbers lose their point, days and instants become ISO 8601, truth becomes ``true`` and ``false``; the cells
    of a formula are its last result, those of an error are empty.
    Raises :class:`~adapters.files.errors.WrongFile`.
    """
    archive, members = open_archive(file, _MOST_UNPACKED)
    archive.close()
    if "[Content_Types].xml" not in {member.filename for member in members}:
        raise WrongFile("not an XLSX file")
    file.seek(0)
    output = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller
    command = [sys.executable, "-m", __name__, str(skip), *([] if sheet is None else [sheet])]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile() as input_file:
        while block := file.read(1024**2):
            input_file.write(block)
        input_file.seek(0)
        try:
            done = subprocess.run(  # noqa: S603 - our own module
                command,
                stdin=input_file,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=environment,
                timeout=_MOST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            output.close()
            raise WrongFile("a sheet too large to be read") from None
    if done.returncode != 0:
        output.close()
        what = {_NO_SHEET: "without the sheet agreed", _UNREADABLE: "not an XLSX file that can be read"}
        raise WrongFile(what.get(done.returncode, "a sheet too large to be read"))
    output.seek(0)
    return output


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return str(value.total_seconds())
        case _:
            return str(value)


def _write(rows: Iterable[list[Any]], skip: int, output: BinaryIO) -> None:
    with io.TextIOWrapper(output, encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        for number, row in enumerate(rows):
            if number >= skip:
                writer.writerow([_text(value) for value in row])


def _limit() -> None:
    import resource

    for limit, most in (
        (resource.RLIMIT_AS, _MOST_MEMORY),
        (resource.RLIMIT_CPU, _MOST_SECONDS),
        (resource.RLIMIT_FSIZE, _MOST_OUTPUT),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))


def _main(skip: int, sheet: str | None = None) -> int:
    _limit()
    from python_calamine import CalamineError, CalamineWorkbook, PasswordError, WorksheetNotFound, XmlError, ZipError

    try:
        with CalamineWorkbook.from_filelike(sys.stdin.buffer) as book:
            if not book.sheet_names:
                return _NO_SHEET
            found = book.get_sheet_by_name(book.sheet_names[0] if sheet is None else sheet)
            _write(found.iter_rows(), skip, sys.stdout.buffer)
    except WorksheetNotFound:
        return _NO_SHEET
    except (CalamineError, PasswordError, XmlError, ZipError):
        return _UNREADABLE
    return 0


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), *sys.argv[2:3]))
