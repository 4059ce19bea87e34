"""Decides how entries are written for auditors: tables for a spreadsheet, and one JSON object a line.

Whatever is in a cell is text: nothing in it is run by the program that opens it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson
import xlsxwriter  # type: ignore[import-untyped]

from adapters.files.writing import neutral
from audit.errors import AuditError
from audit.models import LoggedEntry

COLUMNS = (
    "log",
    "index",
    "id",
    "at",
    "type",
    "outcome",
    "recorder",
    "policy_version",
    "correlation",
    "subject",
    "erased",
    "client",
    "institution",
    "user",
    "on_behalf_of",
    "purpose",
    "basis",
    "norm",
    "agreement",
    "case",
    "holder",
    "dataset",
    "asked",
    "released",
    "withheld",
    "reasons",
    "referral",
    "detail",
)
# Of Microsoft's "Excel specifications and limits": rows of a sheet with its heading, characters of a cell.
_ROWS, _CELL = 1_048_576, 32_767
_CHUNK = 1 << 16
# Excel in Paraguay takes a file without this mark for another encoding (Unicode 23.8; RFC 4180 says nothing of it).
_MARK = "\ufeff"
# What no cell may hold: control characters, what XML 1.0 does not allow, and what Excel reads as an escaped character.
_CONTROL = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")
_ESCAPED = re.compile("_(?=x[0-9A-Fa-f]{4}_)")


@dataclass(frozen=True, slots=True)
class Source:
    """What an exported entry cannot say of itself: the gateway's address, the origin of its logs, its version."""

    address: str
    origin: str
    version: str


class TooManyRows(AuditError):
    """A sheet cannot hold so many entries."""


class Form(Protocol):
    """One way to write an export; an object writes one file."""

    kind: str
    name: str

    def begin(self) -> bytes:
        """Return what stands before the first record."""

    def add(self, entry: LoggedEntry) -> tuple[bytes, bytes]:
        """Return the record as its proof hashes it, and what of the file is there by now."""

    def end(self) -> Iterator[bytes]:
        """Return what stands behind the last record, in pieces."""


class Lines:
    """One JSON object a line."""

    def __init__(self, kind: str, name: str, shown: Callable[[LoggedEntry], Mapping[str, Any]]) -> None:
        """``shown`` says what of an entry is written."""
        self.kind, self.name, self._shown = kind, name, shown

    def begin(self) -> bytes:
        """Return nothing."""
        return b""

    def add(self, entry: LoggedEntry) -> tuple[bytes, bytes]:
        """Return the object, and its line."""
        record = orjson.dumps(self._shown(entry))
        return record, record + b"\n"

    def end(self) -> Iterator[bytes]:
        """Return nothing."""
        return iter(())


class Table:
    """CSV (RFC 4180) in UTF-8."""

    kind, name = "csv", "registro.csv"

    def begin(self) -> bytes:
        """Return the heading."""
        return _MARK.encode() + _csv(COLUMNS)

    def add(self, entry: LoggedEntry) -> tuple[bytes, bytes]:
        """Return the row without its line feed, and with it."""
        line = _csv([neutral(cell) for cell in cells(entry)])
        return line[:-1], line

    def end(self) -> Iterator[bytes]:
        """Return nothing."""
        return iter(())


class Workbook:
    """XLSX; a workbook is a ZIP whose parts are only known at its end, so it grows in a folder first."""

    kind, name = "xlsx", "registro.xlsx"

    def __init__(self, folder: Path) -> None:
        """``folder`` is where the workbook grows; who made it removes it."""
        self._path = folder / self.name
        options = {"constant_memory": True, "tmpdir": str(folder), "strings_to_formulas": False}
        self._book = xlsxwriter.Workbook(self._path, options)
        self._book.use_zip64()
        self._sheet = self._book.add_worksheet("registro")
        self._rows = 0

    def begin(self) -> bytes:
        """Write the heading."""
        self._write(COLUMNS)
        return b""

    def add(self, entry: LoggedEntry) -> tuple[bytes, bytes]:
        """Write a row and return its texts between U+001F; raises :class:`TooManyRows`."""
        texts = [_fitting(text) for text in cells(entry)]
        self._write(texts)
        return "\x1f".join(texts).encode(), b""

    def end(self) -> Iterator[bytes]:
        """Finish the workbook and return it in pieces."""
        self._book.close()
        with self._path.open("rb") as file:
            while piece := file.read(_CHUNK):
                yield piece

    def _write(self, texts: tuple[str, ...] | list[str]) -> None:
        if self._rows == _ROWS:
            raise TooManyRows("a sheet holds no more rows")
        for column, text in enumerate(texts):
            self._sheet.write_string(self._rows, column, text)
        self._rows += 1


def entry_json(entry: LoggedEntry) -> dict[str, Any]:
    """Return an entry as JSON lines have it: place, envelope, detail (``null`` once erased)."""
    return {
        "log": entry.log,
        "index": entry.index,
        "id": str(entry.entry_id),
        "envelope": entry.envelope,
        "detail": entry.detail,
        "erased": entry.detail is None,
    }


def cells(entry: LoggedEntry) -> list[str]:
    """Return an entry as a row under :data:`COLUMNS`; ``detail`` holds everything, as JSON."""
    detail = entry.detail or {}
    actor, why, what, decision, exchange = (
        detail.get(name, {}) for name in ("actor", "why", "what", "decision", "exchange")
    )
    envelope = entry.envelope
    values = (
        entry.log,
        entry.index,
        entry.entry_id,
        *(envelope[name] for name in ("at", "type", "outcome", "recorder", "policy_version", "correlation", "subject")),
        "1" if entry.detail is None else "",
        *(actor.get(name) for name in ("client", "institution", "user", "on_behalf_of")),
        *(why.get(name) for name in ("purpose", "basis", "norm", "agreement", "case")),
        *(what.get(name) for name in ("holder", "dataset", "asked", "released", "withheld")),
        decision.get("reasons"),
        exchange.get("referral"),
    )
    whole = "" if entry.detail is None else _CONTROL.sub(_as_json, orjson.dumps(detail).decode())
    return [*(_plain(value) for value in values), _ESCAPED.sub(r"\\u005f", whole)]


def _plain(value: Any) -> str:
    match value:
        case None:
            text = ""
        case dict():
            text = " ".join(f"{name}={each}" for name, each in value.items())
        case list():
            text = " ".join(str(each) for each in value)
        case _:
            text = str(value)
    return _ESCAPED.sub(" ", _CONTROL.sub(" ", text))


def _as_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _fitting(text: str) -> str:
    # Excel counts UTF-16; whoever needs what was cut off finds it in the proof.
    if len(text) * 2 <= _CELL or len(units := text.encode("utf-16-le")) <= _CELL * 2:
        return text
    return units[: (_CELL - 1) * 2].decode("utf-16-le", "ignore") + "…"


def _csv(values: tuple[str, ...] | list[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return text.getvalue().encode()
