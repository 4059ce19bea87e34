"""Both journeys through HTTP, on running processes: what is released, refused, delivered, answered and remembered."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from adapters.simulator.population import SimPerson
from audit.check import check_log
from audit.search import recent
from consent import people as protection
from consent import records
from gateway.cli.demo.clients import Caller
from gateway.registry import service as registry
from gateway.runtime import load_signer
from schemas.ids import uuid7
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
DUTY = {"purpose": "service-access-determination", "basis": "official-authority"}


def adults(house: House) -> list[SimPerson]:
    today = date(2026, 11, 22)
    return [p for p in house.people if p.cedula and not p.deceased_on and today.year - p.birth_date.year > 20]


def asking(cedula: str | None, fields: list[str], **changes: Any) -> dict[str, Any]:
    subject = {"system": "cedula", "value": cedula}
    return {"subject": subject, "dataset": "identity", "fields": fields, **DUTY, **changes}


def referring(person: SimPerson, service: str, **changes: Any) -> dict[str, Any]:
    subject = {"system": "cedula", "value": person.cedula}
    return {"subject": subject, "service": service, "reason": {"code": "protection-gap"}, **DUTY, **changes}


async def newest(house: House, kind: str) -> dict[str, Any]:
    async with house.context() as context, context.database.connection() as connection:
        [found] = await recent(connection, context.epochs, 1, type=kind)
    return {"envelope": dict(found.envelope), **(found.detail or {})}


async def settled(house: House, caller: Caller, referral_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def closed() -> bool:
        answer = await house.http.get(
            f"{house.issuer.url}/api/v1/referrals/{referral_id}", headers={"Authorization": f"Bearer {caller.token}"}
        )
        found.update(answer.json())
        return found["state"] in ("completed", "rejected")

    await until(closed)
    return found


async def events(house: House, caller: Caller, referral_id: str) -> list[dict[str, Any]]:
    answer = await house.http.get(
        f"{house.issuer.url}/api/v1/referrals/{referral_id}/events",
        headers={"Authorization": f"Bearer {caller.token}"},
    )
    items: list[dict[str, Any]] = answer.json()["events"]
    return items


async def test_a_disclosure_releases_what_the_agreement_covers_and_its_entry_is_there_first(house: House) -> None:
    person = adults(house)[0]
    answer = await house.callers["demo-mds"].post(
        "/api/v1/disclosures", asking(person.cedula, ["given_names", "birth_date", "profession"])
    )
    assert answer.status_code == 200
    body = answer.json()
    assert body["facts"]["birth_date"] == person.birth_date.isoformat()
    assert body["facts"]["given_names"] == person.given_names
    assert body["withheld"] == []
    assert body["source"]["institution"] == "PN-IDENT"
    entry = await newest(house, "disclosure.released")
    assert entry["envelope"]["id"] == body["receipt"]["entry_id"]
    assert entry["actor"]["institution"] == "MDS"
    assert entry["why"]["norm"]
    assert person.given_names not in json.dumps(entry, ensure_ascii=False)
    intent = await newest(house, "disclosure.intent")
    assert entry["exchange"]["intent"] == intent["envelope"]["id"]


async def test_a_person_known_here_can_be_asked_about_by_our_own_number(house: House) -> None:
    person = adults(house)[0]
    async with house.context() as context, context.database.connection() as connection:
        who = await registry.find_person(connection, context.vault, "cedula", str(person.cedula))
    assert who is not None
    body = asking(None, ["cedula"]) | {"subject": {"system": "siis", "value": str(who.id)}}
    answer = await house.callers["demo-mds"].post("/api/v1/disclosures", body)
    assert answer.json()["facts"] == {"cedula": person.cedula}


async def test_fields_outside_the_agreement_are_withheld_under_one_neutral_code(house: House) -> None:
    person = adults(house)[1]
    answer = await house.callers["demo-mtess"].post(
        "/api/v1/disclosures", asking(person.cedula, ["given_names", "marital_status", "profession"])
    )
    body = answer.json()
    assert set(body["facts"]) == {"given_names"}
    assert body["withheld"] == [
        {"field": "marital_status", "reason": "not-released"},
        {"field": "profession", "reason": "not-released"},
    ]
    entry = await newest(house, "disclosure.released")
    assert entry["what"]["withheld"] == {"marital_status": "not-in-agreement", "profession": "not-in-agreement"}


@pytest.mark.parametrize(
    ("client", "changes", "reason"),
    [
        ("demo-mec", {}, "agreement"),
        ("demo-mds", {"purpose": "official-statistics"}, "purpose"),
        ("demo-mtess", {"basis": "legal-obligation"}, "basis"),
        ("demo-mds", {"operator": {"id": "x", "roles": ["auditor"]}}, "role"),
    ],
)
async def test_a_denial_names_its_reason_and_reveals_nothing(
    house: House, client: str, changes: dict[str, Any], reason: str
) -> None:
    person = adults(house)[2]
    answer = await house.callers[client].post("/api/v1/disclosures", asking(person.cedula, ["given_names"], **changes))
    assert answer.status_code == 403
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert reason in [item["code"] for item in problem["reasons"]]
    assert person.given_names not in answer.text
    entry = await newest(house, "disclosure.denied")
    assert entry["envelope"]["id"] == problem["receipt"]["entry_id"]


async def test_what_depends_on_the_person_looks_exactly_like_not_found(house: House) -> None:
    people = adults(house)
    sealed, silent = people[3], people[4]
    async with house.context() as context, context.database.transaction() as connection:
        who = await registry.find_person(connection, context.vault, "cedula", str(sealed.cedula))
        assert who is not None
        await protection.set_flag(connection, who.id, protection.SEALED, at=datetime.now(UTC))
    mds, snpp = house.callers["demo-mds"], house.callers["demo-snpp"]
    consent = {"purpose": "service-provision", "basis": "consent"}
    asked = [
        (mds, asking("99999999", ["given_names"])),
        (mds, asking(sealed.cedula, ["given_names"])),
        (snpp, asking(silent.cedula, ["given_names"], **consent)),
        (snpp, asking("99999999", ["given_names"], **consent)),
    ]
    answers, left = [], set()
    for caller, body in asked:
        before = uuid7()
        answers.append(await caller.post("/api/v1/disclosures", body))
        async with house.context() as context, context.database.connection() as connection:
            entries = await recent(connection, context.epochs, 20)
        left.add(sum(entry.entry_id > before for entry in entries))
    # Everybody can read how large the log is, so each of them makes it grow alike.
    assert left == {2}
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(sorted(set(answer.headers) - {"date"})) for answer in answers}) == 1


async def test_consent_opens_its_own_fields_and_withdrawal_acts_at_the_next_request(house: House) -> None:
    person = adults(house)[5]
    async with house.context() as context, context.database.transaction() as connection:
        who = await registry.find_person(connection, context.vault, "cedula", str(person.cedula))
        assert who is not None
        new = records.NewConsent(
            agreement="DEMO-SNPP-IDENT",
            purposes=frozenset({"service-provision"}),
            fields=frozenset({"given_names"}),
            text_version="1",
            language="es",
            channel="web",
            proof_reference="test",
        )
        given = await records.record_consent(
            connection, who.id, new, birth_date=who.birth_date, recorded_by="test", at=datetime.now(UTC)
        )
    body = asking(person.cedula, ["given_names", "birth_date"], purpose="service-provision", basis="consent")
    snpp = house.callers["demo-snpp"]
    opened = await snpp.post("/api/v1/disclosures", body)
    assert opened.status_code == 200
    assert opened.json()["facts"] == {"given_names": person.given_names}
    async with house.context() as context, context.database.transaction() as connection:
        consent_id = UUID(given["consent"])
        await records.end_consent(connection, consent_id, step="withdraw", reason="person", at=datetime.now(UTC))
    assert (await snpp.post("/api/v1/disclosures", body)).status_code == 404


@pytest.mark.parametrize(
    ("service", "channel"), [("universal-pension", "mds"), ("health-control", "mspbs"), ("abrazo", "minna")]
)
async def test_a_referral_goes_round_by_soap_rest_and_file(house: House, service: str, channel: str) -> None:
    person = adults(house)[{"mds": 6, "mspbs": 7, "minna": 8}[channel]]
    utgs = house.callers["demo-utgs"]
    answer = await utgs.post("/api/v1/referrals", referring(person, service), key=str(uuid7()))
    assert answer.status_code == 201
    created = answer.json()
    assert UUID(created["receipt"]["entry_id"])
    final = await settled(house, utgs, created["id"])
    assert final["delivery"] == "transmitted"
    types = [item["type"] for item in await events(house, utgs, created["id"])]
    assert types[:2] == ["create", "send"]
    assert types[-1] in ("outcome", "decline")
    assert (await house.effects(channel))[created["id"]] == 1


async def test_a_counter_referral_changes_the_protection_status(house: House) -> None:
    utgs = house.callers["demo-utgs"]
    person = next(p for p in adults(house)[9:] if date(2026, 11, 22).year - p.birth_date.year >= 66)
    query = {"subject": {"system": "cedula", "value": person.cedula}, **DUTY}

    async def status() -> dict[str, Any]:
        answer = await utgs.post("/api/v1/protection-status/query", query)
        assert answer.status_code == 200, answer.text
        return {item["service"]: item for item in answer.json()["services"]}

    before = await status()
    assert "universal-pension" in before
    created = await utgs.post("/api/v1/referrals", referring(person, "universal-pension"), key=str(uuid7()))
    final = await settled(house, utgs, created.json()["id"])
    told = (await events(house, utgs, created.json()["id"]))[-1]
    after = (await status())["universal-pension"]
    if final["state"] == "completed":
        assert after["instrument"] == "counter-referral"
        assert after["source"] == "MDS"
        assert after["status"] == ("protected" if told["outcome"] == "provided" else "unprotected")
    else:
        assert after == before["universal-pension"]


async def test_the_same_key_answers_the_same_and_another_body_is_refused(house: House) -> None:
    person = adults(house)[20]
    utgs, key = house.callers["demo-utgs"], str(uuid7())
    body = referring(person, "health-control")
    first = await utgs.post("/api/v1/referrals", body, key=key)
    again = await utgs.post("/api/v1/referrals", body, key=key)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    other = await utgs.post("/api/v1/referrals", body | {"priority": "urgent"}, key=key)
    assert other.status_code == 409
    assert other.json()["type"] == "urn:siis:problem:idempotency-key-reused"


async def test_twenty_requests_with_one_key_at_once_create_one_referral(house: House) -> None:
    person = adults(house)[21]
    utgs, key = house.callers["demo-utgs"], str(uuid7())
    body = referring(person, "health-control")
    answers = await asyncio.gather(*(utgs.post("/api/v1/referrals", body, key=key) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_only_the_recipient_answers_once_and_in_order(house: House) -> None:
    utgs, mspbs = house.callers["demo-utgs"], house.callers["demo-mspbs"]
    mine = await utgs.post("/api/v1/referrals", referring(adults(house)[22], "health-control"), key=str(uuid7()))
    theirs = await utgs.post("/api/v1/referrals", referring(adults(house)[22], "abrazo"), key=str(uuid7()))
    reply = {"event": "outcome", "message_id": "m-1", "occurred_on": "2026-11-20", "outcome": "provided"}
    path = "/api/v1/referrals/{}/counter-referrals"
    stranger = await mspbs.post(path.format(theirs.json()["id"]), reply, key="k-stranger")
    unknown = await mspbs.post(path.format(uuid7()), reply, key="k-unknown")
    assert stranger.status_code == unknown.status_code == 404
    assert stranger.content == unknown.content
    await settled(house, utgs, mine.json()["id"])
    late = await mspbs.post(path.format(mine.json()["id"]), reply | {"message_id": "m-2"}, key="k-late")
    assert late.status_code == 409
    assert late.json()["type"] == "urn:siis:problem:out-of-order"
    happened = await events(house, utgs, mine.json()["id"])
    told = next(item for item in happened if item["actor"] == "MSPBS")
    assert len({item["number"] for item in happened}) == len(happened)
    assert told["entry_id"]


async def test_the_chilean_messages_go_round(house: House, samples: Path) -> None:
    aps = house.callers["demo-mspbs-aps"]
    ids = []
    for name in ("Inicio", "Referencia", "Revisar"):
        body = (samples / "referral" / "cl-minsal-tei" / f"Bundle-EjemploBundle{name}.json").read_bytes()
        answer = await aps.post("/api/v1/referrals", body, media_type="application/fhir+json")
        assert answer.status_code == 201, answer.text
        outcome = answer.json()
        assert outcome["resourceType"] == "OperationOutcome"
        ids.append(outcome["id"])
        repeated = await aps.post("/api/v1/referrals", body, media_type="application/fhir+json")
        assert repeated.json()["id"] == outcome["id"]
    assert ids[0] != ids[1] == ids[2]
    final = await settled(house, aps, ids[0])
    assert (final["service"], final["priority"], final["recipient"]) == ("specialised-consultation", "urgent", "MSPBS")
    await settled(house, aps, ids[1])
    happened = await events(house, aps, ids[1])
    review = next(item for item in happened if item["type"] == "review")
    assert review["contradictory"] is True
    assert review["texts"]["kept"]
    assert (await house.effects("mspbs"))[ids[0]] == 1


async def test_the_log_proves_all_of_it(house: House) -> None:
    async with house.context() as context, context.database.connection() as connection:
        signer = load_signer(house.settings)
        report = await check_log(connection, signer)
    assert report.ok, report.problems[:3]
    assert report.entries > 20
    assert report.checkpoints > 0
