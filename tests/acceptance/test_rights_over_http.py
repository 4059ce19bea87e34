"""A person's request over HTTP and on the command line: taken, routed, answered by each institution for itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from adapters.simulator.population import SimPerson
from gateway.clock import local_day, utc_now
from gateway.identity import issuers
from gateway.rights.terms import due_on
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults
from tests.acceptance.command_line import Siis, run
from tests.acceptance.desk import Desk, open_desk
from tests.house import House, until
from tests.integration import outside_issuer

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATH = "rights-requests"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def desks(house: House) -> dict[str, Desk]:
    return {name: await open_desk(house, name) for name in ("MTESS", "MDS", "MEC", "PN-IDENT", "UTGS")}


@pytest.fixture(scope="module")
def siis(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", house.settings.data_dir)
    yield made
    made.end()


def adult(house: House) -> SimPerson:
    return adults(house)[0]


async def taken(desk: Desk, cedula: str | None, **changes: Any) -> dict[str, Any]:
    body = {"right": "access", "subject": {"system": "cedula", "value": cedula}, **changes}
    answer = await desk.call("POST", PATH, body, role="operator", key=str(uuid7()))
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_a_request_goes_to_who_holds_data_and_each_answers_for_itself(
    house: House, desks: dict[str, Desk]
) -> None:
    person = adult(house)
    asked = await house.callers["demo-mds"].post(
        "/api/v1/disclosures",
        {
            "subject": {"system": "cedula", "value": person.cedula},
            "dataset": "identity",
            "fields": ["given_names"],
            "purpose": "service-access-determination",
            "basis": "official-authority",
        },
    )
    assert asked.status_code == 200
    told = await taken(desks["MTESS"], person.cedula, text="Quiero todo lo que tienen de mí.")
    assert told["due_on"] == due_on("access", utc_now()).isoformat()
    assert "routed_to" not in told
    here = f"{PATH}/{told['request']}"

    mds = desks["MDS"]
    listed = (await mds.call("GET", f"{PATH}?limit=200")).json()["rights_requests"]
    [mine] = [item for item in listed if item["id"] == told["request"]]
    assert [part["institution"] for part in mine["parts"]] == ["MDS"]
    assert "text" not in mine
    shown = (await mds.call("GET", here)).json()
    assert shown["text"] == "Quiero todo lo que tienen de mí."
    assert {"system": "cedula", "value": person.cedula} in shown["subject"]
    assert shown["parts"][0]["state_text"] == "La institución tiene el pedido."

    assert (await mds.call("POST", f"{here}/start")).status_code == 200
    delivered = {"reference": "Nota 12", "sha256": "ab" * 32}
    answered = await mds.call("POST", f"{here}/answer", {"outcome": "granted", "delivered": delivered})
    assert (answered.status_code, answered.json()["state"]) == (200, "answered")
    again = await mds.call("POST", f"{here}/answer", {"outcome": "granted", "delivered": delivered})
    assert (again.status_code, again.json()["type"]) == (409, "urn:siis:problem:rights-out-of-order")
    others = (await desks["PN-IDENT"].call("GET", here)).json()
    assert [(part["institution"], part["state"]) for part in others["parts"]] == [("PN-IDENT", "routed")]


async def test_an_institution_without_a_part_cannot_tell_a_request_from_none(
    house: House, desks: dict[str, Desk]
) -> None:
    told = await taken(desks["MTESS"], adult(house).cedula, dataset="identity")
    mec, refused = desks["MEC"], {"outcome": "not-held"}
    for name in ("", "/start", "/answer"):
        method, body = ("GET", None) if not name else ("POST", refused if name == "/answer" else None)
        real = await mec.call(method, f"{PATH}/{told['request']}{name}", body)
        none = await mec.call(method, f"{PATH}/{uuid7()}{name}", body)
        assert real.status_code == none.status_code == 404
        answers = [{k: v for k, v in answer.json().items() if k != "receipt"} for answer in (real, none)]
        assert answers[0] == answers[1]


async def test_the_answer_at_the_counter_is_the_same_for_somebody_nobody_knows(
    house: House, desks: dict[str, Desk]
) -> None:
    known, unknown = await taken(desks["MTESS"], adult(house).cedula), await taken(desks["MTESS"], "9999999")
    assert known.keys() == unknown.keys()
    waiting = (await desks["UTGS"].call("GET", f"{PATH}/{unknown['request']}")).json()
    assert waiting["subject"] == [{"system": "cedula", "value": "9999999"}]
    assert [(part["institution"], part["state"]) for part in waiting["parts"]] == [("UTGS", "received")]


async def test_an_operator_takes_requests_and_answers_none(house: House, desks: dict[str, Desk]) -> None:
    told = await taken(desks["MTESS"], adult(house).cedula, dataset="identity")
    denied = await desks["PN-IDENT"].call("GET", f"{PATH}/{told['request']}", role="operator")
    assert (denied.status_code, denied.json()["reasons"][0]["code"]) == (403, "role")


async def test_a_person_with_a_token_of_their_own_asks_and_reads_every_answer(
    house: House, desks: dict[str, Desk]
) -> None:
    mine, another = adults(house)[-20:-18]
    with outside_issuer.serve() as issuer:
        registration = issuers.Registration.model_validate(outside_issuer.citizens(issuer))
        async with house.context() as context, context.database.transaction() as connection:
            await issuers.add_issuer(connection, registration, own=house.issuer.url, now=utc_now())

        async def call(person: SimPerson, method: str, path: str, body: Any = None) -> httpx.Response:
            # Both come through one portal with one key: they are two commands all the same.
            token = issuer.sign(utc_now(), jti=str(uuid7()), documento={"numero": person.cedula})
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "1"}
            return await house.http.request(method, f"{house.issuer.url}/api/v1/{path}", json=body, headers=headers)

        async def believed() -> bool:
            return (await call(mine, "GET", PATH)).status_code == 200

        await until(believed)
        body = {"right": "access", "dataset": "identity", "text": "¿Qué dice de mí?"}
        told, other = [(await call(person, "POST", PATH, body)).json() for person in (mine, another)]
        assert told["request"] != other["request"]
        here = f"{PATH}/{told['request']}"
        answer = {"outcome": "refused", "norm": "Ley 7593/2025, art. 31", "text": "Hay una investigación abierta."}
        assert (await desks["PN-IDENT"].call("POST", f"{here}/answer", answer)).status_code == 200
        shown = (await call(mine, "GET", here)).json()
        [part] = shown["parts"]
        assert (part["state_text"], part["text"]) == ("Respondido: Denegada.", answer["text"])
        assert (await call(another, "GET", here)).status_code == 404
        assert (await call(another, "POST", f"{here}/withdraw")).status_code == 404
        assert [item["id"] for item in (await call(mine, "GET", PATH)).json()["rights_requests"]] == [told["request"]]
        assert (await call(another, "POST", f"{PATH}/{other['request']}/withdraw")).status_code == 200


@pytest.mark.parametrize(
    ("changes", "status", "problem"),
    [
        ({"right": "oblivion"}, 422, "unknown-code"),
        ({"dataset": "stars"}, 422, "unknown-code"),
        ({"right": "opposition", "purpose": "curiosity"}, 422, "unknown-code"),
        ({"right": "opposition"}, 422, "rights-purpose"),
        ({"subject": {"system": "cedula", "value": "1.234"}}, 422, "bad-identifier"),
        ({"subject": None}, 400, "invalid-message"),
        ({"secret": "x"}, 400, "invalid-message"),
    ],
)
async def test_a_request_that_is_none_gets_what_to_do(
    desks: dict[str, Desk], changes: dict[str, Any], status: int, problem: str
) -> None:
    body = {"right": "access", "subject": {"system": "cedula", "value": "1234567"}, **changes}
    answer = await desks["MTESS"].call("POST", PATH, body, role="operator", key=str(uuid7()))
    told = answer.json()
    assert (answer.status_code, told["type"]) == (status, f"urn:siis:problem:{problem}")
    assert ("allowed" in told) == (problem == "unknown-code")


async def test_a_request_about_nobody_is_not_taken(desks: dict[str, Desk]) -> None:
    answer = await desks["MTESS"].call("POST", PATH, {"right": "access"}, role="operator", key=str(uuid7()))
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:siis:problem:rights-subject")


async def test_the_command_line_takes_follows_and_answers_a_request(house: House, siis: Siis, tmp_path: Path) -> None:
    text, letter = tmp_path / "pedido.txt", tmp_path / "carta.pdf"
    text.write_text("Corrijan mi nombre.\n", encoding="utf-8")
    letter.write_bytes(b"%PDF-1.7")
    cedula = str(adult(house).cedula)
    told = (
        await run(
            siis, "rights", "receive", "access", "--subject", cedula, "--dataset", "identity", "--text", text, "--json"
        )
    ).json()
    assert told["routed_to"] == ["PN-IDENT"]
    listed = (await run(siis, "rights", "list", "--institution", "PN-IDENT", "--json")).json()
    assert told["request"] in {item["id"] for item in listed}
    late = (await run(siis, "rights", "list", "--overdue", "--json")).json()
    assert told["request"] not in {item["id"] for item in late}
    shown = await run(siis, "rights", "show", told["request"])
    assert "Corrijan mi nombre." in shown.out
    assert cedula in shown.out
    assert (await run(siis, "rights", "start", told["request"], "--institution", "PN-IDENT")).code == 0
    answer = ("rights", "answer", told["request"], "--institution", "PN-IDENT", "--outcome", "granted")
    refused = await run(siis, *answer)
    assert (refused.code, "SHA-256" in refused.err) == (2, True)
    done = (await run(siis, *answer, "--delivered", letter, "--reference", "Nota 3", "--json")).json()
    assert done["sha256"] == hashlib.sha256(b"%PDF-1.7").hexdigest()
    assert (await run(siis, *answer, "--delivered", letter, "--reference", "Nota 3")).code == 1
    assert (await run(siis, "rights", "withdraw", told["request"])).code == 1
    assert (await run(siis, "rights", "show", str(uuid7()))).code == 1
    assert (await run(siis, "rights", "show", "x")).code == 2
    assert local_day(utc_now()).isoformat() < told["due_on"]
