"""A worker killed again and again while it takes a register: every row once, and the file of rejects complete."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml

from gateway import embedded
from gateway.cli.db import bring_up
from gateway.settings import load_settings

ROWS, KILLS = 100_000, 3
MANIFEST = """
institution: SFP
kind: file
auth: {type: none}
limits: {budget_s: 5, max_body: 100000000}
bulk:
  payroll:
    request: {folder: /publicado, match: "*.csv", encoding: utf-8, delimiter: ";", checksum: sha256}
    subject: {system: cedula, field: cedula}
    reject_over: 0.1
    fields:
      cedula: {from: documento, through: [strip, cedula], required: true}
      surnames: {from: apellidos, through: [strip], required: true}
      birth_date: {from: nacimiento, through: [date-dmy], required: true}
      accrued: {from: devengado, through: [thousand-dots, integer], required: true}
"""
BAD = ("x;Ruiz;01/01/1970;1.000", "7;;01/01/1970;1.000", "7;Ruiz;31/02/1970;1.000", "7;Ruiz;01/01/1970", '7;"Ruiz;1')


def register(path: Path) -> set[int]:
    """Write a register with one bad row in twenty and its sum; return the numbers of the good ones."""
    good = set()
    with path.open("w", encoding="utf-8") as file:
        file.write("documento;apellidos;nacimiento;devengado\n")
        for number in range(1, ROWS + 1):
            bad = number % 20 == 0
            file.write(f"{BAD[number // 20 % 5] if bad else f'{number};Páez Agüero;05/03/1970;3.500.000'}\n")
            if not bad:
                good.add(number)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(digest, encoding="ascii")
    return good


@contextmanager
def worker(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "gateway.cli", "worker"], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def state(url: str) -> tuple[str, int, int]:
    """State, rows dealt with, and length of the file of rejects, as committed."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT state, done, rejects_bytes FROM siis.register_file WHERE adapter = 'nomina'"
        ).fetchone()
    return ("", 0, 0) if found is None else (str(found[0]), int(found[1]), int(found[2]))


def until(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the worker ended by itself"
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.01)


def test_a_worker_killed_while_it_takes_a_register_takes_every_row_once(folders: Callable[[str], Path]) -> None:
    folder = folders("intake")
    published = folder / "sfp" / "publicado"
    published.mkdir(parents=True)
    (folder / "manifests").mkdir()
    for name in ("nomina", "testigo"):
        (folder / "manifests" / f"{name}.yaml").write_text(f"name: {name}{MANIFEST}", encoding="utf-8")
    address = {"address": f"file://{folder / 'sfp'}"}
    (folder / "connections.yaml").write_text(yaml.safe_dump({"nomina": address}), encoding="utf-8")
    good = register(published / "nomina.csv")
    settings = load_settings(data_dir=folder, manifests=folder / "manifests")
    bring_up(settings, demonstration=True)
    url = embedded.start(folder).url(embedded.OWNER)
    environment = {
        **os.environ,
        "SIIS_DATA_DIR": str(folder),
        "SIIS_MANIFESTS": str(folder / "manifests"),
        "SIIS_POLL_INTERVAL_S": "0.2",
    }
    try:
        reached = []

        def in_the_middle() -> bool:
            """Say whether rows were committed and, behind them, rejects written that are not."""
            _state, done, committed = state(url)
            [rejects] = (folder / "rejects").glob("nomina-*.csv") if done else [None]
            return rejects is not None and done not in (0, *reached) and rejects.stat().st_size > committed

        for _ in range(KILLS):
            with worker(environment) as process:
                until(process, in_the_middle)
            reached.append(state(url)[1])
        assert state(url)[0] == "taking", "it was over before it was killed for the last time"
        assert len(set(reached)) == KILLS
        with worker(environment) as process:
            until(process, lambda: state(url)[0] == "taken")
        (folder / "connections.yaml").write_text(yaml.safe_dump({"testigo": address}), encoding="utf-8")
        command = [sys.executable, "-m", "gateway.cli", "register", "take", "testigo", "payroll", "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        undisturbed: dict[str, Any] = json.loads(done.stdout)
        assert (undisturbed["rows"], undisturbed["rejected"]) == (len(good), ROWS - len(good))
        with psycopg.connect(url) as connection:
            rows = connection.execute(
                "SELECT row FROM siis.register_row JOIN siis.register_file ON id = file_id WHERE adapter = 'nomina'"
            ).fetchall()
            counts = connection.execute("SELECT rows, rejected FROM siis.register_file ORDER BY adapter").fetchall()
        assert len(rows) == len(good)
        assert {row for (row,) in rows} == good
        assert counts == [(len(good), ROWS - len(good))] * 2
        [rejects] = (folder / "rejects").glob("nomina-*.csv")
        assert rejects.read_bytes() == Path(undisturbed["rejects"]).read_bytes()
        assert len(rejects.read_bytes().splitlines()) == 1 + ROWS - len(good)
        assert rejects.stat().st_mode & 0o777 == 0o600
    finally:
        embedded.stop(folder)
