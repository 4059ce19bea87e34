"""A recorded file as rows of cells, and how it is spoilt; written as the manifest's request has its files."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.sax.saxutils import escape

from adapters.conformance.documents import EXTRA

_CONTENT_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/xl/workbook.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
    '<Override PartName="/xl/worksheets/sheet1.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>'
)
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_SHEETML = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


@dataclass(frozen=True, slots=True)
class Table:
    """The first file of an example: lines before the header, lines of the header, rows; and the files beside it."""

    request: Mapping[str, Any]
    name: str
    preamble: tuple[str, ...]
    header: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, ...], ...]
    member: str = ""
    others: tuple[tuple[str, Any], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns."""
        if named := [item["name"] for item in self.request.get("widths", ())] or self.request.get("header"):
            return tuple(named)
        return tuple(" ".join(" ".join(lines).split()) for lines in zip(*self.header, strict=True))

    @property
    def by_place(self) -> bool:
        """Whether columns are known by their place, not by a name in the file."""
        return "widths" in self.request or "header" in self.request

    def extra(self) -> Table:
        """Add a column."""
        header = tuple((*line, EXTRA if line is self.header[-1] else "") for line in self.header)
        return replace(self, header=header, rows=tuple((*row, "x") for row in self.rows))

    def reordered(self) -> Table:
        """Put the first column behind the last one."""
        turn = lambda row: (*row[1:], *row[:1])  # noqa: E731
        return replace(self, header=tuple(map(turn, self.header)), rows=tuple(map(turn, self.rows)))

    def without(self, names: Collection[str]) -> Table | None:
        """Take columns out."""
        places = [place for place, name in enumerate(self.columns) if name not in names]
        if len(places) == len(self.columns):
            return None
        keep = lambda row: tuple(row[place] for place in places)  # noqa: E731
        return replace(self, header=tuple(map(keep, self.header)), rows=tuple(map(keep, self.rows)))

    def replaced(self, names: Collection[str], value: str) -> Table | None:
        """Put a value into columns, in every row."""
        if not set(names) & set(self.columns):
            return None
        put = lambda row: tuple(  # noqa: E731
            value if name in names else cell for name, cell in zip(self.columns, row, strict=True)
        )
        return replace(self, rows=tuple(map(put, self.rows)))

    def damaged(self, place: int) -> Table:
        """Put a NUL, which no text has, into a row."""
        row = self.rows[place]
        return self._with(place, ("\0" + row[0][1:], *row[1:]))

    def short(self, place: int) -> Table:
        """Take all cells of a row away but the first."""
        return self._with(place, self.rows[place][:1])

    def _with(self, place: int, row: tuple[str, ...]) -> Table:
        return replace(self, rows=(*self.rows[:place], row, *self.rows[place + 1 :]))

    def files(self, encoding: str | None = None, change: Callable[[bytes], bytes] | None = None) -> dict[str, bytes]:
        """Write the file, in another encoding or with its bytes changed, with its side file and those beside it."""
        content = self._written(encoding)
        content = content if change is None else change(content)
        found = {self.name: self._packed(content), **dict(files_of(dict(self.others), self.request))}
        return {**found, **_sums(found, self.request)}

    def _written(self, encoding: str | None) -> bytes:
        if self.request.get("format") == "xlsx":
            return _workbook([*[(line,) for line in self.preamble], *self.header, *self.rows])
        if widths := self.request.get("widths"):
            lines = ["".join(_fitted(cell, item["width"]) for cell, item in zip(row, widths)) for row in self.rows]  # noqa: B905
            lines = [*self.preamble, *("".join(line) for line in self.header), *lines]
            text = "\r\n".join(lines) + "\r\n"
        else:
            text = self._delimited()
        return text.encode(encoding or self.request.get("encoding", "utf-8"))

    def _delimited(self) -> str:
        output = io.StringIO(newline="")
        output.writelines(f"{line}\r\n" for line in self.preamble)
        delimiter = self.request.get("delimiter", ",")
        if self.request.get("quote") == "none":
            tail = delimiter if self.request.get("trailing_delimiter") else ""
            output.writelines(delimiter.join(row) + tail + "\r\n" for row in (*self.header, *self.rows))
            return output.getvalue()
        writer = csv.writer(output, delimiter=delimiter, quotechar=self.request.get("quote", '"'))
        tail_cells = [""] if self.request.get("trailing_delimiter") else []
        writer.writerows([*row, *tail_cells] for row in (*self.header, *self.rows))
        return output.getvalue()

    def _packed(self, content: bytes) -> bytes:
        return _archive({self.member: content}) if self.member else content


def table_of(files: Mapping[str, Any], request: Mapping[str, Any]) -> Table:
    """Read the first file of an example as the request says its files are."""
    (name, content), *others = files.items()
    rows: list[tuple[str, ...]]
    member = ""
    if isinstance(content, Mapping):
        member, content = next(iter(content.items()))
    before, headed = request.get("preamble_rows", 0), _header_rows(request)
    if not isinstance(content, str):
        rows = [tuple("" if cell is None else str(cell) for cell in row) for row in content]
        preamble = tuple(row[0] if row else "" for row in rows[:before])
    else:
        lines = content.splitlines()
        preamble = tuple(lines[:before])
        rows = [*(() for _line in preamble), *map(tuple, _cells(lines[before:], request))]
    header, body = rows[before : before + headed], rows[before + headed :]
    return Table(request, name, preamble, tuple(header), tuple(body), member, tuple(others))


def files_of(files: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, bytes]:
    """Write the files of an example as they are."""
    encoding = request.get("encoding", "utf-8")
    found = {}
    for name, content in files.items():
        if isinstance(content, str):
            found[name] = content.encode(encoding)
        elif isinstance(content, Mapping):
            found[name] = _archive({member: text.encode(encoding) for member, text in content.items()})
        else:
            found[name] = _workbook(content)
    return {**found, **_sums(found, request)}


def _header_rows(request: Mapping[str, Any]) -> int:
    named = "widths" in request or "header" in request
    return int(request.get("header_rows", 0 if named else 1))


def _cells(lines: Sequence[str], request: Mapping[str, Any]) -> list[list[str]]:
    if widths := request.get("widths"):
        ends = [sum(item["width"] for item in widths[: place + 1]) for place in range(len(widths))]
        starts = [0, *ends]
        return [[line[start:end] for start, end in zip(starts, ends, strict=False)] for line in lines if line.strip()]
    delimiter, quote = request.get("delimiter", ","), request.get("quote", '"')
    if quote == "none":
        rows = [line.split(delimiter) for line in lines if line]
    else:
        rows = [row for row in csv.reader(lines, delimiter=delimiter, quotechar=quote) if row]
    return [row[:-1] if request.get("trailing_delimiter") and not row[-1] else row for row in rows]


def _fitted(cell: str, width: int) -> str:
    return cell[:width].ljust(width)


def _sums(files: Mapping[str, bytes], request: Mapping[str, Any]) -> dict[str, bytes]:
    kind = request.get("checksum")
    if kind is None:
        return {}
    return {
        f"{name}.{kind}": f"{hashlib.new(kind, content, usedforsecurity=False).hexdigest()}  {name}\n".encode()
        for name, content in files.items()
    }


def _archive(members: Mapping[str, bytes]) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return output.getvalue()


def _workbook(rows: Sequence[Sequence[Any]]) -> bytes:
    """Write an XLSX file (ECMA-376) with one sheet: numbers as such, everything else as text."""

    def cell(value: Any) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f"<c><v>{value}</v></c>"
        text = "" if value is None else escape(str(value))
        return f'<c t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'

    lines = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    sheet = f'<worksheet xmlns="{_SHEETML}"><sheetData>{lines}</sheetData></worksheet>'
    book = (
        f'<workbook xmlns="{_SHEETML}" xmlns:r="{_OFFICE}"><sheets>'
        '<sheet name="Hoja1" sheetId="1" r:id="rId1"/></sheets></workbook>'
    )
    return _archive(
        {
            "[Content_Types].xml": _CONTENT_TYPES.encode(),
            "_rels/.rels": _relation("officeDocument", "xl/workbook.xml"),
            "xl/workbook.xml": book.encode(),
            "xl/_rels/workbook.xml.rels": _relation("worksheet", "worksheets/sheet1.xml"),
            "xl/worksheets/sheet1.xml": sheet.encode(),
        }
    )


def _relation(kind: str, target: str) -> bytes:
    item = f'<Relationship Id="rId1" Type="{_OFFICE}/{kind}" Target="{target}"/>'
    return f'<Relationships xmlns="{_PACKAGE}">{item}</Relationships>'.encode()
