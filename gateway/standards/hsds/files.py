"""Files of HSDS 3.0: JSON as its API answers it, CSV as its tabular form, both read into and written from rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.standards.hsds.layout import FILES, Nesting, Row, Tables, columns
from schemas.errors import SchemaError
from schemas.validation import parse_json

#: As much as is read of one file.
MOST_BYTES: Final = 64 * 1024 * 1024
_KINDS: Final = {file: kind for kind, file in FILES.items()}
# By what the name of a JSON file begins with, the longer ones first.
_PREFIXES: Final = (
    ("service_at_location", "service_at_location"),
    ("services", "service"),
    ("service", "service"),
    ("organization", "organization"),
    ("location", "location"),
    ("program", "program"),
    ("taxonomy_term", "taxonomy_term"),
    ("taxonom", "taxonomy"),
)
# Of an object that comes alone, what it has tells what it is.
_SIGNS: Final = (
    ("location", {"location_type"}),
    ("service_at_location", {"location", "service", "location_id"}),
    ("service", {"status"}),
    ("taxonomy_term", {"taxonomy", "taxonomy_id", "taxonomy_detail", "term_uri", "parent_id"}),
    ("organization", {"services", "locations", "programs", "organization_identifiers", "website", "legal_status"}),
)
# Says which tables there are (Frictionless Data Package); it holds none.
_DESCRIPTOR: Final = "datapackage.json"
_WRITTEN: Final = ("organization", "taxonomy", "taxonomy_term")


class Unreadable(ValueError):
    """A file that is no JSON or CSV of HSDS; ``name`` says which, ``why`` in Spanish what is wrong, if it is known."""

    def __init__(self, name: str, why: str = "") -> None:
        super().__init__(name)
        self.name, self.why = name, why


def read_path(path: Path) -> Tables:
    """Read a file, or all files of a folder; what is of no use is named in ``strange``. Raises Unreadable, OSError."""
    tables = Tables()
    files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    for file in files:
        match file.suffix.lower():
            case ".json" if file.name != _DESCRIPTOR:
                _read_json(file.name, _bytes(file), tables)
            case ".csv" if file.stem in _KINDS:
                _read_csv(file.stem, _bytes(file), tables)
            case _:
                tables.strange.append(file.name)
    return tables


def read_json(name: str, content: bytes) -> Tables:
    """Read what one JSON file would say, ``name`` its name. Raises Unreadable."""
    tables = Tables()
    _read_json(name, content, tables)
    return tables


def json_files(tables: Tables) -> Iterator[tuple[str, bytes]]:
    """Return the names of JSON files and their content: whole organizations, taxonomies and their terms, as pages."""
    nesting = Nesting(tables)
    for kind in _WRITTEN:
        rows = [nesting.full(kind, row) for row in tables.rows[kind].values()]
        yield f"{FILES[kind]}.json", orjson.dumps(page(rows, 1, max(len(rows), 1)), option=orjson.OPT_INDENT_2)


def csv_files(tables: Tables) -> Iterator[tuple[str, bytes]]:
    """Return the names of CSV files and their content (RFC 4180, UTF-8), one per kind of row that there is."""
    for kind, file in FILES.items():
        rows = list(tables.rows[kind].values())
        if not rows:
            continue
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns(rows), restval="", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
        yield f"{file}.csv", text.getvalue().encode()


def page(rows: list[Row], number: int, size: int) -> dict[str, Any]:
    """Return a page of rows as HSDS pages are; pages count from 1, one that has nothing is empty."""
    first, total = (number - 1) * size, len(rows)
    contents = rows[first : first + size]
    pages = -(-total // size)
    return {
        "total_items": total,
        "total_pages": pages,
        "page_number": number,
        "size": len(contents),
        "first_page": number == 1,
        "last_page": number >= pages,
        "empty": not contents,
        "contents": contents,
    }


def _read_json(name: str, content: bytes, tables: Tables) -> None:
    try:
        value = parse_json(content)
    except SchemaError as error:
        raise Unreadable(name, error.violations[0].message) from None
    if isinstance(value, dict) and value and all(key.removesuffix(".csv") in _KINDS for key in value):
        # The tables in one object, as the specification's own example of its tabular form.
        for key, rows in value.items():
            _take_all(_KINDS[key.removesuffix(".csv")], rows, f"{name}/{key}", tables)
        return
    several = value.get("contents") if isinstance(value, dict) and "contents" in value else value
    for number, each in enumerate(several if isinstance(several, list) else [several]):
        where = f"{name}/{number}" if isinstance(several, list) else name
        kind = _kind(name, each)
        if kind is None:
            tables.strange.append(where)
        else:
            tables.flatten(kind, each, where)


def _take_all(kind: str, rows: object, where: str, tables: Tables) -> None:
    for number, each in enumerate(rows if isinstance(rows, list) else [rows]):
        tables.flatten(kind, each, f"{where}/{number}")


def _kind(name: str, value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    for prefix, kind in _PREFIXES:
        if name.startswith(prefix):
            return kind
    return next((kind for kind, signs in _SIGNS if signs & value.keys()), None)


def _read_csv(stem: str, content: bytes, tables: Tables) -> None:
    try:
        text = content.decode("utf-8-sig")
        rows: list[Mapping[str, Any]] = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise Unreadable(f"{stem}.csv") from None
    for number, row in enumerate(rows):
        # A row longer than its head has a member without a name.
        if not row.get("id") or None in row or "\x00" in "".join(each or "" for each in row.values()):
            tables.strange.append(f"{stem}.csv/{number}")
        else:
            tables.put(_KINDS[stem], row)


def _bytes(file: Path) -> bytes:
    if file.stat().st_size > MOST_BYTES:
        raise Unreadable(file.name)
    return file.read_bytes()
