"""The log of a running house: entry bundles for the coordinator's auditors alone, and receipts checked by command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey
from typer.testing import CliRunner

from audit.verify import HASH_BYTES, leaf_hash, open_checkpoint, parse_policy
from gateway.cli import audit_offline
from gateway.cli.demo.clients import Caller
from gateway.clock import utc_now
from gateway.identity.assertions import operator_assertion
from schemas.ids import uuid7
from tests.acceptance.bad_input import DISCLOSURES, adults, asking, entries, newcomer
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import appoint
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def siis(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", house.settings.data_dir)
    yield made
    made.end()


async def a_receipt(house: House, which: int) -> dict[str, Any]:
    """Ask for somebody's data and return the answer, which has a receipt in it."""
    answer = await house.callers["demo-mds"].post(DISCLOSURES, asking(adults(house)[which]))
    told: dict[str, Any] = answer.json()
    return told


async def covered(house: House, entry_id: str) -> None:
    async def proven() -> bool:
        answer = await house.http.get(f"{house.issuer.url}/audit/log/proof/{entry_id}")
        return answer.status_code == 200

    await until(proven)


async def bundle(house: House, system: Caller | None, operator: str | None, path: str = "000.p/1") -> httpx.Response:
    """Ask for an entry bundle of this year's log."""
    headers = {} if system is None else {"Authorization": f"Bearer {system.token}"}
    if system is not None and operator is not None:
        headers["X-SIIS-Operator"] = operator_assertion(
            ECKey.import_key(system.private_key),
            client_id=system.client_id,
            issuer=house.issuer,
            operator=operator,
            roles=frozenset({"auditor"}),
            acr="2",
            now=datetime.now(UTC),
        )
    address = f"{house.issuer.url}/audit/log/{utc_now().year}/tile/entries/{path}"
    return await house.http.get(address, headers=headers)


async def test_entry_bundles_are_for_auditors_of_the_coordinator_and_each_reading_is_an_entry(house: House) -> None:
    await covered(house, (await a_receipt(house, 90))["receipt"]["entry_id"])
    utgs = await newcomer(house, "UTGS", "audit.read")
    mds = await newcomer(house, "MDS", "audit.read")
    unscoped = await newcomer(house, "UTGS", "referrals.read")
    for institution in ("UTGS", "MDS"):
        await appoint(house, institution, "auditora-9", "auditor")
    since = uuid7()
    assert (await bundle(house, None, None)).status_code == 401
    assert (await bundle(house, unscoped, "auditora-9")).status_code == 403
    assert (await bundle(house, utgs, "nadie-9")).status_code == 403
    assert (await bundle(house, mds, "auditora-9")).status_code == 404
    for path in ("999", "000.p/0", "x000/000", "x999/x999/x999/x999/x999/999"):
        assert (await bundle(house, utgs, "auditora-9", path)).status_code == 404
    assert await entries(house, "log.read", since) == []
    answer = await bundle(house, utgs, "auditora-9")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-type"] == "application/octet-stream"
    hashes = await house.http.get(f"{house.issuer.url}/audit/log/{utc_now().year}/tile/0/000.p/1")
    assert len(hashes.content) == HASH_BYTES
    assert leaf_hash(answer.content[2:]) == hashes.content
    [read] = await entries(house, "log.read", since)
    assert read["what"] == {"log": utc_now().year, "from": 0, "limit": 1}
    assert (read["actor"]["institution"], read["actor"]["user"]) == ("UTGS", "auditora-9")


async def test_the_checkpoint_that_the_house_serves_is_signed_by_the_key_of_its_policy(house: House) -> None:
    policy = await house.http.get(f"{house.issuer.url}/audit/log/policy")
    note = await house.http.get(f"{house.issuer.url}/audit/log/{utc_now().year}/checkpoint")
    signed = open_checkpoint(note.text, parse_policy(policy.text))
    assert signed.checkpoint.origin == f"{house.settings.log_origin}/{utc_now().year}"


async def test_a_receipt_is_checked_here_over_the_network_and_from_a_file(
    house: House, siis: Siis, tmp_path: Path
) -> None:
    answer = await a_receipt(house, 91)
    entry_id = answer["receipt"]["entry_id"]
    receipt, policy, proof = (tmp_path / name for name in ("receipt.json", "policy", "proof"))
    receipt.write_text(json.dumps(answer))
    await covered(house, entry_id)
    proof.write_text((await house.http.get(f"{house.issuer.url}{answer['receipt']['proof']}")).text, newline="\n")
    policy.write_text((await house.http.get(f"{house.issuer.url}/audit/log/policy")).text, newline="\n")
    here = await run(siis, "receipt", "check", receipt, "--json")
    there = await run(siis, "receipt", "check", receipt, "--from", house.issuer.url, "--json")
    offline = await run(siis, "receipt", "check", receipt, "--proof", proof, "--policy", policy, "--json")
    assert [each.code for each in (here, there, offline)] == [0, 0, 0]
    assert here.json()["index"] == there.json()["index"] == offline.json()["index"]
    assert here.json()["log"] == f"{house.settings.log_origin}/{utc_now().year}"
    told = await run(siis, "receipt", "check", receipt, "--from", house.issuer.url)
    assert "misma pasarela" in told.out


async def test_a_receipt_of_something_else_is_refused(house: House, siis: Siis, tmp_path: Path) -> None:
    held = (await a_receipt(house, 92))["receipt"]
    await covered(house, held["entry_id"])
    receipt = tmp_path / "receipt.json"
    for changes, kind in (({"leaf_hash": "00" * 32}, "changed"), ({"entry_id": str(uuid7())}, "missing")):
        receipt.write_text(json.dumps({**held, **changes}))
        ended = await run(siis, "receipt", "check", receipt, "--json")
        assert (ended.code, ended.json()["valid"], ended.json()["kind"]) == (1, False, kind)
    ended = await run(siis, "receipt", "check", receipt, "--from", house.issuer.url)
    assert (ended.code, "Todavía no hay una prueba" in ended.err) == (1, True)


async def test_two_checkpoints_of_the_house_are_proved_by_its_own_tiles(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def taken(name: str) -> Path:
        path = tmp_path / name
        await covered(house, (await a_receipt(house, 93))["receipt"]["entry_id"])
        note = await house.http.get(f"{house.issuer.url}/audit/log/{utc_now().year}/checkpoint")
        path.write_text(note.text, newline="\n")
        return path

    old, new, policy = await taken("old"), await taken("new"), tmp_path / "policy"
    policy.write_text((await house.http.get(f"{house.issuer.url}/audit/log/policy")).text, newline="\n")
    monkeypatch.setenv("SIIS_DATA_DIR", str(house.settings.data_dir))
    arguments = ["verify-checkpoints", str(old), str(new), "--policy", str(policy)]
    ended = [
        await asyncio.to_thread(CliRunner().invoke, audit_offline.app, [*arguments, *more]) for more in ([], ["--here"])
    ]
    assert [each.exit_code for each in ended] == [2, 0]
