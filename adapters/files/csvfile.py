"""Decides what the rows of a CSV file are, and how a row is written; one row is one line (no line ends in cells)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adapters.models import RejectedRow

# What a spreadsheet takes for a formula, also after the white space it skips.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class WrongFile(ValueError):
    """A file as a whole is not what was agreed; the text says which rule it breaks."""


def write_row(columns: Sequence[str], values: Mapping[str, Any], spec: Mapping[str, Any]) -> bytes:
    """Write a header and one row (RFC 4180, the manifest's delimiter and encoding).

    A cell that a spreadsheet would take for a formula gets an apostrophe in front. Raises UnicodeEncodeError for text
    the encoding cannot hold.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=spec["delimiter"], lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerow([_neutral(str(values.get(column, ""))) for column in columns])
    return text.getvalue().encode(spec["encoding"])


def _neutral(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def read_rows(content: bytes, spec: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, str]] | RejectedRow]:
    """Give every row by its number (1 is the first after the header), as cells by column or as rejected.

    Raises :class:`WrongFile` where not even the header is as agreed. An unbalanced quote costs its own row only.
    """
    # A byte the encoding does not have becomes a lone surrogate, so it costs its row and not the file.
    lines = content.decode(spec["encoding"], "surrogateescape").replace("\r\n", "\n").split("\n")
    header = _cells(lines[0], spec["delimiter"])
    if header is None or len(set(header)) != len(header) or not set(spec.get("columns", ())) <= set(header):
        raise WrongFile("not the header agreed")
    for number, line in enumerate(lines[1:], start=1):
        if line:
            yield _row(number, line, header, spec["delimiter"])


def _row(number: int, line: str, header: Sequence[str], delimiter: str) -> tuple[int, dict[str, str]] | RejectedRow:
    cells = _cells(line, delimiter)
    if cells is None:
        return RejectedRow(number, "", "unbalanced quotes")
    if len(cells) != len(header):
        return RejectedRow(number, "", f"{len(cells)} columns, not {len(header)}")
    for column, cell in zip(header, cells, strict=True):
        if not cell.isascii() and any("\ud800" <= character <= "\udfff" for character in cell):
            return RejectedRow(number, column, "not in the encoding agreed")
    return number, dict(zip(header, cells, strict=True))


def _cells(line: str, delimiter: str) -> list[str] | None:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None
