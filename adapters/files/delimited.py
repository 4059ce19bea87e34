"""Decides where the rows of a CSV file begin and end, line breaks inside quotes included (RFC 4180).

A quote that is never closed costs its own line and not the rows behind it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from adapters.files.lines import TextBlock

#: Lines that one row may take; what is longer is a quote that somebody forgot to close.
MOST_LINES = 100
_UNCLOSED = "unexpected end of data"


@dataclass(slots=True)
class RawRows:
    """Rows as they stand in the file, a blank or damaged one as an empty list; ``damaged`` says by place what is wrong.

    ``unreadable``: some cell may hold a NUL or a byte outside the encoding.
    """

    rows: list[list[str]] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)
    unreadable: bool = False

    def spoil(self, what: str) -> None:
        """Add a row that cannot be read."""
        self.damaged[len(self.rows)] = what
        self.rows.append([])


class Lines:
    """Lines to be read by a :func:`csv.reader` that can be set back to an earlier one."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.place = self.start = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.place >= len(self.lines) or self.place - self.start >= MOST_LINES:
            raise StopIteration
        self.place += 1
        return self.lines[self.place - 1]


def split_lines(text: str) -> list[str]:
    """Split at CR LF, LF and CR, and at nothing else that Unicode takes for a line end."""
    return list(io.StringIO(text, newline=""))


class CsvReader:
    """Reads blocks of text into rows."""

    def __init__(self, delimiter: str, quote: str | None) -> None:
        self._quote, self._delimiter = quote, delimiter
        quoting = csv.QUOTE_NONE if quote is None else csv.QUOTE_MINIMAL
        self._how: dict[str, Any] = {"delimiter": delimiter, "quotechar": quote, "quoting": quoting, "strict": True}

    def over(self, lines: Lines) -> Iterator[list[str]]:
        """Read lines into rows as they come; a damaged one raises :class:`csv.Error`, and reading can go on."""
        return csv.reader(lines, **self._how)

    def header(self, block: TextBlock, preamble: int, rows: int) -> tuple[list[list[str]], str]:
        """Pass ``preamble`` lines over, read ``rows`` rows; return them and the text behind them.

        A row that cannot be read is an empty list, one that is not there is left out.
        """
        lines = Lines(split_lines(block.text)[preamble:])
        reader = self.over(lines)
        header = []
        for _ in range(rows):
            lines.start = lines.place
            try:
                header.append(next(reader))
            except csv.Error:
                header.append([])
            except StopIteration:
                break
        return header, "".join(lines.lines[lines.place :])

    def rows(self, blocks: Iterator[TextBlock], widths: frozenset[int]) -> Iterator[RawRows]:
        """Read the blocks; a row longer than a line is taken as damage unless it has one of ``widths`` cells."""
        ahead, unreadable = "", False
        for block in blocks:
            text, unreadable = ahead + block.text, block.unreadable or (bool(ahead) and unreadable)
            ahead = ""
            found = RawRows(unreadable=unreadable)
            if not self._whole(text, found):
                ahead = self._careful(text, widths, block.last or block.cut, found)
            if block.cut:
                found.spoil("a line too long")
            yield found

    def _whole(self, text: str, found: RawRows) -> bool:
        """Read all at once where every row is one line and none is damaged, as nearly always."""
        if (self._quote is None or self._quote not in text) and len(text) < csv.field_size_limit():
            plain = text.replace("\r\n", "\n")
            if "\r" not in plain:
                # Without quotes there is nothing to be read but lines and delimiters.
                lines = plain.removesuffix("\n").split("\n") if plain else []
                found.rows = [line.split(self._delimiter) for line in lines]
                return True
        reader = csv.reader(io.StringIO(text, newline=""), **self._how)
        try:
            rows = list(reader)
        except csv.Error:
            return False
        if reader.line_num != len(rows):
            return False
        found.rows = rows
        return True

    def _careful(self, text: str, widths: frozenset[int], last: bool, found: RawRows) -> str:
        """Read row by row; return the text of a row that may go on in the next block."""
        lines = Lines(split_lines(text))
        reader = self.over(lines)
        while lines.place < len(lines.lines):
            start = lines.start = lines.place
            try:
                cells = next(reader)
            except csv.Error as error:
                if not last and str(error) == _UNCLOSED and lines.place - start < MOST_LINES:
                    return "".join(lines.lines[start:])
                lines.place = start + 1
                found.spoil(_what(error))
                continue
            if lines.place - start > 1 and self._swallowed(lines.lines[start + 1 : lines.place], cells, widths):
                lines.place = start + 1
                found.spoil("unbalanced quotes")
            else:
                found.rows.append(cells)
        return ""

    def _swallowed(self, lines: list[str], cells: list[str], widths: frozenset[int]) -> bool:
        """Tell whether a row over several lines is in truth a forgotten quote that a later row's quote closed.

        It is where its cells are not as many as columns, or where a line inside it would be a whole row by itself. In
        a table of two columns a comma in a text is too common for that.
        """
        if len(cells) not in widths:
            return True
        return min(widths) > 2 and any(
            len(row) in widths for row in csv.reader(lines[:-1], **{**self._how, "strict": False})
        )


def _what(error: csv.Error) -> str:
    return "a cell too long" if "field larger" in str(error) else "unbalanced quotes"
