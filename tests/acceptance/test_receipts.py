"""Receipts: with every answer that has an entry, with every call that leaves, and in a list for who takes neither."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
import pytest_asyncio

from audit import receipts
from audit.proofs import prove
from audit.verify import verify_inclusion
from gateway.cli.demo.clients import Caller
from gateway.standards.fhir.service import FHIR_JSON
from schemas.canonical import sha256
from schemas.ids import uuid7
from tests.acceptance.bad_input import (
    DISCLOSURES,
    DUTY,
    REFERRALS,
    STATUS,
    adults,
    asking,
    entries,
    newcomer,
    referring,
    replying,
    subject,
)
from tests.acceptance.desk import OFFICER, Desk, open_desk
from tests.acceptance.governed import call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
HEADER = "X-SIIS-Receipt"
LIST = "audit/receipts"
Made = dict[str, Any]
Asking = Callable[[Made], Awaitable[httpx.Response]]


def held(written: str) -> dict[str, str]:
    """Read a receipt as the header has it."""
    return dict(part.split("=", 1) for part in written.split(";"))


def in_body(answer: httpx.Response) -> dict[str, str]:
    shown: dict[str, str] = answer.json()["receipt"]
    return {"entry_id": shown["entry_id"], "leaf": shown["leaf_hash"], "proof": shown["proof"]}


def in_header(answer: httpx.Response) -> dict[str, str]:
    assert "receipt" not in answer.text
    return held(answer.headers[HEADER])


async def proven(house: House, receipt: dict[str, str]) -> str:
    """Hold a receipt to the log: its proof leads from its leaf to the root of a signed checkpoint; return the type."""
    entry_id, leaf = UUID(receipt["entry_id"]), bytes.fromhex(receipt["leaf"])
    async with house.context() as context:

        async def covered() -> bool:
            async with context.database.connection() as connection:
                return await prove(connection, entry_id) is not None

        await until(covered)
        async with context.database.connection() as connection:
            found = await prove(connection, entry_id)
            again = await receipts.of(connection, entry_id)
    assert found is not None
    assert again is not None
    assert again.leaf_hash == leaf
    assert verify_inclusion(leaf, found.place.index, found.head.size, found.hashes, found.head.root)
    return receipt["proof"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def made(house: House) -> Made:
    """What the answers below are about: systems, a referral with its counter-referral, a desk with a breach."""
    utgs, aps, mspbs = (house.callers[name] for name in ("demo-utgs", "demo-mspbs-aps", "demo-mspbs"))
    # The simulated institution must not answer before this test does.
    control = f"{house.institutions['mspbs'].control}/_control"
    usual = (await house.http.get(f"{control}/switches")).json()
    await house.switch("mspbs", accept_after_s=3600.0, outcome_after_s=3600.0)
    sent = await utgs.post(REFERRALS, referring(adults(house)[70]), key=f"receipt-{uuid7()}")
    assert sent.status_code == 201, sent.text

    async def taken() -> bool:
        return sent.json()["id"] in await house.effects("mspbs")

    await until(taken)
    await house.switch("mspbs", accept_after_s=usual["accept_after_s"], outcome_after_s=usual["outcome_after_s"])
    desk = await open_desk(house, "MDS")
    return {
        "house": house,
        "mds": house.callers["demo-mds"],
        "mtess": house.callers["demo-mtess"],
        "aps": aps,
        "mspbs": mspbs,
        "utgs": utgs,
        "referral": sent.json()["id"],
        "sent": sent,
        "desk": desk,
        "officer": await newcomer(house, "MDS", "notices.read", "emergency.review", "agreements.manage"),
    }


async def _counter(made: Made) -> httpx.Response:
    path = f"{REFERRALS}/{made['referral']}/counter-referrals"
    answer: httpx.Response = await made["mspbs"].post(path, replying("accept", made["referral"]), key=f"k-{uuid7()}")
    return answer


async def _counter_again(made: Made) -> httpx.Response:
    await _counter(made)
    return await _counter(made)


async def _by_officer(made: Made, path: str) -> httpx.Response:
    return await call(made["house"], made["officer"], "GET", path, operator=made["desk"].user, role=OFFICER)


async def _export(made: Made) -> httpx.Response:
    desk: Desk = made["desk"]
    await made["mds"].post(DISCLOSURES, asking(adults(made["house"])[71]))
    report = {"kind": "misuse", "what": "x", "since": "2026-01-01T00:00:00Z", "known_at": "2026-01-02T00:00:00Z"}
    opened = await desk.call("POST", "breaches", report)
    assert opened.status_code == 201, opened.text
    path = f"breaches/{opened.json()['breach']}/affected"
    assert (await desk.call("POST", path)).status_code == 200
    return await desk.call("GET", path)


def _post(who: str, path: str, body: Callable[[House], Any], *, key: bool = False) -> Asking:
    async def post(made: Made) -> httpx.Response:
        caller: Caller = made[who]
        return await caller.post(path, body(made["house"]), key=f"receipt-{uuid7()}" if key else None)

    return post


def _get(who: str, path: str) -> Asking:
    async def get(made: Made) -> httpx.Response:
        return await call(made["house"], made[who], "GET", path.format(**made))

    return get


async def _scope(made: Made) -> httpx.Response:
    return await call(made["house"], made["mds"], "GET", LIST)


async def _token(made: Made) -> httpx.Response:
    from tests.acceptance.test_bad_input_tokens import _assertion, grant

    answer: httpx.Response = await grant(made["house"], _assertion(made["house"], made["mds"]), scope="audit.read")
    return answer


async def _fhir(made: Made) -> httpx.Response:
    answer: httpx.Response = await made["aps"].post(REFERRALS, b"{}", media_type=FHIR_JSON)
    return answer


async def _text(made: Made) -> httpx.Response:
    answer: httpx.Response = await made["mds"].post(DISCLOSURES, b"hola", media_type="text/plain")
    return answer


async def _policy(made: Made) -> httpx.Response:
    caller: Caller = made["officer"]
    headers = {"Authorization": f"Bearer {caller.token}"}
    address = f"{made['house'].issuer.url}/consent-bb/config/policies/?limit=0"
    answer: httpx.Response = await made["house"].http.get(address, headers=headers)
    return answer


ANSWERS: dict[str, tuple[Asking, int, Callable[[httpx.Response], dict[str, str]]]] = {
    "a disclosure": (_post("mds", DISCLOSURES, lambda h: asking(adults(h)[72])), 200, in_body),
    "a denial": (_post("mtess", DISCLOSURES, lambda h: asking(adults(h)[72], fields=["marital_status"])), 403, in_body),
    "an unusable message": (_post("mds", DISCLOSURES, lambda _h: {"dataset": 1}), 400, in_body),
    "an unknown code": (_post("mds", DISCLOSURES, lambda h: asking(adults(h)[72], basis="x")), 422, in_body),
    "another media type": (_text, 415, in_body),
    "a body too large": (_post("mds", DISCLOSURES, lambda _h: b" " * 2_000_000), 413, in_body),
    "a scope too short": (_scope, 403, in_body),
    "a refused token request": (_token, 400, in_header),
    "a protection status": (
        _post("utgs", STATUS, lambda h: {"subject": subject(adults(h)[72].cedula), **DUTY}),
        200,
        in_body,
    ),
    "a referral": (_post("utgs", REFERRALS, lambda h: referring(adults(h)[73]), key=True), 201, in_body),
    "a referral read": (_get("utgs", "referrals/{referral}"), 200, in_body),
    "its events": (_get("utgs", "referrals/{referral}/events"), 200, in_body),
    "a counter-referral": (_counter, 201, in_body),
    "a counter-referral repeated": (_counter_again, 200, in_body),
    "a FHIR refusal": (_fhir, 422, in_header),
    "a list of notices": (lambda made: _by_officer(made, "notices"), 200, in_body),
    "a list of emergencies": (lambda made: _by_officer(made, "emergencies"), 200, in_body),
    "an export as CSV": (_export, 200, in_header),
    "a GovStack refusal": (_policy, 400, in_body),
}


@pytest.mark.parametrize(("ask", "status", "where"), ANSWERS.values(), ids=ANSWERS)
async def test_every_answer_with_an_entry_carries_its_receipt(
    house: House, made: Made, ask: Asking, status: int, where: Callable[[httpx.Response], dict[str, str]]
) -> None:
    answer = await ask(made)
    assert answer.status_code == status, answer.text
    receipt = where(answer)
    assert await proven(house, receipt) == f"/audit/log/proof/{receipt['entry_id']}"


async def test_what_is_not_there_and_what_is_hidden_carry_none(house: House, made: Made) -> None:
    stranger = await call(house, made["utgs"], "GET", f"referrals/{uuid7()}")
    unknown = await made["mds"].post(DISCLOSURES, asking(adults(house)[72]) | {"subject": subject("99999999")})
    for answer in (stranger, unknown):
        assert answer.status_code == 404
        assert "receipt" not in answer.json()
        assert HEADER not in answer.headers
    nobody = await house.http.post(f"{house.issuer.url}{DISCLOSURES}", headers={"Authorization": "Bearer a.b.c"})
    assert nobody.status_code == 401
    assert "receipt" not in nobody.json()


async def test_a_fhir_message_taken_carries_its_receipt_as_a_header(house: House, made: Made, samples: Path) -> None:
    folder = samples / "referral" / "cl-minsal-tei"
    message = json.loads((folder / "Bundle-EjemploBundleInicio.json").read_text(encoding="utf-8"))
    message["entry"][0]["resource"]["id"] = str(uuid7())
    answer = await made["aps"].post(REFERRALS, json.dumps(message).encode(), media_type=FHIR_JSON)
    if answer.status_code == 409:
        # Another test took the same interconsultation before.
        assert answer.headers[HEADER]
        return
    assert answer.status_code == 201, answer.text
    await proven(house, in_header(answer))


async def ledger(house: House, name: str) -> list[dict[str, str]]:
    answer = await house.http.get(f"{house.institutions[name].control}/_control/ledger")
    return [held(receipt) for receipt in answer.json()["receipts"]]


async def test_the_institution_asked_gets_the_receipt_of_the_entry_made_before_it_was_asked(
    house: House, made: Made
) -> None:
    since = uuid7()
    answer = await made["mds"].post(DISCLOSURES, asking(adults(house)[74]))
    assert answer.status_code == 200
    [intent] = await entries(house, "disclosure.intent", since)
    mine = [receipt for receipt in await ledger(house, "identificaciones") if receipt["entry_id"] == intent["id"]]
    assert len(mine) >= 1
    address = await proven(house, mine[0])
    assert address == f"{house.issuer.url}/audit/log/proof/{intent['id']}"


@pytest.mark.parametrize(("name", "service"), [("mspbs", "health-control"), ("mds", "tekopora"), ("minna", "abrazo")])
async def test_the_recipient_gets_the_receipt_of_the_entry_made_before_the_referral_left(
    house: House, made: Made, name: str, service: str
) -> None:
    since = uuid7()
    sent = await made["utgs"].post(REFERRALS, referring(adults(house)[75], service), key=f"receipt-{uuid7()}")
    assert sent.status_code == 201, sent.text

    async def arrived() -> bool:
        return sent.json()["id"] in await house.effects(name)

    await until(arrived)
    left = [
        each
        for each in await entries(house, "referral.sending", since)
        if each["exchange"]["referral"] == sent.json()["id"]
    ]
    mine = {receipt["entry_id"]: receipt for receipt in await ledger(house, name)}
    assert left[0]["id"] in mine
    await proven(house, mine[left[0]["id"]])


async def test_an_institution_lists_the_receipts_of_its_exchanges_and_learns_of_no_denial(
    house: House, made: Made
) -> None:
    caller = await newcomer(house, "MDS", "receipts.read")
    holder = await newcomer(house, "PN-IDENT", "receipts.read")
    since = uuid7()
    got = await made["mds"].post(DISCLOSURES, asking(adults(house)[76]))
    nothing = await made["mds"].post(DISCLOSURES, asking(adults(house)[76]) | {"subject": subject("99999998")})
    assert nothing.status_code == 404
    await proven(house, in_body(got))
    mine, theirs = await listed(house, caller), await listed(house, holder)
    assert got.json()["receipt"]["entry_id"] in mine
    assert got.json()["receipt"]["entry_id"] in theirs
    assert not {"disclosure.intent", "disclosure.unanswered", "disclosure.denied"} & {
        item["type"] for item in mine.values()
    }
    intents = {each["id"] for each in await entries(house, "disclosure.intent", since)}
    assert intents <= theirs.keys()
    item = mine[got.json()["receipt"]["entry_id"]]
    assert set(item) == {"id", "log", "index", "at", "type", "entry_id", "leaf_hash", "proof"}
    assert len(await entries(house, "receipts.read", since)) >= 2
    foreign = await listed(house, await newcomer(house, "SNPP", "receipts.read"))
    assert not foreign.keys() & {got.json()["receipt"]["entry_id"]}


async def listed(house: House, caller: Caller) -> dict[str, dict[str, Any]]:
    """Walk the list in small pages: ordered, nothing twice; every page has its own receipt."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        answer = await call(house, caller, "GET", f"{LIST}?limit=7{after}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["receipt"]["entry_id"]
        found += answer.json()["receipts"]
        if answer.json()["next"] is None:
            break
        after = f"&after={answer.json()['next']}"
    places = [(item["log"], item["index"]) for item in found]
    assert places == sorted(set(places))
    return {item["entry_id"]: item for item in found}


@pytest.mark.parametrize("query", ["after=x", "after=2026", "after=2026-", "after=2026-1x", "limit=0", "limit=x"])
async def test_a_page_that_cannot_be_is_refused(house: House, made: Made, query: str) -> None:
    caller = await newcomer(house, "MDS", "receipts.read")
    answer = await call(house, caller, "GET", f"{LIST}?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/{query.partition('=')[0]}"


async def test_a_disclosures_entry_says_all_that_is_known_of_it(house: House, made: Made) -> None:
    since = uuid7()
    body = orjson.dumps(asking(adults(house)[77], fields=["given_names", "profession"]))
    answer = await made["mds"].post(DISCLOSURES, body)
    [entry] = await entries(house, "disclosure.released", since)
    assert entry["actor"]["address"] == "127.0.0.1"
    assert entry["subject"] == {"kind": "person", "minor": False}
    assert entry["what"]["persons"] == 1
    assert entry["what"]["labels"] == ["economic", "identifying"]
    told = entry["exchange"]
    assert told["protocol"] == "rest"
    assert told["request_sha256"] == sha256(body).hex()
    assert told["facts_sha256"] == sha256(orjson.dumps(answer.json()["facts"], option=orjson.OPT_SORT_KEYS)).hex()
