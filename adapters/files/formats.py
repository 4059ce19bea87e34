"""Decides what a file is as a table: its format as the manifest agrees it, its header, and its rows or their rejects.

Rows are numbered from 1, the first behind the header. A row without any value is passed over and keeps its number.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast
from zipfile import ZipFile, ZipInfo

from adapters.files.archive import open_archive
from adapters.files.delimited import CsvReader, RawRows
from adapters.files.errors import WrongFile
from adapters.files.fixed import FixedReader
from adapters.files.lines import Opener, TextBlock, encoding_of, text_blocks, unreadable
from adapters.files.spreadsheet import sheet_as_csv
from adapters.masking import shape
from adapters.models import RejectedRow
from schemas.text import _


@dataclass(frozen=True, slots=True)
class Format:
    """What the manifest agrees about a file (``schemas/manifest.schema.json``, ``$defs/fileRequest``)."""

    kind: Literal["csv", "fixed", "xlsx"] = "csv"
    encoding: str | None = None
    delimiter: str = ","
    quote: str | None = '"'
    trailing_delimiter: bool = False
    preamble_rows: int = 0
    header_rows: int = 1
    header: tuple[str, ...] = ()
    columns: frozenset[str] = frozenset()
    widths: tuple[int, ...] = ()
    sheet: str | None = None
    zipped: bool = False
    checksum: Literal["md5", "sha256"] | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a table in order: as many numbers as rows, each row with as many cells as the header has names.

    ``last`` is the number of the last row it covers, be it rejected or without any value.
    """

    header: tuple[str, ...]
    numbers: Sequence[int]
    rows: Sequence[Sequence[str]]
    rejects: Sequence[RejectedRow]
    last: int

    def after(self, number: int) -> Block:
        """Return what lies behind a row's number."""
        first = bisect_right(self.numbers, number)
        rejects = [reject for reject in self.rejects if reject.row > number]
        return Block(self.header, self.numbers[first:], self.rows[first:], rejects, self.last)


def compile_format(request: Mapping[str, Any]) -> Format:
    """Read the file options of a manifest's request; raise ValueError for what its schema cannot see."""
    kind = request.get("format", "csv")
    widths = request.get("widths", ())
    names = tuple(column["name"] for column in widths) or tuple(request.get("header", ()))
    header_rows = request.get("header_rows", 0 if names else 1)
    if not names and not header_rows:
        raise ValueError(_("sin cabecera hacen falta los nombres (header)"))
    if len(set(names)) != len(names):
        raise ValueError(_("dos columnas con un mismo nombre"))
    if names and not set(request.get("columns", ())) <= set(names):
        raise ValueError(_("columns nombra una columna que no está"))
    if (kind == "fixed") != bool(widths):
        raise ValueError(_("widths es para format: fixed"))
    quote = request.get("quote", '"')
    return Format(
        kind=kind,
        encoding=request.get("encoding"),
        delimiter=request.get("delimiter", ","),
        quote=None if quote == "none" else quote,
        trailing_delimiter=request.get("trailing_delimiter", False),
        preamble_rows=request.get("preamble_rows", 0),
        header_rows=header_rows,
        header=names,
        columns=frozenset(request.get("columns", ())),
        widths=tuple(column["width"] for column in widths),
        sheet=request.get("sheet"),
        zipped=request.get("zip", False),
        checksum=request.get("checksum"),
    )


def read_blocks(source: Path | bytes, format: Format, after: int = 0) -> Iterator[Block]:
    """Give the rows behind number ``after`` in blocks; memory does not grow with the file, XLSX apart.

    The files of an archive follow each other by name, and their rows are numbered through.
    Raises :class:`~adapters.files.errors.WrongFile` where the file as a whole is not what was agreed; a row that is
    not is among the rejects.
    """
    for block in _archived(source, format) if format.zipped else read_table(_opener(source), format):
        if block.last > after:
            yield block.after(after) if after else block


def _opener(source: Path | bytes) -> Opener:
    if isinstance(source, bytes):
        return lambda: io.BytesIO(source)
    return lambda: source.open("rb")


def _archived(source: Path | bytes, format: Format) -> Iterator[Block]:
    before = 0
    with _opener(source)() as file:
        archive, members = open_archive(file)
        with archive:
            for member in sorted(members, key=lambda item: item.filename):
                for block in read_table(partial(_open_member, archive, member), format, before):
                    before = block.last
                    yield block


def _open_member(archive: ZipFile, member: ZipInfo) -> BinaryIO:
    return cast(BinaryIO, archive.open(member))


def read_table(open_file: Opener, format: Format, before: int = 0) -> Iterator[Block]:
    """Give the rows of one file that is no archive; the first has the number behind ``before``."""
    if format.kind == "xlsx":
        with open_file() as file:
            sheet = sheet_as_csv(file, format.sheet, format.preamble_rows)
        format = replace(format, encoding="utf-8", delimiter=",", quote='"', preamble_rows=0)
        # With the encoding known it is opened once.
        open_file = lambda: sheet  # noqa: E731
    header, raws = _open_fixed(open_file, format) if format.kind == "fixed" else _open_csv(open_file, format)
    _check_header(header, format)
    for raw in raws:
        block = _screen(raw, header, before + 1, format.trailing_delimiter)
        before = block.last
        yield block


def _open_fixed(open_file: Opener, format: Format) -> tuple[tuple[str, ...], Iterator[RawRows]]:
    first, blocks = _first(open_file, format)
    skip = format.preamble_rows + format.header_rows
    return format.header, FixedReader(format.widths).rows(chain([first], blocks), skip)


def _open_csv(open_file: Opener, format: Format) -> tuple[tuple[str, ...], Iterator[RawRows]]:
    first, blocks = _first(open_file, format)
    reader = CsvReader(format.delimiter, format.quote)
    found, rest = reader.header(first, format.preamble_rows, format.header_rows)
    if len(found) < format.header_rows:
        raise WrongFile("without its header")
    header = format.header or _joined(found, format.trailing_delimiter)
    widths = frozenset({len(header), len(header) + format.trailing_delimiter})
    return header, reader.rows(chain([replace(first, text=rest)], blocks), widths)


def _first(open_file: Opener, format: Format) -> tuple[TextBlock, Iterator[TextBlock]]:
    blocks = text_blocks(open_file, format.encoding or encoding_of(open_file))
    first = next(blocks)
    if first.last and not first.text.strip():
        raise WrongFile("the file is empty")
    return first, blocks


def _joined(rows: list[list[str]], trailing_delimiter: bool) -> tuple[str, ...]:
    """Join the lines of a header, column by column, all white space made one blank."""
    width = max(map(len, rows))
    columns = zip(*(row + [""] * (width - len(row)) for row in rows), strict=True)
    names = [" ".join(" ".join(column).split()) for column in columns]
    if trailing_delimiter and names and not names[-1]:
        names.pop()
    return tuple(names)


def _check_header(header: Sequence[str], format: Format) -> None:
    if any(unreadable(name) for name in header):
        raise WrongFile("the header is not in the encoding agreed")
    # Columns without a name cannot be asked for, so any number of them does no harm.
    named = [name for name in header if name]
    if not named:
        raise WrongFile("without its header")
    if len(set(named)) != len(named):
        raise WrongFile("the header names a column twice")
    missing = sorted(format.columns - set(named))
    if missing:
        raise WrongFile(f"the header lacks {missing[0]}")


def _screen(raw: RawRows, header: tuple[str, ...], first: int, trailing_delimiter: bool) -> Block:
    """Number the rows, and take out those that are none."""
    rows, width, last = raw.rows, len(header), first + len(raw.rows) - 1
    numbers = range(first, last + 1)
    if trailing_delimiter:
        for cells in rows:
            if len(cells) == width + 1 and not cells[-1]:
                cells.pop()
    out: dict[int, RejectedRow | None] = {}
    counts = list(map(len, rows))
    if counts.count(width) != len(rows):
        for place, count in enumerate(counts):
            if count != width:
                out[place] = RejectedRow(numbers[place], "", f"{count} columns, not {width}")
    if not all(map(any, rows)):
        out.update((place, None) for place, some in enumerate(map(any, rows)) if not some)
    out.update((place, RejectedRow(numbers[place], "", what)) for place, what in raw.damaged.items())
    if raw.unreadable:
        for place, cells in enumerate(rows):
            if place not in out and any(map(unreadable, cells)):
                column, cell = next((name, cell) for name, cell in zip(header, cells, strict=True) if unreadable(cell))
                out[place] = RejectedRow(numbers[place], column, "not in the encoding agreed", shape(cell))
    if not out:
        return Block(header, numbers, rows, (), last)
    kept = [place for place in range(len(rows)) if place not in out]
    rejects = [reject for _place, reject in sorted(out.items(), key=itemgetter(0)) if reject is not None]
    return Block(header, [numbers[place] for place in kept], [rows[place] for place in kept], rejects, last)
