"""Requests that are wrong in what they say: each gets its problem with the field, an entry in the log, no data."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.cli.demo.clients import Caller, callers
from schemas.codes import code_list
from schemas.ids import uuid7
from tests.acceptance.bad_input import (
    DISCLOSURES,
    DUTY,
    REFERRALS,
    STATUS,
    adults,
    asking,
    bearer,
    entries,
    get,
    logs_are_quiet,
    problem,
    referring,
    replying,
    subject,
)
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
Systems = dict[str, Caller]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def systems(house: House) -> Systems:
    """The client systems with tokens of their own."""
    return callers(house.http, house.issuer, house.settings.data_dir)


def everywhere(house: House, systems: Systems) -> list[tuple[Caller, str, dict[str, Any]]]:
    """One good message for each place that takes a person's identifier."""
    person = adults(house)[0]
    return [
        (systems["demo-mds"], DISCLOSURES, asking(person)),
        (systems["demo-utgs"], REFERRALS, referring(person)),
        (systems["demo-utgs"], STATUS, {"subject": subject(person.cedula), **DUTY}),
    ]


@pytest.mark.parametrize(
    ("system", "value"),
    [
        ("cedula", "1.234.567"),
        ("cedula", "1234567X"),
        ("cedula", "12345678901234567890abcdefghij"),
        ("cedula", "1" * 30),
        ("cedula", "0"),
        ("cedula", " "),
        ("cedula", "-1234567"),
        ("cedula", "١٢٣٤٥٦٧"),
        ("cedula", "１２３４５６７"),
        ("cedula", "1234567\u200b"),
        ("ruc", "80000001-1"),
        ("ruc", "800000015"),
        ("siis", "not-a-uuid-but-long"),
        ("urn:example:id", "\u0085"),
        ("urn:example:id", "with\u0001control"),
    ],
)
async def test_an_identifier_that_is_none_is_refused_with_its_field_and_never_repeated(
    house: House, systems: Systems, system: str, value: str
) -> None:
    since = uuid7()
    receipts = {}
    for caller, path, body in everywhere(house, systems):
        answer = await caller.post(path, {**body, "subject": subject(value, system)}, key=str(uuid7()))
        secrets = [value] if len(value.strip()) > 3 else []
        told = problem(answer, 422, "bad-identifier", pointer="/subject/value", secrets=secrets)
        receipts[told["receipt"]["entry_id"]] = (caller.client_id, path)
    written = await entries(house, "request.refused", since)
    mine = {entry["id"]: (entry["actor"]["client"], entry["what"]["route"]) for entry in written}
    assert mine.items() >= receipts.items()
    assert all(entry["what"]["reasons"] == ["bad-identifier"] for entry in written if entry["id"] in receipts)
    assert len(value) < 5 or value not in json.dumps(written, ensure_ascii=False)


async def test_a_cedula_without_any_digit_breaks_the_schema(house: House, systems: Systems) -> None:
    for caller, path, body in everywhere(house, systems):
        answer = await caller.post(path, {**body, "subject": subject("")}, key=str(uuid7()))
        problem(answer, 400, "invalid-message", pointer="/subject/value")


@pytest.mark.parametrize(
    ("system", "value"), [("passport", "AB123456"), ("siis", "0199a1b2-c3d4-7abc-8def-0123456789ab"), ("urn:a:b", "1")]
)
async def test_an_identifier_that_no_source_knows_looks_like_a_person_not_found(
    house: House, systems: Systems, system: str, value: str
) -> None:
    mds = systems["demo-mds"]
    answer = await mds.post(DISCLOSURES, asking(adults(house)[0]) | {"subject": subject(value, system)})
    unknown = await mds.post(DISCLOSURES, asking(adults(house)[0]) | {"subject": subject("99999998")})
    assert answer.status_code == unknown.status_code == 404
    assert answer.content == unknown.content


@pytest.mark.parametrize(
    ("client", "path", "changes", "code", "pointer"),
    [
        ("demo-mds", DISCLOSURES, {"dataset": "tax-returns"}, "unknown-dataset", "/dataset"),
        ("demo-mds", DISCLOSURES, {"dataset": "replies"}, "unknown-dataset", "/dataset"),
        ("demo-mds", DISCLOSURES, {"fields": ["given_names", "shoe_size"]}, "unknown-field", "/fields/1"),
        ("demo-utgs", REFERRALS, {"service": "free-beer"}, "unknown-service", "/service"),
        ("demo-utgs", REFERRALS, {"reason": {"code": "bored"}}, "unknown-reason", "/reason/code"),
        ("demo-utgs", REFERRALS, {"reason": {"code": "no-capacity"}}, "unknown-reason", "/reason/code"),
    ],
)
async def test_an_unknown_code_is_refused_with_its_field(
    house: House, systems: Systems, client: str, path: str, changes: dict[str, Any], code: str, pointer: str
) -> None:
    person, since = adults(house)[1], uuid7()
    body = asking(person) if path == DISCLOSURES else referring(person)
    answer = await systems[client].post(path, body | changes, key=str(uuid7()))
    told = problem(answer, 422, code, pointer=pointer, secrets=[str(person.cedula), person.given_names])
    [entry] = [e for e in await entries(house, "request.refused", since) if e["id"] == told["receipt"]["entry_id"]]
    assert entry["actor"]["client"] == client
    assert entry["what"] == {"reasons": [code], "route": path}


@pytest.mark.parametrize(
    ("changes", "code", "pointer", "codes"),
    [
        ({"purpose": "curiosity"}, "unknown-purpose", "/purpose", "purposes"),
        ({"basis": "because"}, "unknown-basis", "/basis", "legal-bases"),
    ],
)
async def test_an_unknown_purpose_or_basis_is_answered_with_those_there_are(
    house: House, systems: Systems, changes: dict[str, Any], code: str, pointer: str, codes: str
) -> None:
    for caller, path, body in everywhere(house, systems):
        answer = await caller.post(path, body | changes, key=str(uuid7()))
        told = problem(answer, 422, code, pointer=pointer, secrets=[adults(house)[0].given_names])
        assert told["allowed"] == list(code_list(codes))


@pytest.mark.parametrize(("changes", "reason"), [({"agreement": "NO-SUCH-AGREEMENT"}, "agreement")])
async def test_an_unknown_agreement_is_denied_with_its_reason(
    house: House, systems: Systems, changes: dict[str, Any], reason: str
) -> None:
    kinds = {DISCLOSURES: "disclosure.denied", REFERRALS: "referral.denied", STATUS: "status.denied"}
    since = uuid7()
    for caller, path, body in everywhere(house, systems):
        answer = await caller.post(path, body | changes, key=str(uuid7()))
        told = problem(answer, 403, "denied", secrets=[adults(house)[0].given_names])
        assert [item["code"] for item in told["reasons"]] == [reason]
        written = {entry["id"]: entry for entry in await entries(house, kinds[path], since)}
        assert written[told["receipt"]["entry_id"]]["decision"]["reasons"] == [reason]


WRONG_REPLIES: list[tuple[dict[str, Any], str, str]] = [
    ({"occurred_on": "2026-02-31"}, "/occurred_on", "format"),
    ({"occurred_on": "0000-01-01"}, "/occurred_on", "format"),
    ({"occurred_on": "-001-01-01"}, "/occurred_on", "format"),
    ({"occurred_on": "20261120"}, "/occurred_on", "format"),
    ({"occurred_on": "2026-11-20\n"}, "/occurred_on", "format"),
    ({"occurred_on": "٢٠٢٦-11-20"}, "/occurred_on", "format"),
    ({"event": "outcome"}, "/outcome", "required"),
    ({"event": "outcome", "outcome": "not_provided"}, "/reason", "required"),
    ({"event": "outcome", "outcome": "maybe"}, "/outcome", "enum"),
    ({"event": "decline"}, "/reason", "required"),
    ({"event": "accept", "outcome": "provided"}, "/outcome", "not"),
    ({"event": "schedule"}, "/appointment", "required"),
    ({"event": "schedule", "appointment": {"at": "2026-13-01T00:00:00Z"}}, "/appointment/at", "format"),
    ({"event": "schedule", "appointment": {"at": "0000-01-01T00:00:00Z"}}, "/appointment/at", "format"),
    ({"event": "schedule", "appointment": {"at": "2026-11-20T10:00"}}, "/appointment/at", "format"),
    ({"event": "send"}, "/event", "enum"),
    ({"message_id": ""}, "/message_id", "minLength"),
    ({"message_id": "m" * 65}, "/message_id", "maxLength"),
    ({"reason": {"code": "other\n"}}, "/reason/code", "pattern"),
    ({"place": 7}, "/place", "type"),
    ({"place": None}, "/place", "type"),
]


async def test_a_counter_referral_that_breaks_its_schema_is_refused_with_field_and_rule(
    house: House, systems: Systems
) -> None:
    since, receipts = uuid7(), set()
    for changes, pointer, rule in WRONG_REPLIES:
        reply = replying("accept", "m-schema") | changes
        answer = await systems["demo-mspbs"].post(f"{REFERRALS}/{uuid7()}/counter-referrals", reply, key=str(uuid7()))
        told = problem(answer, 400, "invalid-message", pointer=pointer)
        assert (pointer, rule) in [(item["pointer"], item["rule"]) for item in told["errors"]], changes
        receipts.add((told["receipt"]["entry_id"], f"{pointer} {rule}"))
    written = {entry["id"]: entry["what"]["reasons"] for entry in await entries(house, "request.refused", since)}
    for entry_id, reason in receipts:
        assert reason in written[entry_id]


WRONG_QUESTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"dataset": "identity\n"}, "/dataset", "pattern"),
    ({"dataset": 10**100}, "/dataset", "type"),
    ({"fields": []}, "/fields", "minItems"),
    ({"fields": ["given_names", "given_names"]}, "/fields", "uniqueItems"),
    ({"fields": "given_names"}, "/fields", "type"),
    ({"fields": ["given_names"] * 51}, "/fields", "maxItems"),
    ({"subject": "4123456"}, "/subject", "type"),
    ({"subject": ["4123456"]}, "/subject", "type"),
    ({"subject": {"system": "cedula", "value": 4123456}}, "/subject/value", "type"),
    ({"subject": {"system": "cedula"}}, "/subject/value", "required"),
    ({"subject": {"system": "a b", "value": "4123456"}}, "/subject/system", "pattern"),
    ({"subject": {"system": "x" * 201, "value": "4123456"}}, "/subject/system", "maxLength"),
    ({"operator": {"id": "o", "roles": ["Operator"]}}, "/operator/roles/0", "pattern"),
    ({"operator": {"roles": []}}, "/operator/id", "required"),
    ({"admin": True}, "/admin", "additionalProperties"),
    ({"María Benítez 4123456": 1}, "", "additionalProperties"),
]


async def test_a_question_that_breaks_its_schema_is_refused_with_field_and_rule(house: House, systems: Systems) -> None:
    for changes, pointer, rule in WRONG_QUESTIONS:
        answer = await systems["demo-mds"].post(DISCLOSURES, asking(adults(house)[2]) | changes)
        told = problem(answer, 400, "invalid-message", pointer=pointer, secrets=["4123456", "Benítez"])
        assert (pointer, rule) in [(item["pointer"], item["rule"]) for item in told["errors"]], changes


@pytest.mark.parametrize("day", ["2026-02-31", "0000-01-01", "2026-1-1", "hoy", "2026-11-20T00:00:00Z"])
async def test_a_status_on_a_day_that_does_not_exist_is_refused(house: House, systems: Systems, day: str) -> None:
    body = {"subject": subject(adults(house)[2].cedula), **DUTY, "on": day}
    problem(await systems["demo-utgs"].post(STATUS, body), 400, "invalid-message", pointer="/on")


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
async def test_the_first_and_the_last_day_there_are_get_an_answer(house: House, systems: Systems, day: str) -> None:
    body = {"subject": subject(adults(house)[2].cedula), **DUTY, "on": day}
    answer = await systems["demo-utgs"].post(STATUS, body)
    assert answer.status_code == 200
    assert answer.json()["on"] == day


@pytest.mark.parametrize(
    "keys",
    [[], [b""], [b"k" * 129], [b"two words"], [b"caf\xe9"], [b"\xc3\xb1"], [b"tab\there"], [b"a", b"b"]],
    ids=["missing", "empty", "over-long", "space", "latin-1", "utf-8", "tab", "two"],
)
async def test_what_creates_needs_one_usable_idempotency_key(house: House, systems: Systems, keys: list[bytes]) -> None:
    utgs, mspbs, since = systems["demo-utgs"], systems["demo-mspbs"], uuid7()
    for caller, path, body in (
        (utgs, REFERRALS, referring(adults(house)[3])),
        (mspbs, f"{REFERRALS}/{uuid7()}/counter-referrals", replying("accept", "m-key")),
    ):
        headers = [
            (b"Authorization", f"Bearer {await bearer(caller)}".encode()),
            (b"Content-Type", b"application/json"),
        ]
        headers += [(b"Idempotency-Key", key) for key in keys]
        answer = await house.http.post(house.issuer.url + path, content=json.dumps(body), headers=headers)
        told = problem(answer, 422, "missing-idempotency-key")
        assert "errors" not in told
        written = {entry["id"]: entry for entry in await entries(house, "request.refused", since)}
        assert written[told["receipt"]["entry_id"]]["actor"]["client"] == caller.client_id
    assert not [
        entry for entry in await entries(house, "referral.created", since) if entry["actor"]["client"] == "demo-utgs"
    ]


async def test_the_longest_key_there_may_be_is_taken(house: House, systems: Systems) -> None:
    key = str(uuid7()).ljust(128, "~")
    answer = await systems["demo-utgs"].post(REFERRALS, referring(adults(house)[3]), key=key)
    assert answer.status_code == 201, answer.text


@pytest_asyncio.fixture(loop_scope="session")
async def silent_recipient(house: House) -> AsyncIterator[None]:
    """The health ministry takes referrals and says nothing by itself."""
    await house.switch("mspbs", accept_after_s=3600, outcome_after_s=3600)
    yield
    await house.switch("mspbs", accept_after_s=0.3, outcome_after_s=1.0)


async def received(house: House, caller: Caller, referral_id: str) -> None:
    """Wait until the recipient has a referral."""

    async def transmitted() -> bool:
        answer = await get(house, caller, f"{REFERRALS}/{referral_id}")
        return bool(answer.json()["delivery"] == "transmitted")

    await until(transmitted)


@pytest.mark.usefixtures("silent_recipient")
async def test_a_counter_referral_counts_once_in_order_and_only_from_the_recipient(
    house: House, systems: Systems
) -> None:
    utgs, mspbs, since = systems["demo-utgs"], systems["demo-mspbs"], uuid7()
    mine = (await utgs.post(REFERRALS, referring(adults(house)[4]), key=str(uuid7()))).json()["id"]
    theirs = (await utgs.post(REFERRALS, referring(adults(house)[4], "abrazo"), key=str(uuid7()))).json()["id"]
    await received(house, utgs, mine)

    async def reply(referral_id: str, body: dict[str, Any], key: str | None = None) -> httpx.Response:
        return await mspbs.post(f"{REFERRALS}/{referral_id}/counter-referrals", body, key=key or str(uuid7()))

    async def happened() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await get(house, utgs, f"{REFERRALS}/{mine}/events")).json()["events"]
        return items

    accept = replying("accept", "m-accept")
    hidden = [await reply(each, accept) for each in (theirs, str(uuid7()), "no-uuid", f"{{{mine}}}", mine + "%00")]
    for answer in hidden:
        problem(answer, 404, "not-found")
    assert len({answer.content for answer in hidden}) == 1
    problem(await reply(mine, replying("no_show", "m-early")), 409, "out-of-order")
    problem(await reply(mine, replying("confirm_cancel", "m-early")), 409, "out-of-order")
    for code in ("bored", "protection-gap"):
        answer = await reply(mine, replying("decline", "m-reason", reason={"code": code}))
        problem(answer, 422, "unknown-reason")
    assert [item["type"] for item in await happened()][:2] == ["create", "send"]
    before = [item for item in await happened() if item["actor"] == "MSPBS"]
    assert before == []

    first = await reply(mine, accept, key="k-accept")
    assert (first.status_code, first.json()["state"]) == (201, "accepted")
    same_key = await reply(mine, accept, key="k-accept")
    assert (same_key.status_code, same_key.json()) == (201, first.json())
    assert same_key.headers["idempotency-replayed"] == "true"
    twice = await reply(mine, accept)
    same = {"id": mine, "state": "accepted", "receipt": first.json()["receipt"]}
    assert (twice.status_code, twice.json()) == (200, same)
    assert twice.headers["idempotency-replayed"] == "true"
    other = await reply(mine, accept | {"place": "Ñemby"}, key="k-accept")
    told = problem(other, 409, "idempotency-key-reused", secrets=["Ñemby"])
    assert len([item for item in await happened() if item["actor"] == "MSPBS"]) == 1

    failed = replying("outcome", "m-out", outcome="not_provided", reason={"code": "no-capacity"})
    assert (await reply(mine, failed)).json()["state"] == "completed"
    for event in (replying("accept", "m-after"), replying("outcome", "m-after", outcome="provided")):
        late = problem(await reply(mine, event), 409, "out-of-order")
        assert "completed" in late["detail"]
    assert [item["type"] for item in await happened() if item["actor"] == "MSPBS"] == ["accept", "outcome"]

    # Of what names a referral the entry names it too; the rest was no number at all, or no reason.
    tried = await entries(house, "referral.refused", since)
    reasons = [entry["exchange"]["reason"] for entry in tried if entry["actor"]["client"] == "demo-mspbs"]
    for reason, times in {"not-found": 2, "out-of-order": 4, "idempotency-key-reused": 1}.items():
        assert reasons.count(reason) == times, reason
    assert told["receipt"]["entry_id"] in [entry["id"] for entry in tried]
    assert {entry["exchange"].get("state_before") for entry in tried if entry["exchange"]["referral"] == mine} >= {
        "received",
        "completed",
    }
    written = await entries(house, "request.refused", since)
    refused = [entry["what"]["reasons"] for entry in written if entry["actor"]["client"] == "demo-mspbs"]
    assert (refused.count(["not-found"]), refused.count(["unknown-reason"])) == (3, 2)
    assert all(
        entry["what"]["route"] == f"{REFERRALS}/{{referral_id}}/counter-referrals"
        for entry in written
        if entry["actor"]["client"] == "demo-mspbs"
    )


async def test_the_process_logs_tell_no_traceback_and_no_person(house: House) -> None:
    logs_are_quiet(house)
