"""``siis demo pension`` as a newcomer runs it: applicants over nine institutions, each fact with a source."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: What is advised on each applicant, and what must be among the reasons.
EXPECTED = {
    "65-clear": ("meets", {"age-65"}),
    "60-severe-certificate": ("meets", {"age-60-disability"}),
    "60-moderate-certificate": ("does-not-meet", {"age", "disability-not-severe"}),
    "60-expired-certificate": ("does-not-meet", {"age", "certificate-expired"}),
    "60-certificate-of-another": ("does-not-meet", {"age", "certificate-of-another"}),
    "55-indigenous-registered": ("meets", {"age-55-indigenous"}),
    "55-indigenous-not-registered": ("does-not-meet", {"age", "community-not-registered"}),
    "foreigner-30-years": ("meets", {"age-65", "residence"}),
    "foreigner-18-years": ("does-not-meet", {"residence"}),
    "naturalised-14-years": ("look", {"naturalised"}),
    "naturalised-3-years": ("does-not-meet", {"residence"}),
    "on-payroll": ("does-not-meet", {"on-payroll"}),
    "other-pension": ("does-not-meet", {"other-pension"}),
    "insured-contributing": ("does-not-meet", {"insured"}),
    "insured-once": ("meets", {"age-65", "not-contributing"}),
    "dead-on-roll": ("does-not-meet", {"deceased", "dead-on-roll"}),
    "alive-on-roll": ("does-not-meet", {"already-on-roll"}),
    "taxpayer-active": ("does-not-meet", {"taxpayer"}),
    "taxpayer-cancelled": ("meets", {"age-65", "taxpayer"}),
    "too-young": ("does-not-meet", {"age"}),
    "birth-dates-differ": ("look", {"birth-dates-differ"}),
}


@pytest.fixture(scope="module")
def told(folders: Callable[[str], Path]) -> Any:
    folder = folders("pension")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIIS_")}
    command = [sys.executable, "-m", "gateway.cli", "demo", "pension", "--json"]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1]) | {"shown": run.stderr}


def test_every_applicant_gets_the_advice_the_facts_support(told: dict[str, Any]) -> None:
    found = {
        item["case"]: (item["verdict"], {finding["code"] for finding in item["findings"]})
        for item in told["applicants"]
    }
    assert found.keys() == EXPECTED.keys()
    for case, (verdict, reasons) in EXPECTED.items():
        assert found[case][0] == verdict, (case, found[case])
        assert reasons <= found[case][1], (case, found[case])


def test_every_fact_names_its_source_its_day_and_its_entry_in_the_log(told: dict[str, Any]) -> None:
    findings = [finding for item in told["applicants"] for finding in item["findings"]]
    with_facts = [finding for finding in findings if finding["at"] is not None]
    assert len(with_facts) > len(told["applicants"])
    assert all(finding["system"] and finding["institution"] and finding["receipt"] for finding in with_facts)
    # That a source has nothing is a finding too, and its question is in the log as well.
    assert all(finding["receipt"] for finding in findings)
    systems = {finding["system"] for finding in with_facts}
    files = {"sfp", "dnit", "mds-padron"}
    assert systems >= files | {"identificaciones", "registro-civil", "ips", "senadis", "indi", "migraciones"}


def test_registers_are_taken_whole_before_anybody_is_crossed(told: dict[str, Any]) -> None:
    taken: dict[str, list[dict[str, Any]]] = {}
    for register in told["registers"]:
        taken.setdefault(register["adapter"], []).append(register)
    assert len(taken["dnit"]) == 10
    assert {register["outcome"] for registers in taken.values() for register in registers} == {"taken"}
    assert all(register["rows"] > 0 for register in taken["sfp"] + taken["mds-padron"])


def test_a_person_reads_name_advice_and_source(told: dict[str, Any]) -> None:
    assert "29900001 Ramona Élida Zárate Ojeda: reúne los requisitos" in told["shown"]
    assert "decide una persona" in told["shown"]
    assert "REC (registro-civil " in told["shown"]
