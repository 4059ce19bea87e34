"""How fast a register comes in as a file: parsed, mapped, validated, every bad row named; one JSON line.

Usage: ``python -m bench.files [ROWS] [SEED]``. Beside it polars reads the same file raw, in a process of its own. Bad
rows are one in a hundred, of six kinds; the numbers of those found must be those made.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from adapters.files.formats import compile_format
from adapters.files.rows import read_rows
from adapters.mapping import FieldTable, compile_field
from adapters.models import RejectedRow
from adapters.simulator.names import GIVEN_F, NEIGHBOURHOODS, RURAL_PLACES, SURNAMES
from bench import registers
from bench.common import PROGRAM_CORE, machine
from bench.population import peak_mib

REQUEST: dict[str, Any] = {
    "folder": "/salida",
    "encoding": "utf-8",
    "delimiter": ";",
    "columns": [
        "cedula", "nombres", "apellidos", "fecha_nac", "sexo", "cod_dpto", "cod_dist", "localidad", "telefono",
        "programa", "estado", "monto", "periodo", "fecha_ingreso", "titular",
    ],
}  # fmt: skip
_CLEAN = ["no-control", "collapse-spaces"]
FIELDS: dict[str, Any] = {
    "identifier": {"from": "cedula", "through": ["strip", "cedula"], "required": True},
    "given_names": {"from": "nombres", "through": _CLEAN, "required": True},
    "surnames": {"from": "apellidos", "through": _CLEAN, "required": True},
    "birth_date": {"from": "fecha_nac", "through": ["strip", "date-dmy", "not-future"], "required": True},
    "sex": {"from": "sexo", "through": ["strip", "upper"], "codes": {"F": "female", "M": "male"}, "required": True},
    "department": {"from": "cod_dpto", "through": ["pad2"], "required": True},
    "district": {"from": "cod_dist", "through": ["pad4"]},
    "locality": {"from": "localidad", "through": _CLEAN},
    "phone": {"from": "telefono", "through": ["strip", "mobile"]},
    "programme": {
        "from": "programa",
        "codes": {"TK": "tekopora", "AM": "universal-pension", "AB": "abrazo"},
        "required": True,
    },
    "active": {"from": "estado", "codes": {"ACTIVO": "yes", "SUSPENDIDO": "no", "BAJA": "no"}, "required": True},
    "amount_pyg": {"from": "monto", "through": ["thousand-dots", "integer"], "required": True},
    "period": {"from": "periodo", "through": ["month-year"], "required": True},
    "since": {"from": "fecha_ingreso", "through": ["strip", "date-dmy"]},
    "holder": {"from": "titular", "through": ["boolean-si-no"], "required": True},
}
#: Six ways a clerk or an export spoils a row.
SPOILS: tuple[Callable[[list[str]], list[str]], ...] = (
    lambda row: row[:-1],
    lambda row: [f"{row[0][:2]}X{row[0][2:]}", *row[1:]],
    lambda row: [*row[:3], f"31/02/{row[3][-4:]}", *row[4:]],
    lambda row: [*row[:2], "", *row[3:]],
    lambda row: [*row[:10], "PENDIENTE", *row[11:]],
    lambda row: [*row[:11], f"{row[11]},50", *row[12:]],
)


def generate(path: Path, rows: int = 1_000_000, seed: int = 1) -> list[int]:
    """Write the file; return the numbers of the bad rows in it."""
    random = Random(seed)
    bad = []
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(";".join(REQUEST["columns"]) + "\r\n")
        for number in range(1, rows + 1):
            row = _row(random)
            if random.random() < 0.01:
                row = SPOILS[random.randrange(len(SPOILS))](row)
                bad.append(number)
            file.write(";".join(row) + "\r\n")
    return bad


def table() -> FieldTable:
    """Compile the fields as a manifest would."""
    return FieldTable([compile_field(name, spec) for name, spec in FIELDS.items()])


def _row(random: Random) -> list[str]:
    pick = random.random
    place = NEIGHBOURHOODS if pick() < 0.5 else RURAL_PLACES
    department = int(pick() * 18)
    year, month, day = 1926 + int(pick() * 95), 1 + int(pick() * 12), 1 + int(pick() * 28)
    return [
        str(300_000 + int(pick() * 7_900_000)),
        f"{GIVEN_F[int(pick() * len(GIVEN_F))]} {GIVEN_F[int(pick() * len(GIVEN_F))]}",
        f"{SURNAMES[int(pick() * len(SURNAMES))]} {SURNAMES[int(pick() * len(SURNAMES))]}",
        f"{day:02}/{month:02}/{year}",
        "F" if pick() < 0.5 else "M",
        str(department),
        f"{department}{1 + int(pick() * 20):02}",
        f"{place[int(pick() * len(place))]}, manzana {int(pick() * 100)}, lote {int(pick() * 100)}",
        f"09{6 + int(pick() * 4)}{int(pick() * 10_000_000):07}" if pick() < 0.6 else "",
        ("TK", "AM", "AB")[int(pick() * 3)],
        ("ACTIVO", "ACTIVO", "SUSPENDIDO", "BAJA")[int(pick() * 4)],
        f"{100 + int(pick() * 900)}.{250 * int(pick() * 4):03}",
        f"{month:02}/{2005 + year % 20}",
        f"{day:02}/{month:02}/{2005 + year % 20}",
        "SI" if pick() < 0.7 else "NO",
    ]


def read(path: Path) -> dict[str, Any]:
    """Parse, map and validate the file; return the figures, peak memory of this process among them."""
    # As the programs that serve do.
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    before = peak_mib()
    started = time.perf_counter()
    good, bad = 0, []
    for batch in read_rows(path, compile_format(REQUEST), table()):
        named = [row.row for row in batch if isinstance(row, RejectedRow)]
        good += len(batch) - len(named)
        bad += named
    seconds = time.perf_counter() - started
    return {
        "rows": good + len(bad),
        "bad": bad,
        "seconds": seconds,
        "peak_rss_mib": peak_mib(),
        "start_rss_mib": before,
    }


def read_raw(path: Path) -> dict[str, Any]:
    """Let polars read the file as texts, short rows padded; it names no bad row."""
    import polars

    started = time.perf_counter()
    frame = polars.read_csv(path, separator=";", infer_schema=False, truncate_ragged_lines=True)
    seconds = time.perf_counter() - started
    return {"rows": frame.height, "seconds": seconds, "peak_rss_mib": peak_mib()}


def alone(what: str, path: Path) -> dict[str, Any]:
    """Run one of the readings in a process of its own, on the core of the program under test."""
    pinned = ["taskset", "-c", str(PROGRAM_CORE)] if shutil.which("taskset") else []
    command = [*pinned, sys.executable, "-m", "bench.files", what, str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def main(rows: int = 1_000_000, seed: int = 1) -> None:
    told: dict[str, Any] = {"benchmark": "files", "columns": len(FIELDS), "machine": machine()}
    with tempfile.TemporaryDirectory(prefix="siis-bench-") as folder:
        path = Path(folder) / "register.csv"
        made = generate(path, rows, seed)
        told["file_mib"] = round(path.stat().st_size / 2**20, 1)
        found = alone("read", path)
        if found.pop("bad") != made:
            sys.exit("the bad rows found are not those made")
        told["parse_map_validate"] = _figures(found) | {"bad_rows": len(made)}
        told["polars_raw"] = _figures(alone("raw", path))
        found = registers.loaded(path, Path(folder))
        if found["bad_rows"] != len(made):
            sys.exit("the bad rows refused are not those made")
        told["loaded_by_copy"] = _figures(found)
    print(json.dumps(told))


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    seconds = found.pop("seconds")
    return found | {"seconds": round(seconds, 2), "rows_per_second": round(found["rows"] / seconds)}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["read" | "raw" as what, path]:
            print(json.dumps((read if what == "read" else read_raw)(Path(path))))
        case ["prepare", _path, folder]:
            registers.prepare(Path(folder))
        case ["load", path, folder]:
            print(json.dumps(registers.load(Path(path), Path(folder), REQUEST, FIELDS)))
        case numbers:
            main(*map(int, numbers))
