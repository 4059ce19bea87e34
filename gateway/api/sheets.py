"""Writes rows as the table that was asked for: CSV or XLSX, every cell a text that no spreadsheet runs."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import xlsxwriter  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import Response

from adapters.files.writing import neutral
from gateway import errors

Form = Literal["json", "csv", "xlsx"]
FORMS: tuple[Form, ...] = ("json", "csv", "xlsx")

_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
# Excel in Paraguay takes a file without this mark for another encoding (Unicode 23.8).
_MARK = "\ufeff"
# Of Microsoft's "Excel specifications and limits": characters of a cell.
_CELL = 32_000
# What no cell may hold: control characters, what XML 1.0 does not allow, and what Excel reads as an escaped character.
_CONTROL = re.compile("[\x00-\x1f\x7f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")


def form_of(request: Request) -> Form:
    """Return the form that ``?format=`` asks for, JSON without it; raises BadRequest for another."""
    asked = request.query_params.get("format", "json")
    for form in FORMS:
        if asked == form:
            return form
    raise errors.BadRequest("unknown-code", pointer="/format", allowed=FORMS)


async def sheet(
    form: Literal["csv", "xlsx"],
    name: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    headers: Mapping[str, str],
) -> Response:
    """Build the answer with a table to keep; ``name`` is the file's, without its ending."""
    content = await asyncio.to_thread(written, form, columns, rows)
    disposition = {"Content-Disposition": f'attachment; filename="{name}.{form}"', "Cache-Control": "no-store"}
    return Response(content, 200, {**disposition, **headers}, _TYPES[form])


def written(form: Literal["csv", "xlsx"], columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a table as a file: a heading, and the named cells of each row."""
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    return _csv(list(columns), cells) if form == "csv" else _xlsx(list(columns), cells)


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a report for a table: the person's fields beside the others, each identifier as one text."""
    person: Mapping[str, Any] = row.get("person") or {}
    identifiers = " ".join(f"{each['system']}:{each['value']}" for each in person.get("identifiers", ()))
    beside = {**person, "identifiers": identifiers}
    # The referral's own place is where the person lived when it was made; it has a column already.
    return {**row, **{f"person_{name}": value for name, value in beside.items()}}


def _csv(columns: list[str], rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([neutral(cell) for cell in row] for row in rows)
    return (_MARK + text.getvalue()).encode()


def _xlsx(columns: list[str], rows: list[list[str]]) -> bytes:
    made = io.BytesIO()
    # Written as strings whatever they look like: no formula, no number, no link.
    with xlsxwriter.Workbook(made, {"in_memory": True}) as book:
        page = book.add_worksheet()
        for number, row in enumerate([columns, *rows]):
            for place, cell in enumerate(row):
                page.write_string(number, place, cell)
    return made.getvalue()


def _text(value: Any) -> str:
    match value:
        case None:
            text = ""
        case bool():
            text = "1" if value else ""
        case list() | tuple():
            text = " ".join(map(str, value))
        case _:
            text = str(value)
    return _CONTROL.sub(" ", text)[:_CELL]
