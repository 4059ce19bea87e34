"""Agreements over HTTP and on the command line: from draft to end, what opens meanwhile, and who learns nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from gateway.cli.demo.clients import Caller
from schemas.codes import code_list
from tests.acceptance.bad_input import adults, newcomer
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import appoint, call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
ADMINISTRATOR, OFFICER = "administrator", "data-protection-officer"
CODE = "SENADIS-CENSO"
TEXT: dict[str, Any] = {
    "code": CODE,
    "es": "Identidad para el censo",
    "en": "Identity for the census",
    "requester": "SENADIS",
    "holder": "PN-IDENT",
    "datasets": {"identity": ["cedula", "given_names"]},
    "purposes": ["service-provision"],
    "bases": [{"basis": "official-authority", "norm": "Ley 4720/2012"}],
    "channels": ["api"],
    "minimum_assurance": 1,
    "labels": ["identifying"],
    "roles": ["operator", "system"],
    "valid_from": "2025-01-01T00:00:00-03:00",
    "valid_to": None,
}


@dataclass(slots=True)
class Parties:
    """The systems of both parties and of a stranger, each with an administrator ``ana`` and an officer ``oto``."""

    house: House
    requester: Caller
    holder: Caller
    stranger: Caller

    async def step(self, system: Caller, code: str, step: str, **more: Any) -> httpx.Response:
        user, role = ("oto", OFFICER) if step == "sign" else ("ana", ADMINISTRATOR)
        body = {"step": step, **more}
        return await call(self.house, system, "POST", f"agreements/{code}/steps", body, operator=user, role=role)

    async def draft(self, system: Caller, text: dict[str, Any], key: str | None = None) -> httpx.Response:
        named = {"operator": "ana", "role": ADMINISTRATOR}
        return await call(self.house, system, "POST", "agreements", text, key=key, **named)

    async def get(self, system: Caller, path: str) -> httpx.Response:
        return await call(self.house, system, "GET", path, operator="ana", role=ADMINISTRATOR)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def parties(house: House) -> Parties:
    """Two parties and a stranger, ready to act."""
    systems = []
    for institution in ("SENADIS", "PN-IDENT", "INDI"):
        for user, role in (("ana", ADMINISTRATOR), ("oto", OFFICER)):
            await appoint(house, institution, user, role)
        systems.append(await newcomer(house, institution, "agreements.manage", "disclosures.create"))
    made = Parties(house, *systems)

    async def known() -> bool:
        return all([(await made.get(each, "agreements")).status_code == 200 for each in systems])

    await until(known)
    return made


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory, house: House) -> Iterator[Siis]:
    """The command line on the house's data folder."""
    made = Siis(tmp_path_factory.mktemp("siis-agreements"), "es", house.settings.data_dir)
    yield made
    made.end()


async def test_an_agreement_opens_once_both_signed_and_closes_when_one_stops_it(house: House, parties: Parties) -> None:
    requester, holder = parties.requester, parties.holder
    asked = {
        "subject": {"system": "cedula", "value": adults(house)[3].cedula},
        "dataset": "identity",
        "fields": ["cedula", "given_names"],
        "purpose": "service-provision",
        "basis": "official-authority",
    }

    async def answers(status: int) -> None:
        async def seen() -> bool:
            return (await call(house, requester, "POST", "disclosures", asked)).status_code == status

        await until(seen)

    await answers(403)
    assert (await parties.draft(requester, TEXT)).json()["version"] == 1
    for system, step, more in (
        (requester, "propose", {}),
        (requester, "sign", {"proof_reference": "Expediente 12/2026"}),
        (holder, "sign", {"proof_reference": "Expediente 98/2026"}),
        (holder, "activate", {}),
    ):
        answer = await parties.step(system, CODE, step, **more)
        assert answer.status_code == 201, answer.text
    assert answer.json()["status"] == "active"
    assert answer.json()["conflicts"] == []
    assert answer.json()["receipt"]["entry_id"]
    await answers(200)
    assert (await parties.step(holder, CODE, "suspend", reason="Resolución 7/2026")).status_code == 201
    await answers(403)
    refused = await parties.step(requester, CODE, "resume")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:siis:problem:agreement-step")
    assert "pasos posibles: draft, resume, expire" in refused.json()["detail"]
    assert (await parties.step(holder, CODE, "resume")).status_code == 201
    await answers(200)
    assert (await parties.step(requester, CODE, "expire")).status_code == 201
    await answers(403)
    shown = (await parties.get(holder, f"agreements/{CODE}")).json()
    assert (shown["status"], shown["steps"], shown["pending"]) == ("expired", ["draft"], None)
    assert [each["signatory"] for each in shown["signatures"]] == ["oto", "oto"]
    assert {each["text_sha256"] for each in shown["signatures"]} == {shown["current"]["text_sha256"]}


async def test_a_draft_sent_twice_with_one_key_is_one_draft(parties: Parties) -> None:
    text = TEXT | {"code": "SENADIS-DOS"}
    first = await parties.draft(parties.requester, text, key="uno")
    again = await parties.draft(parties.requester, text, key="uno")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    listed = (await parties.get(parties.requester, "agreements?status=draft")).json()
    assert [each["version"] for each in listed["agreements"] if each["code"] == "SENADIS-DOS"] == [1]


async def test_who_drafts_does_not_sign_and_who_signs_does_not_draft(house: House, parties: Parties) -> None:
    system, text = parties.requester, TEXT | {"code": "SENADIS-TRES"}
    refused = await call(house, system, "POST", "agreements", text, operator="oto", role=OFFICER)
    assert (refused.status_code, refused.json()["reasons"][0]["code"]) == (403, "role")
    assert (await parties.draft(system, text)).status_code == 201
    path, sign = f"agreements/{text['code']}/steps", {"step": "sign", "proof_reference": "x"}
    refused = await call(house, system, "POST", path, sign, operator="ana", role=ADMINISTRATOR)
    assert refused.status_code == 403
    # A claimed operator holds no role that somebody must grant, and a system holds none at all.
    claimed = text | {"operator": {"id": "ana", "roles": ["administrator"]}}
    assert (await call(house, system, "POST", "agreements", claimed)).status_code == 403
    assert (await call(house, system, "GET", "agreements")).status_code == 403


async def test_to_a_stranger_an_agreement_of_others_looks_like_none(parties: Parties) -> None:
    for code in ("DEMO-MDS-IDENT", "DEMO-NADA", "%00", "a%20b"):
        shown = await parties.get(parties.stranger, f"agreements/{code}")
        stopped = await parties.step(parties.stranger, code, "suspend")
        unknown = await parties.get(parties.stranger, "agreements/NOBODY-KNOWS-IT")
        assert shown.status_code == stopped.status_code == 404
        assert shown.content == stopped.content == unknown.content
    listed = (await parties.get(parties.stranger, "agreements?limit=200")).json()["agreements"]
    assert all("INDI" in (each["requester"], each["holder"]) for each in listed)
    taken = await parties.draft(parties.stranger, TEXT | {"requester": "INDI", "code": "DEMO-MDS-IDENT"})
    free = await parties.draft(parties.stranger, TEXT | {"requester": "INDI", "code": "DEMO-NADA"})
    assert taken.status_code == free.status_code == 422
    assert {**taken.json(), "receipt": None} == {**free.json(), "receipt": None}


async def test_a_party_lists_its_own_page_by_page(parties: Parties) -> None:
    seen: list[dict[str, Any]] = []
    after = ""
    while True:
        page = (await parties.get(parties.holder, f"agreements?limit=3{after}")).json()
        seen += page["agreements"]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    codes = [each["code"] for each in seen]
    assert codes == sorted(set(codes))
    assert all("PN-IDENT" in (each["requester"], each["holder"]) for each in seen)
    shipped = {
        code for code, spec in code_list("agreements").items() if "PN-IDENT" in (spec["requester"], spec["holder"])
    }
    assert shipped <= set(codes)


@pytest.mark.parametrize(
    ("changes", "status", "pointer", "listed"),
    [
        ({"purposes": ["curiosity"]}, 422, "/purposes", "purposes"),
        ({"bases": [{"basis": "because", "norm": "n"}]}, 422, "/bases", "legal-bases"),
        ({"labels": ["gossip"]}, 422, "/labels", "labels"),
        ({"roles": ["king"]}, 422, "/roles", "roles"),
        ({"datasets": {"gossip": ["cedula"]}}, 422, "/datasets/gossip", "datasets"),
        ({"holder": "NOWHERE"}, 422, "/holder", "institutions"),
        ({"datasets": {"service:nothing": ["identifiers"]}}, 422, "/datasets/service:nothing", None),
        ({"treatments": {"identity": {"cedula": "burn"}}}, 422, "/treatments/identity", None),
        ({"valid_to": "2024-01-01T00:00:00-03:00"}, 422, "/valid_to", None),
        ({"holder": "INDI", "requester": "MDS"}, 422, "/requester", None),
        ({"status": "active"}, 400, "/status", None),
        ({"minimum_assurance": 4}, 400, "/minimum_assurance", None),
        ({"es": "a\x00b"}, 400, "", None),
    ],
)
async def test_a_draft_that_names_what_does_not_exist_is_told_what_does(
    parties: Parties, changes: dict[str, Any], status: int, pointer: str, listed: str | None
) -> None:
    answer = await parties.draft(parties.requester, TEXT | {"code": "SENADIS-MAL"} | changes)
    assert answer.status_code == status, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    if listed is not None:
        assert set(code_list(listed)) <= set(answer.json()["allowed"])


@pytest.mark.parametrize(
    ("step", "status"),
    [
        ({"step": "burn"}, 400),
        ({"step": "sign"}, 400),
        ({"step": "propose", "proof_reference": "x"}, 400),
        ({"step": "activate", "reason": "x"}, 400),
    ],
)
async def test_a_step_that_is_none_is_refused(parties: Parties, step: dict[str, Any], status: int) -> None:
    answer = await parties.step(parties.requester, CODE, **step)
    assert answer.status_code == status


@pytest.mark.parametrize("query", ["status=dead", "limit=0", "limit=201", "limit=x", "after=%00", "after=a%20b"])
async def test_a_list_asked_for_in_a_way_there_is_not_is_refused(parties: Parties, query: str) -> None:
    assert (await parties.get(parties.requester, f"agreements?{query}")).status_code == 422


async def test_the_code_lists_are_read_by_anybody_known_and_only_once(house: House, parties: Parties) -> None:
    url, headers = f"{house.issuer.url}/api/v1/codes", {"Authorization": f"Bearer {parties.stranger.token}"}
    lists = {each["list"]: each["codes"] for each in (await house.http.get(url, headers=headers)).json()["lists"]}
    assert {"purposes", "legal-bases", "labels", "roles"} <= lists.keys()
    assert "agreements" not in lists
    answer = await house.http.get(f"{url}/purposes", headers=headers)
    codes = {each["code"]: each for each in answer.json()["codes"]}
    assert codes["service-provision"] == {"code": "service-provision", **code_list("purposes")["service-provision"]}
    assert all(each["dpv"] for each in codes.values())
    known = await house.http.get(f"{url}/purposes", headers={**headers, "If-None-Match": answer.headers["ETag"]})
    assert (known.status_code, known.content) == (304, b"")
    other = await house.http.get(f"{url}/labels", headers={**headers, "If-None-Match": answer.headers["ETag"]})
    assert other.status_code == 200
    assert (await house.http.get(f"{url}/agreements", headers=headers)).status_code == 404
    assert (await house.http.get(f"{url}/purposes")).status_code == 401


async def test_the_command_line_takes_an_agreement_from_draft_to_its_end(siis: Siis, tmp_path: Path) -> None:
    code, file = "INDI-CENSO", tmp_path / "agreement.yaml"
    text = TEXT | {"code": code, "requester": "INDI", "treatments": {"identity": {"cedula": "mask"}}}
    file.write_text(yaml.safe_dump(text), encoding="utf-8")
    drafted = await run(siis, "agreement", "draft", file, "--party", "INDI", "--json")
    assert drafted.json()["version"] == 1
    signing = ("--signatory", "director", "--proof", "Expediente 3/2026")
    for step, party, more in (
        ("propose", "INDI", ()),
        ("sign", "INDI", signing),
        ("sign", "PN-IDENT", signing),
        ("activate", "INDI", ()),
    ):
        ended = await run(siis, "agreement", step, code, "--party", party, *more)
        assert ended.code == 0, ended.err
    assert ended.out.strip() == "Acuerdo INDI-CENSO, versión 5: vigente"
    told = await run(siis, "agreement", "show", code)
    assert "Civil" not in told.out
    assert "Identidad civil: cedula (enmascarado), given_names" in told.out
    assert "INDI director (Expediente 3/2026)" in told.out
    shown = (await run(siis, "agreement", "show", code, "--json")).json()
    assert [each["status"] for each in shown["versions"]] == ["draft", "proposed", "proposed", "signed", "active"]
    again = await run(siis, "agreement", "activate", code, "--party", "INDI")
    assert (again.code, "pasos posibles: draft, suspend, expire" in again.err) == (1, True)

    twin = text | {"code": "INDI-CENSO-2", "datasets": {"identity": ["cedula"]}, "treatments": {}}
    file.write_text(yaml.safe_dump(twin), encoding="utf-8")
    assert (await run(siis, "agreement", "draft", file, "--party", "INDI")).code == 0
    for step, party, more in (("propose", "INDI", ()), ("sign", "INDI", signing), ("sign", "PN-IDENT", signing)):
        assert (await run(siis, "agreement", step, "INDI-CENSO-2", "--party", party, *more)).code == 0
    activated = await run(siis, "agreement", "activate", "INDI-CENSO-2", "--party", "INDI", "--json")
    [conflict] = activated.json()["conflicts"]
    assert conflict["differs"] == ["fields", "treatments"]
    assert conflict in (await run(siis, "agreement", "conflicts", "--json")).json()
    told = await run(siis, "agreement", "conflicts")
    assert "INDI-CENSO y INDI-CENSO-2 difieren sobre identity" in told.out

    for each in (code, "INDI-CENSO-2"):
        assert (await run(siis, "agreement", "suspend", each, "--party", "INDI")).code == 0
        assert (await run(siis, "agreement", "resume", each, "--party", "PN-IDENT")).code == 1
        assert (await run(siis, "agreement", "resume", each, "--party", "INDI")).code == 0
        ended = await run(siis, "agreement", "expire", each, "--party", "INDI", "--reason", "Resolución 9/2026")
        assert ended.code == 0
    listed = await run(siis, "agreement", "list", "--party", "INDI", "--status", "expired", "--json")
    assert [each["code"] for each in listed.json()] == [code, "INDI-CENSO-2"]
    assert "terminado" in (await run(siis, "agreement", "list", "--party", "INDI")).out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("show", "NOBODY-KNOWS-IT"), 1, "No hay un acuerdo"),
        (("suspend", "NOBODY-KNOWS-IT", "--party", "MDS"), 1, "código"),
        (("suspend", "DEMO-MDS-IDENT", "--party", "MEC"), 1, "código"),
        (("suspend", "DEMO-MDS-IDENT"), 2, "--party"),
        (("sign", "DEMO-MDS-IDENT", "--party", "MDS", "--signatory", "a b", "--proof", "x"), 2, "--signatory"),
        (("sign", "DEMO-MDS-IDENT", "--party", "MDS", "--signatory", "ana", "--proof", ""), 2, "--proof"),
        (("list", "--status", "dead"), 2, "--status"),
        (("draft", "none.yaml", "--party", "MDS"), 2, "none.yaml"),
    ],
)
async def test_a_command_that_cannot_be_carried_out_says_why(
    siis: Siis, arguments: tuple[str, ...], code: int, told: str
) -> None:
    ended = await run(siis, "agreement", *arguments)
    assert (ended.code, told in ended.err) == (code, True), ended.err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("code: [", "YAML"),
        ("- 1", "/"),
        (yaml.safe_dump(TEXT | {"code": "SENADIS-X", "purposes": ["curiosity"]}), "purposes"),
        (yaml.safe_dump({**TEXT, "code": "SENADIS-X", "valid_from": "yesterday"}), "/valid_from"),
        (yaml.safe_dump(TEXT | {"code": "SENADIS-X", "holder": "NOWHERE"}), "holder"),
    ],
)
async def test_a_file_that_is_no_agreement_is_told_its_fault(
    siis: Siis, tmp_path: Path, content: str, told: str
) -> None:
    file = tmp_path / "agreement.yaml"
    file.write_text(content, encoding="utf-8")
    ended = await run(siis, "agreement", "draft", file, "--party", "SENADIS")
    assert (ended.code, told in ended.err) == (2, True), ended.err
