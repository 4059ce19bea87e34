"""The fast reading of a file's rows gives what the field table gives for each row alone, to the letter."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any
from unittest import mock

from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.converters import CONVERTERS, TYPED, WHOLE_COLUMN
from adapters.files import lines
from adapters.files import rows as fast
from adapters.files.formats import Format, read_blocks
from adapters.files.rows import read_rows
from adapters.mapping import FieldTable, compile_field
from adapters.models import RejectedRow, Row

TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "4123456",
            "04123456",
            "4.123.456",
            "80012345-0",
            "29/02/2024",
            "31/02/2024",
            "1/2/1980",
            "19800201",
            "1980-02-01T00:00:00-04:00",
            "JUNIO/2017",
            "SI",
            "no",
            "true",
            "-",
            "S/D",
            "1.234,56",
            "1.5",
            "0981 123456",
            "a@b.py",
            "7",
            "007",
            "PEREZ, ANA",
            "Ñemby",
            "  dos  espacios ",
            "tab\tulado",
            "\x15Nu\xa0ñez",
            "01/01/2999",
            "019a2b3c-4d5e-7f60-8a1b-2c3d4e5f6071",
            "F",
            "M",
            "línea\nrota",
            "a|b",
            "| ",
            "a ",
            " a",
            " |",
        ]
    ),
    st.text(max_size=12, alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
STEPS = sorted(set(CONVERTERS) - TYPED - {"not-future"})


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    source = draw(
        st.sampled_from(["a", "b", '"c d"', "join('-', [a, b])", "to_string(a)", "[a, b][1]", "absent", "max(a)"])
    )
    spec: dict[str, Any] = {"from": source, "through": draw(st.lists(st.sampled_from(STEPS), max_size=3))}
    if draw(st.booleans()):
        spec["required"] = True
    if draw(st.integers(0, 4)) == 0:
        spec["default"] = "x"
    kind = draw(st.integers(0, 5))
    if kind == 0:
        spec["through"].append(draw(st.sampled_from(sorted(TYPED))))
    elif kind == 1:
        spec["codes"] = {"F": "female", "M": "male", "SI": "yes"}
        if draw(st.booleans()):
            spec["otherwise"] = draw(st.sampled_from([None, "other"]))
    elif kind == 2:
        spec["through"] += ["date-dmy", "not-future"]
    elif kind == 3:
        return {"const": 7}
    return spec


@settings(max_examples=300, deadline=None)
@given(st.lists(fields(), min_size=1, max_size=4), st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=12), st.booleans())
def test_rows_read_fast_are_those_the_field_table_reads(
    specs: list[dict[str, Any]], rows: list[tuple[str, str, str]], forgetful: bool
) -> None:
    table = FieldTable([compile_field(f"field{place}", spec) for place, spec in enumerate(specs)])
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("a", "b", "c d"), *rows, *rows])
    content = text.getvalue().encode()
    # Blocks of a row or two, so that what a column remembers, or gave up remembering, is used by the next.
    with mock.patch.object(lines, "_BLOCK", 64), mock.patch.object(fast, "_REMEMBERED", 0 if forgetful else 8192):
        found = [row for batch in read_rows(content, Format(), table) for row in batch]
    expected = []
    for block in read_blocks(content, Format()):
        for number, cells in zip(block.numbers, block.rows, strict=True):
            mapped = table.read(dict(zip(block.header, cells, strict=True)))
            expected.append(
                (number, mapped.problems[0][1]) if mapped.problems else Row(number, mapped.values, mapped.raw_codes)
            )
        expected += [(reject.row, reject.what) for reject in block.rejects]
    assert [row if isinstance(row, Row) else (row.row, row.what) for row in found] == sorted(
        expected, key=lambda row: row.row if isinstance(row, Row) else row[0]
    )


@settings(max_examples=300, deadline=None)
@example(CONVERTERS["collapse-spaces"], ["a ", "b"])
@example(CONVERTERS["collapse-spaces"], ["a", " b"])
@given(st.sampled_from(list(WHOLE_COLUMN)), st.lists(TEXTS, max_size=3))
def test_a_converter_does_the_same_to_a_column_as_to_each_cell(step: Callable[[str], str], column: list[str]) -> None:
    assert list(WHOLE_COLUMN[step](column)) == list(map(step, column))


def test_a_rejected_row_is_named_by_the_column_of_the_file_and_its_value_masked() -> None:
    specs = {
        "identifier": {"from": '"N° C.I."', "through": ["cedula"], "required": True},
        "taxpayer": {"from": "join('-', [ruc, dv])", "through": ["ruc"]},
        "since": {"from": "alta", "through": ["date-dmy"], "required": True},
    }
    table = FieldTable([compile_field(name, spec) for name, spec in specs.items()])
    content = "N° C.I.,ruc,dv,alta\n41X5,80009735,1,hoy\n41,80009735,2,01/01/2020\n41,80009735,1,\nx\n".encode()
    [batch] = read_rows(content, Format(), table)
    assert batch == [
        RejectedRow(1, "N° C.I.", "not a cédula", "99A9"),
        RejectedRow(2, "ruc dv", "not a RUC with its check digit", "99999999 9"),
        RejectedRow(3, "alta", "missing", ""),
        RejectedRow(4, "", "1 columns, not 4"),
    ]
