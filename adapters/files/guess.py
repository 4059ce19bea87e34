"""Guesses how a table was written from its beginning: delimiter, quote, preamble, header and types of the columns.

A guess is shown to an engineer, who writes it into a manifest; nothing is ever read by it alone.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from adapters.converters import CONVERTERS, Unfit
from adapters.files.delimited import CsvReader, Lines, split_lines

#: What a manifest may name.
DELIMITERS = (",", ";", "\t", "|")
_MOST_RECORDS = 1000
_MOST_HEADER_ROWS = 3
_TOLERATED = 0.05
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_DAY = re.compile(r"(?:19|20)[0-9]{6}\Z|[0-9]{4}/")
_IDENTITY = re.compile(r"c[eé]dula|documento|\bc\.?i\.?\b|(?:\b|_)nro_?(?:cic|doc)|(?:\b|_)ci(?:\b|_)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the sample: its place among the rows, the line it begins at, its cells."""

    place: int
    line: int
    cells: list[str]

    @property
    def filled(self) -> int:
        """How many cells hold something."""
        return sum(map(bool, self.cells))


@dataclass(frozen=True, slots=True)
class Guess:
    """How a table seems to be written. ``delimiter`` is ``None`` for a table of one column."""

    delimiter: str | None
    quote: str | None
    trailing_delimiter: bool
    preamble_lines: int
    preamble_rows: int
    header_rows: int
    width: int


def guess(text: str, delimiters: Sequence[str] = DELIMITERS) -> Guess | None:
    """Guess from whole lines; ``None`` where there is not one row."""
    found = [_written(text, delimiter, quote) for delimiter in delimiters for quote in _quotes(text, delimiter)]
    tables = [item for item in found if item.score > 0]
    if not tables:
        return _one_column(text)
    best = max(tables, key=lambda item: item.score)
    return _with_header(best)


@dataclass(frozen=True, slots=True)
class _Written:
    delimiter: str | None
    quote: str | None
    trailing: bool
    width: int
    records: list[Record]
    score: float


def _quotes(text: str, delimiter: str) -> tuple[str | None, ...]:
    if '"' in text:
        return ('"', None)
    single = re.compile(rf"(?:^|{re.escape(delimiter)})'[^'\n]*'(?:{re.escape(delimiter)}|$)", re.MULTILINE)
    return ("'", '"') if single.search(text) else ('"',)


def _written(text: str, delimiter: str, quote: str | None) -> _Written:
    """Read the text one way; the score is the share of rows of the usual width, 0 where that is no table."""
    records, damaged = _records(text, delimiter, quote)
    rows = [record for record in records if record.filled]
    counts = Counter(len(record.cells) for record in rows)
    if not counts:
        return _Written(delimiter, quote, False, 0, [], 0)
    width = counts.most_common(1)[0][0]
    trailing = _trails(rows, width)
    usual = counts[width]
    if trailing:
        usual += counts[width - 1]
        width -= 1
    share = usual / (len(rows) + damaged)
    several = sum(len(record.cells) > 1 for record in rows) == len(rows) + damaged
    # Ordinary quotes win over none where both read as much, and more columns over fewer.
    score = share + min(width, 100) / 1e4 + (1e-6 if quote else 0) if width > 1 and (share >= 0.5 or several) else 0
    return _Written(delimiter, quote, trailing, width, rows, score)


def _records(text: str, delimiter: str, quote: str | None) -> tuple[list[Record], int]:
    lines = Lines(split_lines(text))
    reader = CsvReader(delimiter, quote).over(lines)
    records: list[Record] = []
    damaged = 0
    while lines.place < len(lines.lines) and len(records) + damaged < _MOST_RECORDS:
        start = lines.start = lines.place
        try:
            records.append(Record(len(records) + damaged, start, next(reader)))
        except csv.Error:
            lines.place = start + 1
            damaged += 1
    return records, damaged


def _trails(rows: Sequence[Record], width: int) -> bool:
    """Tell whether the rows end in a delimiter too many: all of them, under a header that has one less or no name."""
    if width < 3:
        return False
    first, *others = [record.cells for record in rows if len(record.cells) in (width - 1, width)]
    ends = [not cells[-1] for cells in others if len(cells) == width]
    return bool(ends) and all(ends) and (len(first) == width - 1 or not first[-1])


def _one_column(text: str) -> Guess | None:
    records = [Record(place, place, [line.strip()]) for place, line in enumerate(split_lines(text)[:_MOST_RECORDS])]
    rows = [record for record in records if record.filled]
    quoted = all(re.fullmatch(r'"[^"]*"', record.cells[0]) for record in rows)
    return _with_header(_Written(None, '"' if quoted else None, False, 1, rows, 0)) if rows else None


def _with_header(written: _Written) -> Guess:
    width, rows = written.width, written.records
    half = (width + 1) // 2
    start = next(
        (
            place
            for place, record in enumerate(rows)
            if record.filled >= (half if len(record.cells) == width else max(2, half))
        ),
        0,
    )
    cells = [record.cells[:width] for record in rows[start:]]
    return Guess(
        delimiter=written.delimiter,
        quote=written.quote,
        trailing_delimiter=written.trailing,
        preamble_lines=rows[start].line,
        preamble_rows=rows[start].place,
        header_rows=_header_rows(cells, width),
        width=width,
    )


def _header_rows(rows: Sequence[Sequence[str]], width: int) -> int:
    """Count the rows that do not look like those below them."""
    body = [row for row in rows[1:] if len(row) == width]
    if not body:
        return 1 if all(kind_of([cell]) in ("text", "empty") for cell in rows[0]) else 0
    kinds = [kind_of(row[column] for row in body) for column in range(width)]
    unlike, like = _compare(rows[0], kinds)
    if like > unlike:
        return 0
    count = 1
    while count < min(_MOST_HEADER_ROWS, len(rows) - 3) and unlike >= 2:
        kinds = [kind_of(row[column] for row in body[count:]) for column in range(width)]
        unlike, like = _compare(rows[count], kinds)
        if like or unlike < 2:
            break
        count += 1
    return count


def _compare(row: Sequence[str], kinds: Sequence[str]) -> tuple[int, int]:
    """Count the cells that are not of their column's type, and those that are, where that type says something."""
    told = [(cell, kind) for cell, kind in zip(row, kinds, strict=False) if cell and kind not in ("text", "empty")]
    like = sum(_fits(kind, cell) for cell, kind in told)
    return len(told) - like, like


def _convertible(name: str) -> Callable[[str], bool]:
    convert = CONVERTERS[name]

    def fits(cell: str) -> bool:
        try:
            convert(cell)
        except Unfit:
            return False
        return True

    return fits


#: Types in the order they are tried; each but the first three is the name of the converter that reads it.
_KINDS: dict[str, Callable[[str], bool]] = {
    "boolean": lambda cell: cell.lower() in {"si", "sí", "no", "true", "false"},
    "date-ymd": lambda cell: _DAY.match(cell) is not None and _convertible("date-ymd")(cell),
    "integer": lambda cell: _WHOLE.match(cell) is not None,
    "date": _convertible("date10"),
    **{
        name: _convertible(name)
        for name in (
            "decimal", "thousand-dots", "decimal-comma", "date-dmy", "date-dmy-loose", "month-year", "mobile", "ruc",
            "uuid", "email",
        )
    },
}  # fmt: skip


def _fits(kind: str, cell: str) -> bool:
    return _KINDS[kind](cell.strip())


def kind_of(cells: Iterable[str]) -> str:
    """Return the first type that nearly every cell has that holds something; ``text`` where none does."""
    filled = [stripped for cell in cells if (stripped := cell.strip())]
    if not filled:
        return "empty"
    for kind, fits in _KINDS.items():
        # Several dots can only stand for thousands; a lone one is taken for the decimal point.
        if kind == "decimal" and any(cell.count(".") > 1 for cell in filled):
            continue
        # Zeros in front belong to a code, not to a number.
        if kind in ("decimal", "thousand-dots", "decimal-comma") and any(_coded(cell) for cell in filled):
            continue
        most = int(len(filled) * _TOLERATED)
        if not _more_than(most, (not fits(cell) for cell in filled)):
            return kind
    return "text"


def column_kind(name: str, cells: Sequence[str]) -> str:
    """Return the type of a column; what could be a cédula is one where the column's name says so."""
    kind = kind_of(cells)
    if kind == "integer" and _IDENTITY.search(name) and not any(cell.strip().startswith("-") for cell in cells):
        return "cedula"
    return kind


def misfit(kind: str, cell: str) -> bool:
    """Tell whether a cell is not of its column's type."""
    if not cell.strip() or kind in ("text", "empty"):
        return False
    return not _fits("integer" if kind == "cedula" else kind, cell)


def _coded(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == "0" and cell[1].isdigit()


def _more_than(most: int, bad: Iterable[bool]) -> bool:
    seen = 0
    for is_bad in bad:
        seen += is_bad
        if seen > most:
            return True
    return False
