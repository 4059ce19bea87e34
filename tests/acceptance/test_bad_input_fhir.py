"""FHIR messages that are broken, huge, contradictory or somebody else's: an OperationOutcome, an entry, no referral."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import func, select

from gateway.cli.demo.clients import Caller, callers
from gateway.referrals.tables import referral
from gateway.registry import service as registry
from gateway.registry.tables import person_identifier
from gateway.standards.fhir.service import FHIR_JSON
from schemas.ids import uuid7
from tests.acceptance.bad_input import REFERRALS, adults, entries, logs_are_quiet, newcomer, nothing_leaks, problem
from tests.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")
Message = dict[str, Any]
AT_ONCE = 8


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def aps(house: House) -> Caller:
    """A health establishment's system with a token of its own."""
    return callers(house.http, house.issuer, house.settings.data_dir)["demo-mspbs-aps"]


@pytest.fixture(scope="module")
def start(samples: Path) -> Message:
    """The published message that starts a referral."""
    name = samples / "referral" / "cl-minsal-tei" / "Bundle-EjemploBundleInicio.json"
    message: Message = json.loads(name.read_text(encoding="utf-8"))
    return message


def resource(message: Message, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(e["resource"] for e in message["entry"] if e["resource"]["resourceType"] == kind)
    return found


def another_patient(message: Message, identifiers: list[dict[str, Any]]) -> Message:
    """Give a message a patient nobody knows, with these identifiers."""
    changed = copy.deepcopy(message)
    entry = next(e for e in changed["entry"] if e["resource"]["resourceType"] == "Patient")
    entry["fullUrl"] = f"http://example.org/fhir/Patient/{uuid7()}"
    entry["resource"]["identifier"] = identifiers
    resource(changed, "ServiceRequest")["subject"] = {"reference": entry["fullUrl"]}
    return changed


async def send(caller: Caller, message: Message | bytes) -> httpx.Response:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return await caller.post(REFERRALS, body, media_type=FHIR_JSON)


def outcome(answer: httpx.Response, status: int, code: str | None = None) -> list[dict[str, Any]]:
    """Hold an answer to R4's OperationOutcome; return its issues."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == FHIR_JSON
    told = answer.json()
    assert told["resourceType"] == "OperationOutcome"
    issues: list[dict[str, Any]] = told["issue"]
    assert issues
    assert all(issue["details"]["text"] for issue in issues)
    assert code is None or [issue["code"] for issue in issues] == [code]
    assert status < 400 or {issue["severity"] for issue in issues} == {"error"}
    nothing_leaks(answer)
    return issues


def spoil(*path: str | int, value: Any) -> Callable[[Message], Message]:
    def change(message: Message) -> Message:
        changed = copy.deepcopy(message)
        place: Any = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return changed

    return change


def of(kind: str, **members: Any) -> Callable[[Message], Message]:
    def change(message: Message) -> Message:
        changed = copy.deepcopy(message)
        resource(changed, kind).update(members)
        return changed

    return change


REFUSED: dict[str, tuple[Callable[[Message], Message | bytes], int, str]] = {
    "no JSON": (lambda _: b"{", 400, "structure"),
    "no UTF-8": (lambda _: b"\xff\xfe", 400, "structure"),
    "repeated key": (lambda _: b'{"resourceType":"Bundle","resourceType":"Bundle"}', 400, "structure"),
    "65 levels": (lambda _: b"[" * 65 + b"]" * 65, 400, "structure"),
    "50 levels": (lambda _: b'{"a":' * 50 + b"1" + b"}" * 50, 422, "too-costly"),
    "array": (lambda _: b"[]", 422, "structure"),
    "another resource": (lambda message: resource(message, "Patient"), 422, "structure"),
    "no message": (spoil("type", value="transaction"), 422, "structure"),
    "no entries": (spoil("entry", value=[]), 422, "required"),
    "entries no list": (spoil("entry", value={}), 422, "structure"),
    "entry twice": (lambda m: {**m, "entry": [*m["entry"], m["entry"][-1]]}, 422, "duplicate"),
    "201 entries": (
        lambda m: {**m, "entry": m["entry"] + [{"resource": {"resourceType": "Basic"}}] * 201},
        422,
        "too-costly",
    ),
    "header not first": (lambda m: {**m, "entry": m["entry"][::-1]}, 422, "invariant"),
    "unknown event": (of("MessageHeader", eventCoding={"system": "a", "code": "b"}), 422, "code-invalid"),
    "modifier": (of("ServiceRequest", modifierExtension=[{"url": "a"}]), 422, "extension"),
    "cancelled": (of("ServiceRequest", status="revoked"), 422, "business-rule"),
    "unknown priority": (of("ServiceRequest", priority="now"), 422, "code-invalid"),
    "born on 31 February": (of("Patient", birthDate="2000-02-31"), 422, "value"),
    "born in year 0": (of("Patient", birthDate="0000-01-01"), 422, "value"),
    "before all time": (spoil("timestamp", value="0001-01-01T00:00:00+23:59"), 422, "value"),
    "after all time": (of("ServiceRequest", authoredOn="9999-12-31T23:59:59-23:59"), 422, "value"),
    "second 60": (of("ServiceRequest", authoredOn="2026-12-31T23:59:60Z"), 422, "value"),
    "number too big": (of("MessageHeader", id=10**30), 422, "value"),
    "cédula with dots": (
        lambda m: another_patient(m, [{"system": "cedula", "value": "1.234.567"}]),
        422,
        "business-rule",
    ),
    "identifier of 40000": (
        lambda m: another_patient(m, [{"system": "urn:a", "value": Random(1).randbytes(20_000).hex()}]),
        422,
        "too-long",
    ),
    "system of 40000": (
        lambda m: another_patient(m, [{"system": f"urn:{Random(2).randbytes(20_000).hex()}", "value": "1"}]),
        422,
        "too-long",
    ),
    "number of 40000": (
        of("ServiceRequest", identifier=[{"system": "urn:a", "value": Random(3).randbytes(20_000).hex()}]),
        422,
        "too-long",
    ),
}


@pytest.mark.parametrize(("make", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_a_message_that_cannot_be_taken_is_told_in_fhir_and_has_an_entry(
    house: House, aps: Caller, start: Message, make: Callable[[Message], Message | bytes], status: int, code: str
) -> None:
    since, message = uuid7(), make(start)
    answer = await send(aps, message)
    outcome(answer, status, code)
    if isinstance(message, dict) and message.get("entry"):
        assert "1.234.567" not in answer.text
        assert "15999999" not in answer.text
    [entry] = await entries(house, "request.refused", since)
    assert entry["actor"] == {"address": "127.0.0.1", "client": "demo-mspbs-aps", "institution": "MSPBS"}
    assert entry["what"] == {"reasons": [f"fhir {code}"], "route": REFERRALS}


async def test_a_message_over_the_limit_and_one_without_a_token_are_problems_like_any(
    house: House, aps: Caller, start: Message
) -> None:
    problem(await send(aps, json.dumps(start).encode().ljust(512 * 1024 + 1)), 413, "too-large")
    mds = callers(house.http, house.issuer, house.settings.data_dir)["demo-mds"]
    problem(await send(mds, start), 403, "unauthorised")
    headers = {"Content-Type": FHIR_JSON}
    answer = await house.http.post(house.issuer.url + REFERRALS, json=start, headers=headers)
    problem(answer, 401, "unauthorised")


async def test_a_message_that_no_agreement_covers_is_denied_in_fhir(house: House, start: Message) -> None:
    minna = await newcomer(house, "MINNA", "referrals.create")
    cedula, since = str(adults(house)[13].cedula), uuid7()
    answer = await send(minna, another_patient(start, [{"system": "cedula", "value": cedula}]))
    [issue] = outcome(answer, 403, "forbidden")
    assert "agreement" in issue["details"]["text"]
    assert cedula not in answer.text
    [entry] = await entries(house, "referral.denied", since)
    assert (entry["actor"]["client"], entry["decision"]["reasons"]) == (minna.client_id, ["agreement"])


async def test_the_same_message_many_times_at_once_makes_one_referral(
    house: House, aps: Caller, start: Message
) -> None:
    since = uuid7()
    message = another_patient(start, [{"system": "cedula", "value": str(adults(house)[13].cedula)}])
    answers = await asyncio.gather(*(send(aps, message) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    created = [e for e in await entries(house, "referral.created", since) if e["actor"]["client"] == aps.client_id]
    assert len(created) == 1


async def test_a_review_of_what_nobody_referred_is_not_found(house: House, aps: Caller, samples: Path) -> None:
    name = samples / "referral" / "cl-minsal-tei" / "Bundle-EjemploBundleRevisar.json"
    message = json.loads(await asyncio.to_thread(name.read_text, encoding="utf-8"))
    for identifier in resource(message, "ServiceRequest")["identifier"]:
        identifier["value"] = str(uuid7())
    outcome(await send(aps, message), 404, "not-found")


async def test_an_identifier_is_stored_in_one_form_however_it_is_written(
    house: House, aps: Caller, start: Message
) -> None:
    value = str(7_000_000 + uuid7().int % 900_000)
    persons = []
    for forms in ([f"00{value}", value], [value], [f" {value} ", f"0{value}"]):
        identifiers = [{"system": "cedula", "value": form} for form in forms]
        answer = await send(aps, another_patient(start, identifiers))
        outcome(answer, 201)
        async with house.context() as context, context.database.connection() as connection:
            query = select(referral.c.person_id).where(referral.c.id == answer.json()["id"])
            persons.append(await connection.scalar(query))
            index = context.vault.index("cedula", value)
            rows = select(func.count()).where(person_identifier.c.blind_index == index)
            assert await connection.scalar(rows) == 1
    assert len(set(persons)) == 1


@pytest.mark.parametrize("known_by", ["cédula", "reference"])
async def test_a_message_cannot_give_a_person_somebody_elses_cedula(
    house: House, aps: Caller, start: Message, known_by: str
) -> None:
    mine, another = str(adults(house)[29].cedula), str(7_900_000 + uuid7().int % 90_000)
    first = another_patient(start, [{"system": "cedula", "value": mine}])
    assert (await send(aps, first)).status_code == 201
    patient = next(e for e in first["entry"] if e["resource"]["resourceType"] == "Patient")
    both = [{"system": "cedula", "value": value} for value in ((mine, another) if known_by == "cédula" else (another,))]
    patient["resource"]["identifier"] = both
    await send(aps, first)
    async with house.context() as context, context.database.connection() as connection:
        # Whoever is found under it would be asked for in the other's name, on the other's consent.
        who = await registry.find_person(connection, context.vault, "cedula", mine)
        found = await registry.find_person(connection, context.vault, "cedula", another)
    assert who is not None
    assert found is None or found.id != who.id


async def test_any_node_of_a_message_may_be_anything(house: House, aps: Caller, start: Message) -> None:
    random, spoiled = Random(7), []
    odd: list[Any] = [None, True, 0, -1.5, "", " ", "\0", "\ud800", "\u202e", "x" * 5000, [], {}, [[]], [{}], [None]]
    paths = list(nodes(start))
    for path in random.sample(paths, 90):
        spoiled.append(spoil(*path, value=random.choice(odd))(start))
    gate = asyncio.Semaphore(AT_ONCE)

    async def attack(message: Message) -> int:
        async with gate:
            answer = await send(aps, message)
        outcome(answer, answer.status_code)
        assert answer.status_code in (200, 201, 400, 404, 409, 422), answer.text
        return answer.status_code

    statuses = await asyncio.gather(*(attack(message) for message in spoiled))
    assert {201, 422} <= set(statuses)


def nodes(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the paths of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for step, member in inside for each in ((*path, step), *nodes(member, (*path, step)))]


async def test_the_process_logs_tell_no_traceback_and_no_person(house: House) -> None:
    logs_are_quiet(house)
