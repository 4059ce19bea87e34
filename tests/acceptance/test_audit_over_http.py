"""What auditors do over HTTP and in commands: they search the log, and take parts of it away, with their proof."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio

from adapters.simulator.population import SimPerson
from audit.proofs import prove
from audit.verify import NotValid, check_export, parse_policy
from gateway.cli.demo.clients import Caller
from gateway.runtime import load_signer
from gateway.standards.exports import FORMATS
from gateway.witnesses.policy import policy_text
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, asking, newcomer, nothing_leaks, problem, subject
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import appoint, call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
SEARCH, EXPORTS = "audit/search", "audit/exports"


@dataclass(frozen=True)
class Auditor:
    """An auditor of an institution, at its own system."""

    house: House
    system: Caller
    user: str

    async def ask(self, path: str, body: Any, *, role: str = "auditor") -> httpx.Response:
        return await call(self.house, self.system, "POST", path, body, operator=self.user, role=role)

    async def found(self, **criteria: Any) -> list[dict[str, Any]]:
        """Return all entries that fit, page by page."""
        entries: list[dict[str, Any]] = []
        body: dict[str, Any] = {"criteria": criteria, "limit": 200}
        while True:
            answer = await self.ask(SEARCH, body)
            assert answer.status_code == 200, answer.text
            entries += answer.json()["entries"]
            if answer.json()["next"] is None:
                return entries
            body["after"] = answer.json()["next"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def auditors(house: House) -> dict[str, Auditor]:
    made = {}
    for institution in ("UTGS", "MDS", "MSPBS", "MEC"):
        user = f"auditora-{uuid7()}"
        system = await newcomer(house, institution, "audit.read", "disclosures.create")
        made[institution] = Auditor(house, system, user)
        await appoint(house, institution, user, "auditor")

        async def known(auditor: Auditor = made[institution]) -> bool:
            return (await auditor.ask(SEARCH, {"limit": 1})).status_code == 200

        await until(known)
    return made


@pytest.fixture(scope="module")
def siis(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", house.settings.data_dir)
    yield made
    made.end()


async def disclosed(
    house: House, number: int, system: Caller | None = None, **changes: Any
) -> tuple[SimPerson, dict[str, Any]]:
    """Let a system (of MDS) ask for somebody's identity; return the person and the answer's receipt."""
    person = adults(house)[-number]
    answer = await (system or house.callers["demo-mds"]).post("/api/v1/disclosures", asking(person, **changes))
    receipt: dict[str, Any] = answer.json()["receipt"]
    return person, receipt


async def seen(auditor: Auditor, entry_id: str, **criteria: Any) -> dict[str, Any]:
    """Wait until a search finds an entry, which takes as long as its numbering; return it."""
    got: list[dict[str, Any]] = []

    async def there() -> bool:
        got[:] = [each for each in await auditor.found(**criteria) if each["id"] == entry_id]
        return bool(got)

    await until(there)
    return got[0]


async def covered(house: House, entry_id: str) -> None:
    """Wait until a checkpoint covers an entry: nothing else is exported."""
    async with house.context() as context:

        async def signed() -> bool:
            async with context.database.connection() as connection:
                return await prove(connection, UUID(entry_id)) is not None

        await until(signed)


async def test_auditors_see_what_their_institution_is_party_to_and_the_coordinators_see_all(
    house: House, auditors: dict[str, Auditor]
) -> None:
    system, fields = auditors["MSPBS"].system, ["given_names", "marital_status"]
    person, receipt = await disclosed(house, 21, system, fields=fields, purpose="service-provision")
    named = subject(person.cedula)
    everything = await seen(auditors["UTGS"], receipt["entry_id"], subject=named)
    assert (everything["type"], everything["outcome"]) == ("disclosure.released", "permit_redacted")
    assert everything["detail"]["what"]["holder"] == "PN-IDENT"
    assert everything["proof"] == f"/audit/log/proof/{receipt['entry_id']}"
    assert everything["erased"] is False
    for criteria in (
        {"subject": named, "institution": "MSPBS"},
        {"subject": named, "institution": "PN-IDENT"},
        {"subject": named, "purpose": "service-provision", "basis": "official-authority"},
        {"subject": named, "dataset": "identity", "outcome": "permit_redacted", "type": "disclosure.released"},
        {"withheld": "not-in-agreement"},
        {"subject": named, "since": everything["at"]},
    ):
        ids = {each["id"] for each in await auditors["MSPBS"].found(**criteria)}
        assert receipt["entry_id"] in ids, criteria
    assert await auditors["MEC"].found(subject=named) == []
    assert await auditors["MSPBS"].found(subject=named, until=everything["at"]) == [
        each for each in await auditors["MSPBS"].found(subject=named) if each["at"] < everything["at"]
    ]
    mine = await auditors["MSPBS"].found()
    assert {"MSPBS"} <= {(each["detail"] or {}).get("actor", {}).get("institution") for each in mine}
    for each in mine:
        detail = each["detail"] or {}
        actor, what, exchange = (detail.get(name, {}) for name in ("actor", "what", "exchange"))
        parties = {actor.get("institution"), actor.get("on_behalf_of"), what.get("holder")}
        parties |= {exchange.get("requester"), exchange.get("recipient")}
        assert "MSPBS" in parties, each["type"]


async def test_a_search_is_an_entry_that_names_nobody(house: House, auditors: dict[str, Auditor]) -> None:
    person, receipt = await disclosed(house, 22)
    about = (await seen(auditors["UTGS"], receipt["entry_id"], subject=subject(person.cedula)))["subject"]
    secret = f"op-{uuid4()}"
    answer = await auditors["MDS"].ask(SEARCH, {"criteria": {"subject": subject(person.cedula), "user": secret}})
    searched = await seen(auditors["UTGS"], answer.json()["receipt"]["entry_id"], type="log.searched")
    assert searched["subject"] == about
    assert searched["detail"]["actor"]["user"] == auditors["MDS"].user
    [named] = [each for each in searched["detail"]["what"]["criteria"]["terms"] if each.startswith("user=")]
    assert len(named) == len("user=") + 32
    text = json.dumps(searched)
    assert secret not in text
    assert str(person.cedula) not in text


async def test_somebody_unknown_is_like_somebody_never_asked_about(auditors: dict[str, Auditor], house: House) -> None:
    known = adults(house)[-23]
    answers = [
        await auditors["MEC"].ask(SEARCH, {"criteria": {"subject": subject(value)}})
        for value in ("7999999", known.cedula)
    ]
    shown = [{name: value for name, value in each.json().items() if name != "receipt"} for each in answers]
    assert shown == [{"entries": [], "next": None}] * 2


async def test_ones_own_searches_do_not_tell_who_is_known_to_others(auditors: dict[str, Auditor], house: House) -> None:
    person, receipt = await disclosed(house, 23)
    await seen(auditors["MDS"], receipt["entry_id"], subject=subject(person.cedula))
    told = []
    for value in ("7999999", person.cedula):
        answer = await auditors["MEC"].ask(SEARCH, {"criteria": {"subject": subject(value)}})
        entry = await seen(auditors["MEC"], answer.json()["receipt"]["entry_id"], type="log.searched")
        told.append((entry["subject"], entry["detail"].get("subject")))
        told.append(entry["detail"]["what"]["criteria"])
    assert told[:2] == told[2:]
    # Where the institution has entries about the person, the search is one more.
    answer = await auditors["MDS"].ask(SEARCH, {"criteria": {"subject": subject(person.cedula)}})
    entry = await seen(auditors["MDS"], answer.json()["receipt"]["entry_id"], type="log.searched")
    assert entry["subject"] is not None


async def test_a_page_goes_on_where_it_ended(auditors: dict[str, Auditor]) -> None:
    whole = [each["id"] for each in await auditors["UTGS"].found(type="log.searched")]
    body: dict[str, Any] = {"criteria": {"type": "log.searched"}, "limit": 2}
    found: list[str] = []
    while not set(whole) <= set(found):
        page = (await auditors["UTGS"].ask(SEARCH, body)).json()
        assert len(page["entries"]) <= 2
        found += [each["id"] for each in page["entries"]]
        body["after"] = page["next"]
    # Newer searches, these among them, stand in front of where the first page began.
    assert [each for each in found if each in set(whole)] == whole


@pytest.mark.parametrize("path", [SEARCH, EXPORTS])
async def test_only_an_auditor_gets_in(house: House, auditors: dict[str, Auditor], path: str) -> None:
    body = {"format": "csv"} if path == EXPORTS else {}
    answer = await auditors["MDS"].ask(path, body, role="operator")
    problem(answer, 403, "denied")
    without_operator = await call(house, auditors["MDS"].system, "POST", path, body)
    problem(without_operator, 403, "denied")
    problem(await call(house, house.callers["demo-mds"], "POST", path, body), 403, "unauthorised")


@pytest.mark.parametrize(
    ("criteria", "code", "pointer", "listed"),
    [
        ({"institution": "NADIE"}, "unknown-code", "/criteria/institution", "MDS"),
        ({"purpose": "curiosity"}, "unknown-code", "/criteria/purpose", "service-provision"),
        ({"basis": "whim"}, "unknown-code", "/criteria/basis", "consent"),
        ({"dataset": "secrets"}, "unknown-code", "/criteria/dataset", "identity"),
        ({"outcome": "maybe"}, "unknown-code", "/criteria/outcome", "deny"),
        ({"withheld": "because"}, "unknown-code", "/criteria/withheld", "objection"),
        ({"subject": {"system": "cedula", "value": "1.234"}}, "bad-identifier", "/criteria/subject/value", None),
        (
            {"since": "2026-11-02T00:00:00Z", "until": "2026-11-01T00:00:00Z"},
            "bad-period",
            "/criteria/until",
            None,
        ),
        ({"user": "op-1"}, "user-without-institution", "/criteria/institution", None),
    ],
)
@pytest.mark.parametrize("path", [SEARCH, EXPORTS])
async def test_a_code_that_is_none_gets_those_there_are(
    auditors: dict[str, Auditor], path: str, criteria: dict[str, Any], code: str, pointer: str, listed: str | None
) -> None:
    body = {"criteria": criteria} | ({"format": "csv"} if path == EXPORTS else {})
    answer = await auditors["UTGS"].ask(path, body)
    assert answer.status_code == 422, answer.text
    told = answer.json()
    assert told["type"] == f"urn:siis:problem:{code}"
    assert [each["pointer"] for each in told["errors"]] == [pointer]
    assert listed is None or listed in told["allowed"]
    nothing_leaks(answer)


@pytest.mark.parametrize(
    "body",
    [
        [],
        None,
        "x",
        {"limit": 0},
        {"limit": 201},
        {"limit": 1.5},
        {"limit": True},
        {"limit": "10"},
        {"after": "' OR 1=1 --"},
        {"after": "zzzz"},
        {"after": "OTk5OTkuMQ"},
        {"after": 7},
        {"criteria": []},
        {"criteria": {"nombre": "Ana"}},
        {"criteria": {"type": "x"}},
        {"criteria": {"type": "log.searched' --"}},
        {"criteria": {"referral": "1"}},
        {"criteria": {"since": "ayer"}},
        {"criteria": {"since": "0000-01-01T00:00:00Z"}},
        {"criteria": {"until": "9999-12-31T23:59:59Z"}},
        {"criteria": {"subject": "1234567"}},
        {"criteria": {"subject": {"system": "cedula"}}},
        {"criteria": {"subject": {"system": "cedula", "value": "'; DROP TABLE audit.entry"}}},
        {"criteria": {"institution": "MDS\u0000"}},
        {"criteria": {"user": ""}},
        {"criteria": {"user": "x" * 65}},
        {"format": "pdf"},
        {"format": ["csv"]},
    ],
)
@pytest.mark.parametrize("path", [SEARCH, EXPORTS])
async def test_hostile_bodies_get_an_answer_that_tells_nothing(
    auditors: dict[str, Auditor], path: str, body: Any
) -> None:
    if path == EXPORTS and isinstance(body, dict):
        body = {"format": "csv", **body}
    answer = await auditors["UTGS"].ask(path, body)
    assert 400 <= answer.status_code < 500, answer.text
    nothing_leaks(answer, ("DROP TABLE", "OR 1=1"))


def unpacked(content: bytes, folder: Path) -> Path:
    """Unpack an export; return DATA."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        data, proof, policy = archive.namelist()
        assert (proof, policy) == (f"{data}.proof", "policy.txt")
        archive.extractall(folder)
    return folder / data


@pytest.mark.parametrize("kind", FORMATS)
async def test_an_export_proves_itself_and_is_an_entry(
    house: House, auditors: dict[str, Auditor], kind: str, tmp_path: Path
) -> None:
    person, receipt = await disclosed(house, 24)
    await covered(house, receipt["entry_id"])
    asked = {"criteria": {"subject": subject(person.cedula), "institution": "MDS"}, "format": kind}
    answer = await auditors["MDS"].ask(EXPORTS, asked)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert "proof=/audit/log/proof/" in answer.headers["X-SIIS-Receipt"]
    data = unpacked(answer.content, tmp_path)
    signer = load_signer(house.settings)
    policy = parse_policy(policy_text(signer, [2026], None))
    report = check_export(data, policy=policy)
    assert report.records >= 2
    raw = data.read_bytes()
    assert (receipt["entry_id"].encode() in raw) or kind == "xlsx"
    assert str(person.cedula).encode() not in data.with_name(f"{data.name}.proof").read_bytes()
    entry = await seen(auditors["UTGS"], (await _own(data)), type="log.exported")
    assert entry["detail"]["what"]["sha256"] == report.sha256
    assert entry["detail"]["what"]["format"] == kind
    data.write_bytes(raw[:-3])
    with pytest.raises(NotValid):
        check_export(data, policy=policy)


async def test_an_export_that_cannot_be_proven_is_cut_off(house: House, auditors: dict[str, Auditor]) -> None:
    asked = {"criteria": {"type": "log.exported"}, "format": "jsonl"}
    async with house.context() as context, context.database.transaction() as connection:
        # Nothing is numbered any more, so the export's own entry has no place in the log.
        await connection.exec_driver_sql("LOCK TABLE audit.tree IN EXCLUSIVE MODE")
        with pytest.raises(httpx.RemoteProtocolError):
            await auditors["UTGS"].ask(EXPORTS, asked)
    assert not any(house.settings.data_dir.joinpath("exports").iterdir())
    assert (await auditors["UTGS"].ask(EXPORTS, asked)).status_code == 200


async def _own(data: Path) -> str:
    last = json.loads(data.with_name(f"{data.name}.proof").read_bytes().splitlines()[-1])
    return str(json.loads(last["export"]["envelope"])["id"])


async def test_the_command_line_searches_and_exports_and_never_overwrites(
    house: House, auditors: dict[str, Auditor], siis: Siis, tmp_path: Path
) -> None:
    person, receipt = await disclosed(house, 25)
    await seen(auditors["UTGS"], receipt["entry_id"], subject=subject(person.cedula))
    told = (await run(siis, "audit", "search", "--cedula", person.cedula, "--institution", "MDS", "--json")).json()
    assert receipt["entry_id"] in {each["id"] for each in told["entries"]}
    shown = await run(siis, "audit", "search", "--type", "disclosure.released", "--limit", "1")
    assert "Hay más: siga con --after" in shown.out
    out = tmp_path / "marzo.csv"
    made = await run(siis, "audit", "export", "--format", "csv", "--out", out, "--institution", "MDS")
    assert made.code == 0, made.err
    signer = load_signer(house.settings)
    report = check_export(out, policy=parse_policy(policy_text(signer, [2026], None)))
    assert f"{report.records} entradas" in made.out
    proof = out.with_name("marzo.csv.proof")
    assert {file.stat().st_mode & 0o777 for file in (out, proof)} == {0o600}
    before = out.read_bytes()
    assert (await run(siis, "audit", "export", "--format", "csv", "--out", out)).code == 2
    assert out.read_bytes() == before
    for wrong in (("--institution", "NADIE"), ("--since", "ayer"), ("--cedula", "1.2")):
        other = tmp_path / "otro.csv"
        assert (await run(siis, "audit", "export", "--format", "csv", "--out", other, *wrong)).code == 2
        assert not other.exists()
        assert (await run(siis, "audit", "search", *wrong)).code == 2
    assert (await run(siis, "audit", "search", "--after", "x")).code == 2
    entry = await seen(auditors["UTGS"], await _own(out), type="log.exported")
    assert entry["detail"]["actor"]["channel"] == "command-line"
