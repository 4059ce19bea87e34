"""``siis adapter sniff``: what an engineer who receives a file sees, and that no file gets a traceback or much time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from adapters.files.formats import compile_format, read_blocks
from tests.acceptance.command_line import Siis, clean
from tests.unit.spreadsheet import texts, xlsx, zipped

REGISTER = (
    "Listado de beneficiarios;;;;;\r\n"
    "Cédula;Apellidos y\u00a0nombres;Fecha nac.;Monto (Gs.);Índice;Vive\r\n"
    + "".join(
        f"{4_000_000 + n};BENÍTEZ, Ana {n};{n:02}/05/1950;{n}.250.000;{n},5;{'SI' if n % 2 else 'NO'}\r\n"
        for n in range(1, 29)
    )
    + "4000029;BENÍTEZ, Ana;31/02/1950;1.250.000;0,5;SI\r\n"
    "4000030;sin más\r\n"
)


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    """The command line in Spanish, on no data folder: looking at a file needs none."""
    made = Siis(tmp_path_factory.mktemp("siis"), "es", None)
    yield made
    made.end()


@pytest.fixture
def register(tmp_path: Path) -> Path:
    path = tmp_path / "padrón.csv"
    path.write_bytes(REGISTER.encode("cp1252"))
    return path


def test_a_register_is_shown_as_a_table(siis: Siis, register: Path) -> None:
    ended = siis("adapter", "sniff", register, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json() == {
        "encoding": "cp1252",
        "delimiter": ";",
        "quote": '"',
        "header_rows": 1,
        "preamble_rows": 1,
        "columns": [
            {"name": "Cédula", "type": "cedula"},
            {"name": "Apellidos y nombres", "type": "text"},
            {"name": "Fecha nac.", "type": "date-dmy"},
            {"name": "Monto (Gs.)", "type": "thousand-dots"},
            {"name": "Índice", "type": "decimal-comma"},
            {"name": "Vive", "type": "boolean"},
        ],
        "rows": 30,
        "problems": [
            {"row": 29, "column": "Fecha nac.", "what": "not of the type date-dmy"},
            {"row": 30, "column": "", "what": "2 columns, not 6"},
        ],
    }


def test_it_is_told_in_words_without_any_value_and_with_a_request_that_reads_it(siis: Siis, register: Path) -> None:
    ended = siis("adapter", "sniff", register)
    assert (ended.code, ended.err) == (0, "")
    for text in ("30 filas, 6 columnas", "cp1252", "Cédula: cedula", "fila 29, Fecha nac.: no es del tipo date-dmy",
                 "fila 30: 2 columnas en vez de 6"):  # fmt: skip
        assert text in ended.out
    assert "BENÍTEZ" not in ended.out
    assert "4000029" not in ended.out
    request = yaml.safe_load(ended.out[ended.out.index("request:") :])["request"]
    [block] = read_blocks(register, compile_format(request))
    assert (len(block.rows), len(block.rejects)) == (29, 1)


def test_a_spreadsheet_and_an_archive_are_shown_too(siis: Siis, tmp_path: Path) -> None:
    book, archive = tmp_path / "a.xlsx", tmp_path / "a.zip"
    book.write_bytes(xlsx(texts(1, "Informe") + texts(2, "cédula", "nombre", "año") + texts(3, "41", "Ana", "1980")))
    found = siis("adapter", "sniff", book, "--json").json()
    assert (found["encoding"], found["preamble_rows"], found["rows"]) == (None, 1, 1)
    assert [column["type"] for column in found["columns"]] == ["cedula", "text", "integer"]
    archive.write_bytes(zipped({"ruc0.txt": b"80009735|EMPRESA SA|1|ABCD|ACTIVO|\n41|BENITEZ, ANA|7||ACTIVO|\n"}))
    shown = siis("adapter", "sniff", archive)
    request = yaml.safe_load(shown.out[shown.out.index("request:") :])["request"]
    names = [f"columna_{place}" for place in range(1, 6)]
    expected = {"zip": True, "delimiter": "|", "trailing_delimiter": True, "header": names}
    assert {name: request.get(name) for name in expected} == expected
    [block] = read_blocks(archive, compile_format(request))
    assert len(block.rows) == 2


REFUSED = {
    "empty": (b"", "está vacío"),
    "html": (b"<!DOCTYPE html><html></html>", "es XML o HTML"),
    "json": (b'[{"cedula": 1}]', "es JSON"),
    "pdf": (b"%PDF-1.7\n", "es un PDF"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip"),
    "old excel": (b"\xd0\xcf\x11\xe0\xa1\xb1", "anterior a XLSX"),
    "binary": (bytes(range(256)) * 100, "no es un texto"),
    "utf-16": ("a;b\n1;2\n".encode("utf-16"), "UTF-16"),
    "half a zip": (zipped({"a.csv": b"a\n1\n"})[:-30], "no es un ZIP que se pueda leer"),
    "a zip bomb": (zipped({"a.csv": b"0" * 5_000_000}), "fuera de toda medida"),
    "a word processor's": (zipped({"[Content_Types].xml": b"<a/>", "word/document.xml": b"<a/>"}), "no es un XLSX"),
    "a sheet as large as can be": (
        xlsx('<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'),
        "demasiado grande",
    ),
    "a line without end": (b"a" * 3_000_000, "línea demasiado larga"),
    "a column twice": (b"a,b,a\n1,2,3\n", "dos veces"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_table_is_refused_by_name(siis: Siis, tmp_path: Path, case: str) -> None:
    content, what = REFUSED[case]
    path = tmp_path / "recibido"
    path.write_bytes(content)
    shown = siis("adapter", "sniff", path)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.startswith(f"{path}: ")
    assert what in shown.err
    told = siis("adapter", "sniff", path, "--json")
    assert told.code == 2
    [problem] = told.json()["problems"]
    assert (problem["row"], problem["column"]) == (0, "")


def test_a_file_that_is_not_there_is_refused(siis: Siis, tmp_path: Path) -> None:
    for path in (tmp_path / "nada.csv", tmp_path):
        ended = siis("adapter", "sniff", path)
        assert (ended.code, ended.out, ended.err) == (2, "", f"{path}: no se puede abrir el archivo\n")


def test_nothing_in_a_file_steers_the_terminal(siis: Siis, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,\x1b[2Jb,c\n1,2,3\n")
    assert "\x1b" not in siis("adapter", "sniff", path).out


# A file that costs more than a second of processor time ends the process.
_SNIFF_ALL = """
import json, re, signal, sys
from pathlib import Path
from adapters.files.sniff import sniff
for line in sys.stdin:
    signal.setitimer(signal.ITIMER_PROF, 1.0)
    path = Path(line.rstrip("\\n"))
    found = sniff(path)
    json.dumps(found.as_json())
    assert found.format is not None or found.problems[0].row == 0, path
    print(path.name, flush=True)
# Not getrusage: its peak begins at that of the process this one was forked from.
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_every_sample_ends_in_a_result_or_a_named_refusal_at_little_cost(samples: Path) -> None:
    files = [path for folder in ("csv", "attack") for path in sorted((samples / folder).rglob("*")) if path.is_file()]
    assert len(files) > 200
    names = "".join(f"{path}\n" for path in files)
    command = [sys.executable, "-c", _SNIFF_ALL]
    done = subprocess.run(command, input=names, capture_output=True, text=True, env=clean(), check=False)
    *seen, peak_kib = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(seen)) == (0, "", len(files))
    assert int(peak_kib) < 200 * 1024
