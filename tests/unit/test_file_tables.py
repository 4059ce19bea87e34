"""Files as tables: where rows begin and end, what a header is, and that a damaged row costs itself and nothing else."""

from __future__ import annotations

import io
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.files import lines
from adapters.files.checksum import check_sum
from adapters.files.errors import WrongFile
from adapters.files.formats import compile_format, read_blocks

Read = tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]


def read(content: bytes, after: int = 0, **request: Any) -> Read:
    rows: list[tuple[int, list[str]]] = []
    rejects = []
    for block in read_blocks(content, compile_format({"encoding": "utf-8", **request}), after):
        rows += zip(block.numbers, map(list, block.rows), strict=True)
        rejects += [(reject.row, reject.what) for reject in block.rejects]
    return rows, rejects


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_end_at_any_line_end_and_cells_may_hold_one(end: str) -> None:
    content = end.join(["a,b", "1,2", f'"uno{end}dos",3', "4,5", ""]).encode()
    assert read(content) == ([(1, ["1", "2"]), (2, [f"uno{end}dos", "3"]), (3, ["4", "5"])], [])


DAMAGED = {
    "a quote never closed": ('1,"x,3\n2,b,3\n3,c,3\n', [2, 3], [1]),
    "a quote that a later row's quote closes": ('1,"x,3\n2,b,3\n3,"c",3\n4,d,3\n', [2, 3, 4], [1]),
    "a quote that an inch mark closes": ('1,"x,3\n2,b,3\n3,c,3\n4,12",3\n5,e,3\n', [2, 3, 4, 5], [1]),
    "text behind a quote": ('1,"x"y,3\n2,b,3\n', [2], [1]),
    "more cells and fewer": ("1,a\n2,b,3,4\n3,c,3\n", [3], [1, 2]),
    "a NUL": ("1,\0,3\n2,b,3\n", [2], [1]),
    "two such quotes": ('1,"x,3\n2,b,3\n3,"y,3\n4,d,3\n', [2, 4], [1, 3]),
    "at the very end": ('1,a,3\n2,"b', [1], [2]),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("block", [16, 128 * 1024])
def test_a_damaged_row_is_named_and_no_other_is_lost(case: str, block: int) -> None:
    text, good, bad = DAMAGED[case]
    with mock.patch.object(lines, "_BLOCK", block):
        rows, rejects = read(f"id,b,c\n{text}".encode())
    assert ([number for number, _cells in rows], [number for number, _what in rejects]) == (good, bad)


def test_a_forgotten_quote_among_many_rows_costs_one() -> None:
    rows = [f'{number},"calle {number}",x' for number in range(1, 2001)]
    rows[500] = '501,"calle,x'
    found, rejects = read("\n".join(["id,b,c", *rows]).encode())
    assert rejects == [(501, "unbalanced quotes")]
    assert [int(cells[0]) for _number, cells in found] == [n for n in range(1, 2001) if n != 501]


def test_a_line_that_never_ends_costs_its_row() -> None:
    content = b"a,b\n1,2\n" + b"x" * (3 * lines.LONGEST_LINE) + b"\n3,4\n"
    assert read(content) == ([(1, ["1", "2"]), (3, ["3", "4"])], [(2, "a line too long")])
    quoted = b'a,b\n1,2\n"' + b"x" * 200_000 + b'",2\n3,4\n'
    assert read(quoted) == ([(1, ["1", "2"]), (3, ["3", "4"])], [(2, "a cell too long")])


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='a",\n\r;ñ', max_size=120), st.integers(1, 40), st.sampled_from(["cp1252", None]))
def test_where_the_file_is_cut_for_reading_changes_nothing(text: str, block: int, encoding: str | None) -> None:
    content = f"a,b,c\n{text}".encode("cp1252")
    request = {} if encoding is None else {"encoding": encoding}
    whole = read(content, **{"encoding": None, **request})
    with mock.patch.object(lines, "_BLOCK", max(block, 6)):
        assert read(content, **{"encoding": None, **request}) == whole


def test_rows_without_any_value_are_passed_over_and_keep_their_number() -> None:
    assert read(b"a,b\n1,2\n\n,\n3,4\n") == ([(1, ["1", "2"]), (4, ["3", "4"])], [])


def test_reading_goes_on_behind_a_row() -> None:
    content = b"a,b\n1,2\n\nx\n3,4\ny\n5,6\n"
    whole = read(content)
    for after in range(8):
        rest = [row for row in whole[0] if row[0] > after], [reject for reject in whole[1] if reject[0] > after]
        assert read(content, after) == rest


ENCODINGS = {
    "utf-8": ("ñandú €".encode(), None, "ñandú €"),
    "with a mark": (b"\xef\xbb\xbf" + "ñandú".encode(), "utf-8", "ñandú"),
    "cp1252 unsaid": ("ñandú €".encode("cp1252"), None, "ñandú €"),
    "latin-1 said": ("ñandú".encode("latin-1"), "iso-8859-1", "ñandú"),
}


@pytest.mark.parametrize("case", ENCODINGS)
def test_text_is_read_in_the_encoding_agreed_or_tried_in_order(case: str) -> None:
    content, encoding, expected = ENCODINGS[case]
    start = content[:3] if content.startswith(b"\xef\xbb\xbf") else b""
    assert read(start + b"a\n" + content[len(start) :] + b"\n", encoding=encoding) == ([(1, [expected])], [])


def test_a_byte_outside_the_encoding_costs_its_row() -> None:
    rows, rejects = read(b"a,b\n1,\xc3\xb1\n2,\xf1\n3,x\n")
    assert (rows, rejects) == ([(1, ["1", "ñ"]), (3, ["3", "x"])], [(2, "not in the encoding agreed")])
    assert read(b"a\n\x81\nb\n", encoding=None) == ([(2, ["b"])], [(1, "not in the encoding agreed")])


NAMES = {"header": ["x", "y", "z"]}
HEADERS = {
    "preamble and two lines": (
        b'"Informe, 2026\nDatos;;\nPersona;;Monto\n c\xc3\xa9dula ;"nombre\ny apellido";Gs.\n1;b;3\n',
        {"delimiter": ";", "preamble_rows": 2, "header_rows": 2, "columns": ["Persona cédula", "Monto Gs."]},
        ("Persona cédula", "nombre y apellido", "Monto Gs."),
    ),
    "none in the file": (b"1|b|3|\n", {**NAMES, "delimiter": "|", "trailing_delimiter": True}, ("x", "y", "z")),
    "other names": (b"a;b;c\n1;b;3\n", {**NAMES, "delimiter": ";", "header_rows": 1}, ("x", "y", "z")),
    "trailing in rows only": (b"a;b;c\n1;b;3;\n", {"delimiter": ";", "trailing_delimiter": True}, ("a", "b", "c")),
    "trailing in all": (b"a;b;c;\n1;b;3;\n", {"delimiter": ";", "trailing_delimiter": True}, ("a", "b", "c")),
    "tabs, no quotes": (b'a\tb\tc\n1\tb\t3\n', {"delimiter": "\t", "quote": "none"}, ("a", "b", "c")),
    "other quotes": (b"a,b,c\n'1','b','3'\n", {"quote": "'"}, ("a", "b", "c")),
    "nameless columns": (b"a,,\n1,b,3\n", {}, ("a", "", "")),
    "fixed": (
        b"informe\n1  b   3  \n",
        {"format": "fixed", "preamble_rows": 1,
         "widths": [{"name": "a", "width": 3}, {"name": "b", "width": 4}, {"name": "c", "width": 3}]},
        ("a", "b", "c"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_is_what_the_manifest_says_it_is(case: str) -> None:
    content, request, header = HEADERS[case]
    [block] = read_blocks(content, compile_format({"encoding": "utf-8", **request}))
    assert (block.header, [list(row) for row in block.rows], list(block.numbers)) == (header, [["1", "b", "3"]], [1])


def test_a_line_of_another_length_is_named() -> None:
    widths = [{"name": "a", "width": 2}, {"name": "b", "width": 3}]
    content = "1 abc\n2 ñ\n3\n4 abcd\n5 ab  \n\n".encode()
    rows, rejects = read(content, format="fixed", widths=widths)
    assert rows == [(1, ["1", "abc"]), (2, ["2", "ñ"]), (5, ["5", "ab"])]
    assert rejects == [(3, "a line of another length"), (4, "a line of another length")]


WRONG = {
    "empty": (b"", {}, "the file is empty"),
    "blank": (b"\r\n\r\n", {}, "the file is empty"),
    "only a preamble": (b"Informe\n", {"preamble_rows": 3}, "without its header"),
    "a column twice": (b"a, a\n", {}, "the header names a column twice"),
    "a column missing": (b"a;b\n", {"columns": ["a", "b"]}, "the header lacks a"),
    "utf-16": ("a,b\n".encode("utf-16"), {}, "in UTF-16, not the encoding agreed"),
    "utf-8 said to be cp1252": (b"\xef\xbb\xbfa,b\n", {"encoding": "cp1252"}, "in UTF-8, not the encoding agreed"),
    "no names": (b";;\n1;2;3\n", {"delimiter": ";"}, "without its header"),
    "a header not in the encoding": (b"a,\xf1\n", {}, "the header is not in the encoding agreed"),
    "fixed and empty": (b"", {"format": "fixed", "widths": [{"name": "a", "width": 2}]}, "the file is empty"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_not_the_one_agreed_is_refused_by_its_rule(case: str) -> None:
    content, request, what = WRONG[case]
    with pytest.raises(WrongFile, match=f"^{what}$"):
        read(content, **request)


@pytest.mark.parametrize(
    "request_",
    [
        {"header_rows": 0},
        {"format": "fixed"},
        {"widths": [{"name": "a", "width": 1}]},
        {"header": ["a", "a"]},
        {"header": ["a"], "columns": ["b"]},
    ],
)
def test_options_that_contradict_each_other_are_refused_when_compiled(request_: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"header|columna|columns|widths"):
        compile_format(request_)


MD5 = "900150983cd24fb0d6963f7d28e17f72"
SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("algorithm", "beside"),
    [
        ("md5", MD5),
        ("md5", f"{MD5.upper()}\r\n"),
        ("md5", f"{MD5}  abc.csv\n"),
        ("md5", f"{'0' * 32}  otro.csv\n{MD5} *abc.csv\n"),
        ("md5", f"{MD5}  C:\\salida\\abc.csv"),
        ("sha256", f"{SHA256}  ./abc.csv\n"),
    ],
)
def test_a_side_file_vouches_for_its_file(algorithm: Any, beside: str) -> None:
    check_sum(io.BytesIO(b"abc"), beside.encode(), "abc.csv", algorithm)
    with pytest.raises(WrongFile, match=f"not the {algorithm} sum agreed"):
        check_sum(io.BytesIO(b"abd"), beside.encode(), "abc.csv", algorithm)


@pytest.mark.parametrize("beside", ["", "no", f"{MD5}  otro.csv", f"{MD5}0", f"{SHA256}  abc.csv"])
def test_a_side_file_that_speaks_of_another_vouches_for_none(beside: str) -> None:
    with pytest.raises(WrongFile, match="says nothing of this file"):
        check_sum(io.BytesIO(b"abc"), beside.encode(), "abc.csv", "md5")
