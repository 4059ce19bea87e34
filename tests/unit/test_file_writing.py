"""What is written: nothing a spreadsheet would run, of a value only its shape, and no row twice after a crash."""

from __future__ import annotations

import csv
import stat
from pathlib import Path

import pytest

from adapters.files.formats import compile_format, read_blocks
from adapters.files.writing import RejectsFile, neutral, write_row
from adapters.masking import shape
from adapters.models import RejectedRow


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", " =1", "＝1+1", "＠a"])
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(cell: str) -> None:
    assert neutral(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a=1", "1-1", "Ñ", "'=1", "2026-11-22"])
def test_what_it_would_not_run_stays_as_it_is(cell: str) -> None:
    assert neutral(cell) == cell


@pytest.mark.parametrize("delimiter", [";", ",", "|", "\t"])
def test_a_row_is_read_back_as_it_was_written(delimiter: str) -> None:
    spec = {"encoding": "cp1252", "delimiter": delimiter, "columns": ["a", "b", "c"]}
    values = {"a": 'di "sí"; no, | nunca\t', "b": "línea\nrota", "c": ""}
    [block] = read_blocks(write_row(["a", "b", "c"], values, spec), compile_format(spec))
    assert [dict(zip(block.header, row, strict=True)) for row in block.rows] == [values]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", ""),
        ("4.123.456", "9.999.999"),
        ("María Ñandú", "A A"),
        ("pérez", "a"),
        ("31/02/2024", "99/99/9999"),
        ("F", "A"),
        ("ana@b.py", "a@a.a"),
        ("0981 12x", "9999 99a"),
        ("١٢٣", "999"),
        ("a\x00b\x1b[2J\udcf1", "a¿a¿¿9A¿"),
        ("1-" * 30, "9-" * 20 + "…"),
    ],
)
def test_of_a_value_only_the_shape_is_shown(value: str, shown: str) -> None:
    assert shape(value) == shown


def test_values_of_one_shape_cannot_be_told_apart() -> None:
    assert {shape(name) for name in ("Ana", "María", "Ñasaindy", "Ko")} == {"A"}
    assert shape("SI") == shape("NO") == shape("ACTIVO")


REJECTS = [
    RejectedRow(3, "=fecha", "no such day in the calendar", "99/99/9999"),
    RejectedRow(9, "", "8 columns, not 9"),
]


def rows(path: Path) -> list[list[str]]:
    content = path.read_bytes().decode("utf-8")
    assert content.endswith("\r\n")
    return list(csv.reader(content.splitlines(keepends=True), strict=True))


def test_rejects_are_listed_for_the_people_who_sent_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rechazos.csv"
    with RejectsFile(path) as file:
        file.write(REJECTS)
        assert file.sync() == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert rows(path) == [
        ["fila", "columna", "valor", "motivo"],
        ["3", "'=fecha", "99/99/9999", "ese día no existe en el calendario"],
        ["9", "", "", "8 columnas en vez de 9"],
    ]


def test_what_was_not_committed_is_cut_off_and_written_once_more(tmp_path: Path) -> None:
    path = tmp_path / "rechazos.csv"
    with RejectsFile(path) as file:
        file.write(REJECTS[:1])
        committed = file.sync()
        file.write(REJECTS[1:])
        file.sync()
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with RejectsFile(path, committed) as file:
        file.write(REJECTS[1:])
        assert file.sync() == len(whole)
    assert path.read_bytes() == whole
    with RejectsFile(path) as file:
        file.sync()
    assert rows(path) == [["fila", "columna", "valor", "motivo"]]


def test_a_list_shorter_than_what_was_committed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rechazos.csv"
    with RejectsFile(path) as file:
        committed = file.sync()
    with pytest.raises(ValueError, match="shorter"):
        RejectsFile(path, committed + 1)
