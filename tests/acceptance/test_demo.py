"""The README's first command as a newcomer runs it: twice on one folder, then the log checked and tampered with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest


def siis(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIIS_")}
    samples = os.environ.get("SIIS_SAMPLES")
    if samples:
        environment["SIIS_SAMPLES"] = samples
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(folders: Callable[[str], Path]) -> Any:
    path = folders("demo")
    yield path
    siis(path, "db", "stop")


def played(folder: Path) -> dict[str, Any]:
    run = siis(folder, "demo", "--exit", "--json")
    assert run.returncode == 0, run.stderr[-3000:]
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told


def test_the_demonstration_loses_nothing_and_reaches_all_three_kinds_of_systems(folder: Path) -> None:
    told = played(folder)
    referrals, disclosures = told["referrals"], told["disclosures"]
    assert told["lost"] == 0
    assert referrals["sent"] == 60 + (2 if referrals["fhir_samples_found"] else 0)
    assert all(referrals["by_channel"][name] >= 1 for name in ("soap", "rest", "file"))
    assert referrals["retried"] > 0
    assert referrals["open"] == 0
    assert sum(disclosures[name] for name in ("permitted", "trimmed", "denied", "failed")) == 40
    assert disclosures["permitted"]
    assert disclosures["trimmed"]
    assert disclosures["denied"]
    assert told["status"]["after"]["services_reached"] > told["status"]["before"]["services_reached"]
    assert told["audit"]["ok"]


def test_a_second_run_on_the_same_folder_works_too(folder: Path) -> None:
    assert played(folder)["lost"] == 0


def test_a_changed_byte_or_a_removed_row_is_found_and_named(folder: Path) -> None:
    assert siis(folder, "audit", "verify").returncode == 0
    url = siis(folder, "db", "url").stdout.strip()
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT entry_id FROM audit.sequence ORDER BY index OFFSET 7 LIMIT 1").fetchone()
        assert row is not None
        entry_id = row[0]
        flip = "UPDATE audit.entry SET envelope = set_byte(envelope, 20, get_byte(envelope, 20) # 1) WHERE id = %s"
        connection.execute(flip, (entry_id,))
        connection.commit()
        changed = siis(folder, "audit", "verify")
        assert changed.returncode == 1
        assert str(entry_id) in changed.stderr
        connection.execute(flip, (entry_id,))
        connection.commit()
        assert siis(folder, "audit", "verify").returncode == 0
        connection.execute("DELETE FROM audit.entry WHERE id = %s", (entry_id,))
        connection.commit()
    removed = siis(folder, "audit", "verify", "--json")
    assert removed.returncode == 1
    first = json.loads(removed.stdout)["first_problem"]
    assert first["entry_id"] == str(entry_id)
    assert first["kind"] == "missing"
