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

from gateway.statistics.definitions import STEPS
from schemas.codes import code_list


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


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    """What the first run tells."""
    run = siis(folder, "demo", "--exit", "--json")
    assert run.returncode == 0, run.stderr[-3000:]
    summary: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return summary


def test_the_demonstration_loses_nothing_and_reaches_all_three_kinds_of_systems(told: dict[str, Any]) -> None:
    referrals, disclosures = told["referrals"], told["disclosures"]
    assert told["lost"] == 0
    assert referrals["sent"] == 60 + 9 + (2 if referrals["fhir_samples_found"] else 0)
    assert all(referrals["by_channel"][name] >= 1 for name in ("soap", "rest", "file"))
    assert referrals["retried"] > 0
    assert referrals["open"] == 0
    assert sum(disclosures[name] for name in ("permitted", "trimmed", "denied", "failed")) == 40
    assert disclosures["permitted"]
    assert disclosures["trimmed"]
    assert disclosures["denied"]
    assert told["status"]["after"]["services_reached"] > told["status"]["before"]["services_reached"]
    assert told["audit"]["ok"]


def test_all_parts_of_the_five_steps_are_played(told: dict[str, Any]) -> None:
    steps, referrals = told["steps"], told["referrals"]
    assert steps["demand"] == {"full": 1, "simplified": 1, "community": 1, "persons": 6, "without_cedula": 1}
    orientation, outreach = steps["orientation"], steps["outreach"]
    assert min(orientation.pop(name) for name in ("described", "personal", "board_gaps")) > 0
    # Each institution's report has the referrals to its own services, and together they have all.
    assert orientation.pop("reported") == referrals["sent"]
    assert orientation == {
        "open": 3,
        "priority_track": 2,
        "board_copies": 2,
        "cases": 1,
        "cancelled_unsent": 1,
        "cancelled_sent": 1,
    }
    assert referrals["cancelled"] == 2
    assert (outreach["claimed"], outreach["parts"], outreach["linked"]) == (3, 2, 1)
    assert outreach["appointments"] >= 2
    assert outreach["no_shows"] >= 1
    assert referrals["provided"] >= steps["counter_referral"]["status_changed"] > 0


def test_funnel_achievements_and_delivery_are_told_before_and_after(told: dict[str, Any]) -> None:
    referrals, funnel = told["referrals"], told["funnel"]
    before = {each["step"]: each["before"] for each in funnel}
    after = {each["step"]: each["after"] for each in funnel}
    assert tuple(after) == STEPS
    assert sorted(after.values(), reverse=True) == list(after.values())
    assert (before["referred"], after["referred"]) == (0, referrals["sent"])
    assert after["delivered"] == referrals["provided"] + referrals["partly_provided"]
    assert after["status_changed"] == told["steps"]["counter_referral"]["status_changed"]
    assert [each["category"] for each in told["achievements"]] == list(code_list("life-cycle"))
    lanes = {lane["institution"]: lane for lane in told["delivery"]}
    assert lanes.keys() == {"MDS", "MSPBS", "MINNA"}
    assert all(lane["transmitted"] > 0 and not lane["waiting"] and not lane["paused"] for lane in lanes.values())


def test_a_second_run_on_the_same_folder_works_and_fits_on_two_screens(folder: Path, told: dict[str, Any]) -> None:
    run = siis(folder, "demo", "--exit")
    # It ends with 0 only when nothing was lost and the log is intact.
    assert run.returncode == 0, run.stderr[-3000:]
    parts = (
        "1 Demanda",
        "2 Orientación",
        "3 Alcance",
        "4 Servicio",
        "5 Contrarreferencia",
        "Embudo",
        "Logros",
        "Entrega",
    )
    places = [run.stdout.index(part) for part in parts]
    assert places == sorted(places)
    assert len(run.stdout.splitlines()) <= 80


def test_a_changed_byte_or_a_removed_row_is_found_and_named(folder: Path, told: dict[str, Any]) -> None:
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
