"""ZIP archives and spreadsheets: read like any other table, and refused by name where they would do harm."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pytest
from spreadsheet import texts, xlsx, zipped

from adapters.files.errors import WrongFile
from adapters.files.formats import compile_format, read_blocks


def read(content: bytes | Path, after: int = 0, **request: Any) -> tuple[list[tuple[int, list[str]]], list[int]]:
    rows: list[tuple[int, list[str]]] = []
    rejects: list[int] = []
    for block in read_blocks(content, compile_format(request), after):
        rows += zip(block.numbers, map(list, block.rows), strict=True)
        rejects += [reject.row for reject in block.rejects]
    return rows, rejects


def test_the_files_of_an_archive_are_one_register_by_name(tmp_path: Path) -> None:
    members = {"ruc1.txt": b"3|c\nx\n", "ruc0.txt": b"1|a\n\n2|b\n", "vacia/": b""}
    request = {"zip": True, "delimiter": "|", "header": ["ruc", "nombre"]}
    path = tmp_path / "ruc.zip"
    path.write_bytes(zipped(members))
    assert read(path, **request) == ([(1, ["1", "a"]), (3, ["2", "b"]), (4, ["3", "c"])], [5])
    assert read(path, after=3, **request) == ([(4, ["3", "c"])], [5])


def encrypted() -> bytes:
    content = bytearray(zipped({"a.csv": b"a\n1\n"}))
    # General purpose bit 0, in the local header and in the central directory.
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def spoilt() -> bytes:
    content = bytearray(zipped({"a.csv": b"a\n1\n"}))
    # The checksum in the central directory.
    content[content.index(b"PK\x01\x02") + 16] ^= 1
    return bytes(content)


def false_size() -> bytes:
    bomb = zipped({"a.csv": b"a\n" + b"1\n" * 50_000_000})
    size = struct.pack("<I", 100_000_002)
    return bomb.replace(size, struct.pack("<I", 1000))


def overlapping() -> bytes:
    content = bytearray(zipped({f"{number}.csv": b"a\n" + bytes(range(32, 127)) * 9 for number in range(3)}))
    entries = [place for place in range(len(content)) if content[place : place + 4] == b"PK\x01\x02"]
    for place in entries[1:]:
        # Every entry of the directory points at a file that begins where the first one does and is as long as all.
        content[place + 20 : place + 24] = struct.pack("<I", len(content))
    return bytes(content)


def linked() -> bytes:
    content = io.BytesIO()
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        link = ZipInfo("a.csv")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return content.getvalue()


HARMFUL = {
    "a bomb": (zipped({"a.csv": b"a\n" + b"1\n" * 2_000_000}), "a file of the archive grows beyond measure"),
    "a bomb that lies": (false_size(), "not a ZIP archive that can be read"),
    "a bomb of many": (zipped({f"{number}": b"" for number in range(1001)}), "too many files in the archive"),
    "overlapping": (overlapping(), "the files of the archive overlap"),
    "encrypted": (encrypted(), "an encrypted file in the archive"),
    "up and out": (zipped({"../a.csv": b"a\n1\n"}), "a file name in the archive that leads elsewhere"),
    "from the root": (zipped({"/etc/a.csv": b"a\n1\n"}), "a file name in the archive that leads elsewhere"),
    "from a drive": (zipped({"C:/a.csv": b"a\n1\n"}), "a file name in the archive that leads elsewhere"),
    "a link": (linked(), "a file name in the archive that leads elsewhere"),
    "no file": (zipped({}), "no file in the archive"),
    "cut short": (zipped({"a.csv": b"a\n1\n"})[:-30], "not a ZIP archive that can be read"),
    "spoilt": (spoilt(), "not a ZIP archive that can be read"),
    "no archive": (b"a\n1\n", "not a ZIP archive that can be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", HARMFUL)
def test_an_archive_that_would_do_harm_is_refused_by_name(case: str) -> None:
    content, what = HARMFUL[case]
    with pytest.raises(WrongFile, match=f"^{what}$"):
        read(content, zip=True)


def test_a_name_twice_is_refused() -> None:
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        archive.writestr("a.csv", "a\n1\n")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.csv", "a\n2\n")
    with pytest.raises(WrongFile, match="two files of one name"):
        read(content.getvalue(), zip=True)


def test_a_sheet_is_a_table_of_texts() -> None:
    rows = (
        texts(1, "Informe al", "día")
        + texts(2, "cédula ", "nombre", "nacida", "cita", "vive", "peso", "turno")
        + '<row r="3"><c><v>4123456</v></c><c t="str"><v>Ñasaindy, "la&#10;otra"</v></c><c s="1"><v>29342</v></c>'
        '<c s="2"><v>29342.5</v></c><c t="b"><v>1</v></c><c><v>0.1</v></c><c s="1"><v>0.5</v></c></row>'
        '<row r="5"><c><v>-7</v></c><c t="e"><v>#N/A</v></c></row>'
    )
    read_as = {"format": "xlsx", "preamble_rows": 1, "columns": ["cédula", "peso"]}
    expected = [
        (1, ["4123456", 'Ñasaindy, "la\notra"', "1980-05-01", "1980-05-01T12:00:00", "true", "0.1", "12:00:00"]),
        (3, ["-7", "", "", "", "", "", ""]),
    ]
    assert read(xlsx(rows), **read_as) == (expected, [])
    assert read(zipped({"a.xlsx": xlsx(rows)}), zip=True, **read_as) == (expected, [])


def test_a_sheet_is_found_by_its_name() -> None:
    book = xlsx(texts(1, "a") + texts(2, "1"), texts(1, "b") + texts(2, "2"))
    assert read(book, format="xlsx") == ([(1, ["1"])], [])
    assert read(book, format="xlsx", sheet="Hoja2") == ([(1, ["2"])], [])
    with pytest.raises(WrongFile, match="without the sheet agreed"):
        read(book, format="xlsx", sheet="Hoja3")


SHEETS = {
    "two cells as far apart as can be": (
        xlsx('<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'),
        "a sheet too large to be read",
    ),
    "a bomb": (
        zipped({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b" " * 30_000_000}),
        "a file of the archive grows beyond measure",
    ),
    "another archive": (zipped({"a.csv": b"a\n"}), "not an XLSX file"),
    "another document": (zipped({"[Content_Types].xml": b"<Types/>"}), "not an XLSX file that can be read"),
    "broken XML": (xlsx("<row"), "not an XLSX file that can be read"),
    "no sheet": (xlsx(), "without the sheet agreed"),
    "empty": (xlsx(""), "the file is empty"),
    "no archive": (b"a\n", "not a ZIP archive that can be read"),
}


@pytest.mark.parametrize("case", SHEETS)
def test_a_spreadsheet_that_cannot_be_read_is_refused_by_name(case: str) -> None:
    content, what = SHEETS[case]
    with pytest.raises(WrongFile, match=f"^{what}$"):
        read(content, format="xlsx")
