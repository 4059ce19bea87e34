"""Every shipped manifest against the same cases: whatever a producer does, each verb ends in the outcome it should.

The first half speaks to raw sockets that answer badly; the second to the simulated institutions as processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from adapter_examples import (
    MANIFESTS,
    RESET,
    SERVICES,
    Handler,
    closed_address,
    connect,
    fetch,
    http,
    poll,
    read_request,
    send,
    server,
)

from adapters.manifest import load_manifest
from adapters.models import (
    Adapter,
    AlreadyTaken,
    Found,
    Identifier,
    Malformed,
    NotFound,
    Page,
    Provenance,
    Rejected,
    RejectedRow,
    Taken,
    Unavailable,
)
from adapters.simulator.population import generate
from schemas.ids import uuid7

ROOT = MANIFESTS.parents[1]
NAMES = sorted(file.stem for file in MANIFESTS.glob("*.yaml"))
Ask = Callable[[Adapter], Awaitable[Any]]


def says(answer: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return handler


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def after_the_session(case: Handler) -> Handler:
    """Read the request; open a session where one is asked for, and otherwise do what the case does."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _method, path, _headers, _body = await read_request(reader)
        session = says(http(200, b'{"token": "t", "success": true}'))
        await (session if path == "/security" else case)(reader, writer)

    return handler


XML = "text/xml; charset=utf-8"
#: What an HTTP producer may do, and what that must end in.
CASES: dict[str, tuple[Handler, type]] = {
    "html with 200": (says(http(200, b"<html><body>Mantenimiento</body></html>", "text/html")), Malformed),
    "html with 503": (says(http(503, b"<html>", "text/html")), Unavailable),
    "empty 200": (says(http(200, b"")), Malformed),
    "204": (says(http(204, b"")), Malformed),
    "half an answer": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<"), Unavailable),
    "no answer": (says(b""), Unavailable),
    "no HTTP": (says(b"\x00\xff\xfe\x15\r\n\r\n"), Malformed),
    "reset": (resets, Unavailable),
    "slow": (hangs, Unavailable),
    "huge body": (says(http(200, b" " * 1_100_000)), Malformed),
    "wrong charset": (says(http(200, '{"a":"Ñ"}'.encode("latin-1"))), Malformed),
    "noise": (says(http(200, b"\x00\xff\xfe\x15\x80 no es un mensaje \xc3\x28")), Malformed),
    "doctype": (says(http(200, b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', XML)), Malformed),
    "another message": (says(http(200, b"{}")), Malformed),
    "another envelope": (says(http(200, b'<Envelope xmlns="urn:x"><Body/></Envelope>', XML)), Malformed),
    "a list": (says(http(200, b"[]")), Malformed),
    "compressed": (says(http(200, b"\x1f\x8b", Content_Encoding="gzip")), Malformed),
    "redirect": (says(http(302, b"", Location="https://elsewhere.example/")), Malformed),
    "wrong path": (says(http(404, b"<html>404</html>", "text/html")), Malformed),
    "our credentials refused": (says(http(401, b"")), Unavailable),
    "too many requests": (says(http(429, b"", Retry_After="9")), Unavailable),
}
VERBS: dict[str, tuple[str, Ask]] = {
    "identificaciones fetch": ("identificaciones", fetch),
    "identificaciones-soap fetch": ("identificaciones-soap", fetch),
    "identificaciones-soap fetch birth-entry": ("identificaciones-soap", lambda adapter: fetch(adapter, "birth-entry")),
    "mds send": ("mds", send),
    "mds poll": ("mds", poll),
    "mspbs send": ("mspbs", send),
    "minna send": ("minna", send),
    "minna poll": ("minna", poll),
}
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJWKXkM75sj+yZkYwJY+UoX2pLkw7a+4tdg6qeLftCrW"


def test_every_verb_of_every_shipped_manifest_is_held_to_the_cases() -> None:
    for name in NAMES:
        manifest = load_manifest(MANIFESTS / f"{name}.yaml")
        has = {"fetch": bool(manifest.datasets), "send": manifest.send is not None, "poll": manifest.poll is not None}
        assert {f"{name} {verb}" for verb, there in has.items() if there} <= set(VERBS)


def quickly(folder: Path, name: str, address: str) -> Adapter:
    """Connect a manifest with half a second for a call."""
    [budget] = {f"budget_s: {seconds}," for seconds in (3, 5, 10, 15) if f"budget_s: {seconds}," in text(name)}
    key = HOST_KEY if name == "minna" else None
    address = address.replace("http", "sftp") if key else address
    return connect(folder, name, address, host_key=key, changes={budget: "budget_s: 0.5,"})


def text(name: str) -> str:
    return (MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8")


#: A folder on SFTP has no HTTP to be wrong in: these are what is left, and nothing of them is SSH.
ON_ANY_SOCKET = ("half an answer", "no answer", "no HTTP", "reset", "slow", "huge body")
PAIRS = [(verb, case) for verb in VERBS for case in CASES if not verb.startswith("minna") or case in ON_ANY_SOCKET]


@pytest.mark.parametrize(("verb", "case"), PAIRS)
async def test_whatever_a_producer_does_ends_in_a_typed_outcome(tmp_path: Path, verb: str, case: str) -> None:
    name, ask = VERBS[verb]
    handler, kind = CASES[case]
    async with server(after_the_session(handler)) as address:
        adapter = quickly(tmp_path, name, address)
        outcome: Any = await ask(adapter)
        await adapter.close()
    assert type(outcome) is (Unavailable if name == "minna" else kind), outcome
    assert isinstance(outcome.provenance, Provenance)
    assert (outcome.provenance.adapter, outcome.provenance.institution) == (adapter.name, adapter.institution)
    assert outcome.provenance.at.utcoffset() is not None
    assert outcome.reason
    assert not any(secret in repr(outcome) for secret in ("4123456", "Ñasaindy", "clave"))
    assert outcome.effect_unknown is (verb.endswith("send") and name != "minna" and case in MAY_HAVE_ACTED)
    assert not adapter.health.ok


#: After these a referral may have been taken; the others say plainly that it was not.
MAY_HAVE_ACTED = set(CASES) - {"redirect", "wrong path", "our credentials refused", "too many requests"}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_producer_that_is_not_there_had_no_effect(tmp_path: Path, verb: str) -> None:
    name, ask = VERBS[verb]
    outcome = await ask(quickly(tmp_path, name, closed_address()))
    assert type(outcome) is Unavailable
    assert (outcome.reason, outcome.effect_unknown) == ("connection failed", False)
    assert outcome.provenance.attempts == 3


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
    found = {name: Simulator(name) for name in NAMES}
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
    assert {reject.what for reject in rejects} == {"not the header agreed"}
    await adapter.close()
