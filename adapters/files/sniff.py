"""Shows an engineer what a file is as a table, before there is a manifest for it, or says why it is none."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson
import yaml

from adapters.files.archive import open_archive
from adapters.files.errors import WrongFile
from adapters.files.formats import Block, Format, read_table
from adapters.files.guess import DELIMITERS, column_kind, guess, misfit
from adapters.files.lines import Opener, encoding_of, text_blocks
from adapters.files.spreadsheet import sheet_as_csv
from adapters.files.wording import say
from schemas.text import _

_MOST_PROBLEMS = 20
_SAMPLE_ROWS = 2000
_HEAD = 64 * 1024
_ZIP = b"PK\x03\x04"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MARKUP = re.compile(rb"<[?!A-Za-z]")
_MARKS = {None: "—", "\t": "TAB"}
_NO_TABLES = (
    (b"%PDF", "a PDF, not a table"),
    (b"\x1f\x8b", "compressed by gzip, not as a ZIP"),
    (b"\xd0\xcf\x11\xe0", "an Excel file older than XLSX"),
    (b"PK\x05\x06", "no file in the archive"),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row (0: with the file), by the column's name in the file, and the rule it breaks."""

    row: int
    column: str
    what: str


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What a file seems to be. ``format`` reads it; without one it cannot be used, and the first problem says why."""

    encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    header_rows: int = 0
    preamble_rows: int = 0
    columns: tuple[tuple[str, str], ...] = ()
    rows: int = 0
    problems: tuple[Problem, ...] = ()
    format: Format | None = None
    members: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return what ``siis adapter sniff --json`` prints."""
        return {
            "encoding": self.encoding,
            "delimiter": self.delimiter,
            "quote": self.quote,
            "header_rows": self.header_rows,
            "preamble_rows": self.preamble_rows,
            "columns": [{"name": name, "type": kind} for name, kind in self.columns],
            "rows": self.rows,
            "problems": [{"row": item.row, "column": item.column, "what": item.what} for item in self.problems],
        }


def sniff(path: Path) -> Sniffed:
    """Look at a file; whatever it is, the answer is a result, or a problem of row 0 that names what it is instead."""
    try:
        with path.open("rb") as file:
            if file.read(len(_ZIP)) != _ZIP:
                return _plain(lambda: path.open("rb"), Format())
            return _archive(file)
    except WrongFile as error:
        return Sniffed(problems=(Problem(0, "", str(error)),))
    except OSError:
        return Sniffed(problems=(Problem(0, "", "the file cannot be opened"),))


def _archive(file: BinaryIO) -> Sniffed:
    archive, members = open_archive(file)
    with archive:
        names = {member.filename for member in members}
        if "[Content_Types].xml" not in names:
            first = min(members, key=lambda member: member.filename)
            found = _plain(lambda: cast(BinaryIO, archive.open(first)), Format(zipped=True))
            return replace(found, members=len(members))
    if not any(name.startswith("xl/") for name in names):
        raise WrongFile("not an XLSX file")
    with sheet_as_csv(file, None, 0) as sheet:
        return _text(partial(_again, sheet), Format(kind="xlsx", encoding="utf-8"), [","])


def _again(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return cast(BinaryIO, io.FileIO(file.fileno(), closefd=False))


def _plain(open_file: Opener, format: Format) -> Sniffed:
    """Look at what is no archive: by its first bytes, then as text."""
    with open_file() as file:
        head = file.read(_HEAD)
        rest_is_short = not file.read(1)
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    for mark, what in _NO_TABLES:
        if head.startswith(mark):
            raise WrongFile(what)
    if _MARKUP.match(start):
        raise WrongFile("XML or HTML, not a table")
    if start[:1] in (b"[", b"{") and rest_is_short and _is_json(start):
        raise WrongFile("JSON, not a table")
    if not head.startswith(_UTF16) and head.count(0) > len(head) // 1000:
        raise WrongFile("not a text")
    found = _text(open_file, format, DELIMITERS)
    return replace(found, encoding="utf-8-sig") if head.startswith(codecs.BOM_UTF8) else found


def _is_json(content: bytes) -> bool:
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError:
        return False
    return True


def _text(open_file: Opener, format: Format, delimiters: Sequence[str]) -> Sniffed:
    encoding = format.encoding or encoding_of(open_file)
    blocks = text_blocks(open_file, encoding)
    first = next(blocks)
    blocks.close()
    if first.cut:
        raise WrongFile("a line too long")
    seen = guess(first.text, delimiters)
    if seen is None:
        raise WrongFile("the file is empty")
    names = () if seen.header_rows else tuple(f"columna_{place}" for place in range(1, seen.width + 1))
    as_csv = Format(
        encoding=encoding,
        delimiter=seen.delimiter or next((mark for mark in DELIMITERS if mark not in first.text), "\x1f"),
        quote=seen.quote,
        trailing_delimiter=seen.trailing_delimiter,
        preamble_rows=seen.preamble_lines,
        header_rows=seen.header_rows,
        header=names,
    )
    spreadsheet = format.kind == "xlsx"
    found = Sniffed(
        encoding=None if spreadsheet else encoding,
        delimiter=None if spreadsheet else seen.delimiter,
        quote=None if spreadsheet else seen.quote,
        header_rows=seen.header_rows,
        preamble_rows=seen.preamble_rows if spreadsheet else seen.preamble_lines,
    )
    try:
        found = _counted(found, read_table(open_file, as_csv))
    except WrongFile as error:
        return replace(found, problems=(Problem(0, "", str(error)),))
    return replace(
        found, format=replace(as_csv, kind=format.kind, zipped=format.zipped, preamble_rows=found.preamble_rows)
    )


def _counted(found: Sniffed, blocks: Iterator[Block]) -> Sniffed:
    """Read the table to its end: types from the first rows, problems until there are enough, all rows counted."""
    rows = 0
    header: tuple[str, ...] = ()
    sample: list[tuple[int, Sequence[str]]] = []
    problems: list[Problem] = []
    for block in blocks:
        header = block.header
        rows += len(block.rows) + len(block.rejects)
        problems += [Problem(reject.row, reject.column, reject.what) for reject in block.rejects[:_MOST_PROBLEMS]]
        if len(sample) < _SAMPLE_ROWS:
            sample += zip(block.numbers, block.rows, strict=True)
    kinds = [column_kind(name, [cells[place] for _row, cells in sample]) for place, name in enumerate(header)]
    problems += [
        Problem(row, name, f"not of the type {kind}")
        for row, cells in sample
        for name, kind, cell in zip(header, kinds, cells, strict=True)
        if misfit(kind, cell)
    ]
    problems.sort(key=lambda problem: problem.row)
    columns = tuple(zip(header, kinds, strict=True))
    return replace(found, columns=columns, rows=rows, problems=tuple(problems[:_MOST_PROBLEMS]))


def request_block(found: Sniffed) -> str:
    """Write the ``request`` of a manifest that reads such files."""
    format = found.format
    if format is None:
        return ""
    request: dict[str, Any] = {"folder": "/salida"}
    if format.kind == "xlsx":
        request["format"] = "xlsx"
    else:
        request["encoding"] = format.encoding
        if format.delimiter in DELIMITERS:
            request["delimiter"] = format.delimiter
        if format.quote != '"':
            request["quote"] = format.quote or "none"
    options = {
        "trailing_delimiter": format.trailing_delimiter,
        "zip": format.zipped,
        "preamble_rows": format.preamble_rows,
        "header_rows": 0 if format.header_rows == 1 else format.header_rows,
    }
    request |= {name: value for name, value in options.items() if value}
    names = [name for name, _kind in found.columns if name]
    request["columns" if format.header_rows else "header"] = names
    return yaml.safe_dump({"request": request}, allow_unicode=True, sort_keys=False, default_flow_style=None, width=110)


def describe(file: Path, found: Sniffed) -> Iterator[str]:
    """Say in words what was found, line by line, and the request for a manifest at the end; no value of any row."""
    if found.format is None:
        yield from (f"{file}: {say(problem.what)}" for problem in found.problems)
        return
    yield _("{file}: {kind}, {n} filas, {m} columnas").format(
        file=file, kind=found.format.kind.upper(), n=found.rows, m=len(found.columns)
    )
    if found.format.zipped:
        yield _("Archivos en el ZIP: {n}; se muestra el primero.").format(n=found.members)
    if found.encoding is not None:
        yield _("Codificación: {name}").format(name=found.encoding)
        yield _("Delimitador: {mark}; comillas: {quote}").format(
            mark=_MARKS.get(found.delimiter, found.delimiter), quote=found.quote or _("ninguna")
        )
    yield _("Filas antes de la cabecera: {n}; de cabecera: {m}").format(n=found.preamble_rows, m=found.header_rows)
    yield _("Columnas:")
    yield from (f"  {name or '—'}: {kind}" for name, kind in found.columns)
    if found.problems:
        yield _("Primeros problemas (la fila 1 es la que sigue a la cabecera):")
        for problem in found.problems:
            where = _("fila {n}").format(n=problem.row) + (f", {problem.column}" if problem.column else "")
            yield f"  {where}: {say(problem.what)}"
    yield _("Para el manifiesto:")
    yield from request_block(found).splitlines()
