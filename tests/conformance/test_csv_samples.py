"""Real CSV files: what each is sniffed to be, the rows it gives, and RFC 4180's corners with their expected cells."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from adapters.files.formats import compile_format, read_blocks
from adapters.files.sniff import sniff

#: File → encoding, delimiter, preamble and header rows, rows, types of the columns in runs, problems.
SNIFFED: dict[str, tuple[Any, ...]] = {
    "cl-sii/RCV-compra-registro-rz_leading_trailing_whitespace.csv": (
        "utf-8",
        ";",
        0,
        1,
        2,
        "2 integer, 3 text, 1 integer, 1 date-dmy, 1 date-dmy-loose, 1 empty, 3 integer, 2 empty, 1 integer, "
        "4 empty, 1 integer, 3 empty, 1 integer, 3 empty",
        [],
    ),
    "cl-sii/RCV-venta-rz_leading_trailing_whitespace.csv": (
        "utf-8",
        ";",
        0,
        1,
        2,
        "2 integer, 3 text, 1 integer, 1 date-dmy, 1 date-dmy-loose, 2 empty, 9 integer, 1 text, 5 integer, "
        "3 empty, 1 integer, 1 empty, 5 integer, 3 empty, 1 integer, 4 empty",
        [],
    ),
    "csv-spectrum/csvs/comma_in_quotes.csv": ("utf-8", ",", 0, 1, 1, "5 text", []),
    "csv-spectrum/csvs/empty.csv": ("utf-8", ",", 0, 1, 2, "3 integer", []),
    "csv-spectrum/csvs/empty_crlf.csv": ("utf-8", ",", 0, 1, 2, "3 integer", []),
    "csv-spectrum/csvs/escaped_quotes.csv": ("utf-8", ",", 0, 1, 2, "1 integer, 1 text", []),
    "csv-spectrum/csvs/json.csv": ("utf-8", ",", 0, 1, 1, "1 integer, 1 text", []),
    "csv-spectrum/csvs/location_coordinates.csv": ("utf-8", ",", 0, 1, 1, "1 integer, 3 text", []),
    "csv-spectrum/csvs/newlines.csv": ("utf-8", ",", 0, 1, 3, "1 text, 2 integer", []),
    "csv-spectrum/csvs/newlines_crlf.csv": ("utf-8", ",", 0, 1, 3, "1 text, 2 integer", []),
    "csv-spectrum/csvs/quotes_and_newlines.csv": ("utf-8", ",", 0, 1, 2, "1 integer, 1 text", []),
    "csv-spectrum/csvs/simple.csv": ("utf-8", ",", 0, 1, 1, "3 integer", []),
    "csv-spectrum/csvs/simple_crlf.csv": ("utf-8", ",", 0, 1, 1, "3 integer", []),
    "csv-spectrum/csvs/utf8.csv": ("utf-8", ",", 0, 1, 2, "2 integer, 1 text", []),
    "frictionless/accent.csv": ("utf-8", ";", 0, 1, 2, "7 text, 2 decimal, 1 integer, 1 text, 1 decimal, 5 text", []),
    "frictionless/ascii-notvalid.csv": ("utf-8", ",", 0, 1, 1, "1 integer, 2 text", []),
    "frictionless/blank-cells.csv": ("utf-8", ",", 0, 1, 5, "1 integer, 1 text", []),
    "frictionless/blank-headers.csv": ("utf-8", ",", 0, 1, 2, "1 integer, 1 text, 1 integer", []),
    "frictionless/blank-rows-multiple.csv": ("utf-8", ",", 0, 1, 2, "1 integer, 1 text, 1 integer", []),
    "frictionless/blank-rows.csv": ("utf-8", ",", 0, 1, 2, "1 integer, 1 text, 1 integer", []),
    "frictionless/bom.csv": ("utf-8-sig", ",", 0, 1, 2, "1 integer, 1 text", []),
    "frictionless/capital-invalid.csv": ("utf-8", ",", 0, 1, 0, "", [(0, "the header names a column twice")]),
    "frictionless/capital-valid.csv": ("utf-8", ",", 0, 1, 5, "1 integer, 1 text", []),
    "frictionless/countries-truefalsevalues.csv": ("utf-8", ",", 0, 1, 2, "1 integer, 1 text", []),
    "frictionless/countries.csv": (
        "utf-8",
        ",",
        1,
        1,
        5,
        "1 integer, 2 text, 1 integer",
        [(2, "5 columns, not 4"), (5, "1 columns, not 4")],
    ),
    "frictionless/defective-rows.csv": (
        "utf-8",
        ",",
        0,
        1,
        2,
        "3 empty",
        [(1, "2 columns, not 3"), (2, "4 columns, not 3")],
    ),
    "frictionless/delimiter.csv": ("utf-8", ";", 0, 1, 2, "1 integer, 1 text", []),
    "frictionless/doublequote.csv": (
        "utf-8",
        ",",
        0,
        1,
        5,
        "4 text, 2 integer, 2 text, 1 integer, 2 text, 4 integer, 2 text",
        [],
    ),
    "frictionless/duplicate-column.csv": ("utf-8", ",", 0, 1, 0, "", [(0, "the header names a column twice")]),
    "frictionless/duplicate-rows.csv": ("utf-8", ",", 0, 1, 3, "1 integer, 1 text, 1 integer", []),
    "frictionless/empty.csv": (None, None, 0, 0, 0, "", [(0, "the file is empty")]),
    "frictionless/escaping.csv": ("utf-8", ",", 0, 1, 3, "1 integer, 1 text", []),
    "frictionless/floats.csv": ("utf-8", None, 0, 1, 5, "1 decimal", []),
    "frictionless/issue-1009-comma.csv": ("utf-8", ",", 0, 1, 1, "2 text", []),
    "frictionless/issue-1009-semicolon.csv": ("utf-8", ";", 0, 1, 1, "2 text", []),
    "frictionless/issue-1105-timezone.csv": ("utf-8", ";", 0, 1, 2, "1 integer, 1 date", []),
    "frictionless/issue-1138.csv": ("utf-8", ";", 0, 1, 7, "1 date-dmy-loose, 1 integer, 1 text", []),
    "frictionless/issue-1232.csv": ("utf-8", ";", 0, 1, 5, "6 text, 1 date-dmy", []),
    "frictionless/issue-811.csv": (
        "cp1252",
        ";",
        0,
        1,
        7904,
        "7 text, 1 empty, 1 integer, 3 text, 2 integer, 1 text, 4 integer, 7 text",
        [],
    ),
    "frictionless/latin1.csv": ("cp1252", ",", 0, 1, 2, "1 integer, 1 text", []),
    "frictionless/leading-zeros.csv": ("utf-8", None, 0, 1, 3, "1 text", []),
    "frictionless/matrix-with-comment.csv": ("utf-8", ",", 1, 1, 4, "4 integer", []),
    "frictionless/nested-invalid.csv": ("utf-8", ",", 0, 1, 5, "2 integer, 1 text", []),
    "frictionless/numeric-labels.csv": ("utf-8", ",", 0, 1, 3, "1 text, 9 boolean", []),
    "frictionless/schema-errors.csv": ("utf-8", ",", 0, 1, 4, "2 text, 1 integer", [(4, "6 columns, not 3")]),
    "opencrvs-farajaland/administrative-areas.csv": ("utf-8", ",", 0, 1, 64, "12 text", []),
    "opencrvs-farajaland/locations.csv": ("utf-8", ",", 0, 1, 95, "4 text", []),
    "opencrvs-farajaland/statistics.csv": ("utf-8", ",", 0, 1, 20, "2 text, 76 integer", []),
}
SPECTRUM = sorted(name.split("/")[-1].removesuffix(".csv") for name in SNIFFED if name.startswith("csv-spectrum"))


@pytest.mark.parametrize("name", SNIFFED)
def test_every_sample_is_sniffed_for_what_it_is(samples: Path, name: str) -> None:
    found = sniff(samples / "csv" / name).as_json()
    runs = groupby(column["type"] for column in found["columns"])
    assert (
        *(found[key] for key in ("encoding", "delimiter", "preamble_rows", "header_rows", "rows")),
        ", ".join(f"{len(list(run))} {kind}" for kind, run in runs),
        [(problem["row"], problem["what"]) for problem in found["problems"]],
    ) == SNIFFED[name]


def test_no_sample_is_left_out(samples: Path) -> None:
    assert {str(path.relative_to(samples / "csv")) for path in (samples / "csv").rglob("*.csv")} == set(SNIFFED)


@pytest.mark.parametrize("name", SPECTRUM)
def test_the_corners_of_rfc_4180_give_the_cells_expected(samples: Path, name: str) -> None:
    folder = samples / "csv" / "csv-spectrum"
    expected = json.loads((folder / "json" / f"{name}.json").read_text(encoding="utf-8"))
    expected = expected if isinstance(expected, list) else [expected]
    if name == "location_coordinates":
        # The number in the expected cells is another one than in the file.
        expected[0]["Contact Phone Number"] = "2095257564"
    content = (folder / "csvs" / f"{name}.csv").read_bytes()
    # These two differ from each other in the line ends the repository lost.
    if name.endswith("_crlf"):
        content = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    found = []
    for block in read_blocks(content, compile_format({"encoding": "utf-8"})):
        assert not block.rejects
        found += [dict(zip(block.header, cells, strict=True)) for cells in block.rows]
    assert found == expected


def test_a_latin_1_header_with_line_breaks_in_its_cells_is_read(samples: Path) -> None:
    request = {"encoding": "iso-8859-1", "delimiter": ";", "columns": ["Codice Regione", "Codice NUTS3 2021"]}
    blocks = list(read_blocks(samples / "csv" / "frictionless" / "issue-811.csv", compile_format(request)))
    assert blocks[0].header[1] == "Codice dell'Unità territoriale sovracomunale (valida a fini statistici)"
    assert sum(len(block.rows) for block in blocks) == 7904
    assert not any(block.rejects for block in blocks)
    assert blocks[0].rows[0][5] == "Agliè"


@pytest.mark.parametrize("name", ["compra-registro", "venta"])
def test_the_register_exports_of_a_tax_authority_end_their_rows_in_a_delimiter(samples: Path, name: str) -> None:
    path = samples / "csv" / "cl-sii" / f"RCV-{name}-rz_leading_trailing_whitespace.csv"
    request = {"encoding": "utf-8", "delimiter": ";", "columns": ["Nro", "Razon Social"]}
    [ragged] = read_blocks(path, compile_format(request))
    assert (len(ragged.rows), len(ragged.rejects)) == (0, 2)
    [block] = read_blocks(path, compile_format({**request, "trailing_delimiter": True}))
    assert ([cells[4] for cells in block.rows], block.rejects) == (["Fake Company S.A. ", "  Fake Company S.A."], ())
