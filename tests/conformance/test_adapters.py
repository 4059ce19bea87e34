"""Every manifest against the conformance kit's cases, and the simulated institutions as processes.

The kit (adapters/conformance) answers badly over real sockets, from examples of each contract; the second half asks
institutions that live, remember and answer in their own time.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from adapter_examples import MANIFESTS, SERVICES, connect, fetch, poll, send

from adapters.conformance.report import titles
from adapters.conformance.runner import chosen, run
from adapters.models import (
    Adapter,
    AlreadyTaken,
    Found,
    Identifier,
    Malformed,
    NotFound,
    Page,
    Rejected,
    RejectedRow,
    Taken,
    Unavailable,
)
from adapters.simulator.population import generate
from schemas.ids import uuid7

ROOT = MANIFESTS.parents[1]
NAMES = sorted(file.stem for file in MANIFESTS.glob("*.yaml"))
OTHER_KINDS = Path(__file__).parent / "other_kinds"
OTHER_NAMES = sorted(file.stem for file in OTHER_KINDS.glob("*.yaml"))
SIMULATED = ("identificaciones", "identificaciones-soap", "mds", "minna", "mspbs")
#: What issue 3 names, by the kit's names; every fetch over HTTP has them all.
NAMED = {
    "found", "not_found", "rejected", "slow", "half", "reset", "duplicate", "wrong-charset", "html", "empty", "huge",
    "extra-field", "missing-field", "reordered", "token-expired",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_every_shipped_manifest_ends_every_case_in_the_outcome_it_should(name: str) -> None:
    [report] = await run(chosen([], [name]), everything=False)
    assert len(report.results) >= 20
    assert [(result.verb, result.case, result.detail, result.wrong) for result in report.failures] == []


@pytest.fixture
def other_kinds(tmp_path: Path) -> Path:
    """Manifests of the kinds and options that no shipped one has, with their cases beside them."""
    folder = tmp_path / "manifests"
    shutil.copytree(OTHER_KINDS, folder)
    shutil.copytree(MANIFESTS / "wsdl", folder / "wsdl")
    return folder


@pytest.mark.parametrize("name", OTHER_NAMES)
async def test_databases_spreadsheets_signatures_and_mutual_tls_are_held_to_the_cases_too(
    name: str, other_kinds: Path
) -> None:
    [report] = await run(chosen([other_kinds], [name]), everything=False)
    assert len(report.results) >= 20
    assert [(result.verb, result.case, result.detail, result.wrong) for result in report.failures] == []


async def test_the_cases_of_a_fetch_are_those_that_were_agreed() -> None:
    reports = await run(chosen([], ["identificaciones", "identificaciones-soap"]), everything=False)
    for report in reports:
        assert {result.case for result in report.results} <= set(titles())
        assert {result.case for result in report.results if not result.skipped} >= NAMED


class Simulator:
    """One simulated institution as a process of its own."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "adapters.simulator", name, "--persons", "300"],
            cwd=ROOT,
            env={**os.environ, "SIIS_SIM_PASSWORD": "clave" if name == "mspbs" else "clave-ñ"},
            stdout=subprocess.PIPE,
        )

    def wait(self) -> None:
        assert self.process.stdout is not None
        self.ready: dict[str, str] = json.loads(self.process.stdout.readline())

    def switch(self, **values: float) -> None:
        with httpx.Client(trust_env=False) as client:
            client.post(f"{self.ready['control']}/_control/switches", json=values).raise_for_status()

    def effects(self) -> dict[str, int]:
        with httpx.Client(trust_env=False) as client:
            received: dict[str, int] = client.get(f"{self.ready['control']}/_control/ledger").json()["received"]
        return received

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)


QUIET = {"latency_ms": 0, "fail_503": 0, "reset": 0, "garbage": 0, "duplicate": 0, "after_effect_reset": 0}


@pytest.fixture(scope="module")
def simulators() -> Iterator[dict[str, Simulator]]:
    found = {name: Simulator(name) for name in SIMULATED}
    try:
        for simulator in found.values():
            simulator.wait()
        yield found
    finally:
        for simulator in found.values():
            simulator.stop()


@pytest.fixture
def institution(simulators: dict[str, Simulator], tmp_path: Path) -> Callable[..., tuple[Adapter, Simulator]]:
    def connected(name: str, **changes: str) -> tuple[Adapter, Simulator]:
        simulator = simulators[name]
        simulator.switch(**QUIET, token_life_s=3600, accept_after_s=0.0, outcome_after_s=0.0)
        key = simulator.ready.get("host_key")
        return connect(tmp_path, name, simulator.ready["address"], host_key=key, changes=changes), simulator

    return connected


PERSON = next(person for household in generate(300, 1) for person in household.members if person.cedula)
KNOWN = Identifier("cedula", PERSON.cedula or "")
HOLDING = [
    ("identificaciones", "identity"),
    ("identificaciones-soap", "identity"),
    ("identificaciones-soap", "birth-entry"),
]
SENDING = sorted(SERVICES)
Institution = Callable[..., tuple[Adapter, Simulator]]


@pytest.mark.parametrize(("name", "dataset"), HOLDING)
async def test_a_person_of_the_register_is_found_and_another_not(
    institution: Institution, name: str, dataset: str
) -> None:
    adapter, _simulator = institution(name)
    found = await fetch(adapter, dataset, KNOWN)
    assert type(found) is Found
    assert found.facts["surnames"] == PERSON.surnames
    assert found.facts["birth_date"] == PERSON.birth_date.isoformat()
    assert type(await fetch(adapter, dataset, Identifier("cedula", "1"))) is NotFound
    await adapter.close()


@pytest.mark.parametrize(("name", "dataset"), HOLDING)
@pytest.mark.parametrize(
    ("switch", "times", "kind"),
    [
        ("fail_503", 1, Found),
        ("fail_503", -1, Unavailable),
        ("reset", 1, Found),
        ("reset", -1, Unavailable),
        ("garbage", 1, Malformed),
        ("latency_ms", 60_000, Unavailable),
    ],
)
async def test_a_register_that_misbehaves(
    institution: Institution, name: str, dataset: str, switch: str, times: int, kind: type
) -> None:
    slow = {"budget_s: 3": "budget_s: 1"} if name == "identificaciones" else {"budget_s: 5": "budget_s: 1"}
    adapter, simulator = institution(name, **(slow if switch == "latency_ms" else {}))
    assert type(await fetch(adapter, dataset, KNOWN)) is Found
    simulator.switch(**{switch: times})
    assert type(await fetch(adapter, dataset, KNOWN)) is kind
    simulator.switch(**QUIET)
    assert type(await fetch(adapter, dataset, KNOWN)) is Found
    await adapter.close()


async def test_a_session_that_ends_is_opened_again_within_the_call(institution: Institution) -> None:
    adapter, simulator = institution("identificaciones")
    assert type(await fetch(adapter, "identity", KNOWN)) is Found
    simulator.switch(token_life_s=0)
    refused = await fetch(adapter, "identity", KNOWN)
    assert (type(refused), refused.reason) == (Unavailable, "http 401: credentials refused")
    simulator.switch(token_life_s=3600)
    found = await fetch(adapter, "identity", KNOWN)
    assert (type(found), found.provenance.attempts) == (Found, 1)
    await adapter.close()


@pytest.mark.parametrize("name", SENDING)
@pytest.mark.parametrize("switch", ["fail_503", "reset", "after_effect_reset"])
async def test_a_referral_has_its_effect_once_whatever_happens_on_the_way(
    institution: Institution, name: str, switch: str
) -> None:
    adapter, simulator = institution(name)
    referral_id = uuid7()
    simulator.switch(**{switch: 1})
    outcome = await send(adapter, referral_id=referral_id)
    assert type(outcome) in (Taken, AlreadyTaken), outcome
    assert outcome.provenance.attempts == 2
    again = await send(adapter, referral_id=referral_id)
    # MINNA takes files out of the folder: it knows a repeated one by the id in its row, and says nothing.
    assert type(again) in ((Taken, AlreadyTaken) if name == "minna" else (AlreadyTaken,))
    deadline = time.monotonic() + 10
    while simulator.effects().get(str(referral_id)) is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert simulator.effects()[str(referral_id)] == 1
    await adapter.close()


async def test_a_referral_the_recipient_cannot_work_with_is_rejected(institution: Institution) -> None:
    adapter, _simulator = institution("mspbs", **{"motivo.codigo: reason_code": "motivo.codigo: nothing"})
    outcome = await send(adapter, referral_id=uuid7())
    assert type(outcome) is Rejected
    assert outcome.reason == "Derivación no válida: falta motivo.codigo"
    await adapter.close()


@pytest.mark.parametrize("name", ["mds", "minna"])
async def test_every_reply_comes_once_by_the_cursor_bad_rows_named(institution: Institution, name: str) -> None:
    adapter, simulator = institution(name)
    sent = {uuid7() for _ in range(20)}
    for referral_id in sent:
        assert type(await send(adapter, referral_id=referral_id)) is Taken
    simulator.switch(duplicate=1)
    ended: set[Any] = set()
    messages: list[str] = []
    cursor, deadline = None, time.monotonic() + 20
    while not sent <= ended:
        assert time.monotonic() < deadline
        page = await poll(adapter, cursor)
        assert type(page) is Page, page
        messages += [reply.message_id for reply in page.items]
        ended |= {reply.referral_id for reply in page.items if reply.event in ("decline", "outcome")}
        assert all(reject.what for reject in page.rejects)
        cursor = page.cursor
        await asyncio.sleep(0.02)
    assert len(messages) >= len(set(messages)) >= len(sent)
    await adapter.close()


async def test_garbage_between_the_files_is_named_and_passed(institution: Institution) -> None:
    adapter, simulator = institution("minna")
    simulator.switch(garbage=3)
    rejects: list[RejectedRow] = []
    cursor, replies, deadline = None, 0, time.monotonic() + 20
    for _ in range(3):
        assert type(await send(adapter, referral_id=uuid7())) is Taken
        await asyncio.sleep(0)
    while len(rejects) < 3 or not replies:
        assert time.monotonic() < deadline
        page = await poll(adapter, cursor)
        assert type(page) is Page
        rejects += [reject for reject in page.rejects if reject.row == 0]
        replies += len(page.items)
        cursor = page.cursor
        if not page.more:
            await send(adapter, referral_id=uuid7())
    assert all("header" in reject.what for reject in rejects)
    await adapter.close()
