"""GovStack Consent BB 1.1.0-rc1: every operation of its OpenAPI answers as it says, on the records of our own face."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
import yaml
from jsonschema import Draft202012Validator
from sqlalchemy import select

from audit.search import recent
from consent import people
from gateway.api.consent_bb import OPERATIONS, PREFIX
from gateway.clock import utc_now
from gateway.jobs import job_app
from gateway.registry import service as registry
from gateway.registry.models import NewPerson
from gateway.standards.govstack import revisions
from gateway.standards.govstack.tables import webhook as webhook_table
from gateway.standards.govstack.webhooks import SIGNATURE_HEADER, Calls, add_task, signature_of
from gateway.vault import load_epochs
from schemas.ids import uuid7
from tests.conformance.govstack import AGREEMENT, SIGNED, BuildingBlock, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")
Answers = dict[tuple[str, str], httpx.Response]

# Every operation of the building block, by hand: the OpenAPI and the program are both held to this table.
TABLE = """
POST /config/policy/
GET /config/policy/{policyId}/
PUT /config/policy/{policyId}/
DELETE /config/policy/{policyId}/
GET /config/policy/{policyId}/revisions/
GET /config/policies/
POST /config/data-agreement/
GET /config/data-agreement/{dataAgreementId}/
PUT /config/data-agreement/{dataAgreementId}/
DELETE /config/data-agreement/{dataAgreementId}/
GET /config/data-agreements/
POST /config/individual/
GET /config/individual/{individualId}/
GET /config/individuals/
POST /config/webhook/
GET /config/webhook/{webhookId}/
PUT /config/webhook/{webhookId}/
DELETE /config/webhook/{webhookId}/
GET /config/webhooks/
POST /service/individual/
GET /service/individual/{individualId}/
PUT /service/individual/{individualId}/
GET /service/individuals/
GET /service/data-agreement/{dataAgreementId}/
GET /service/policy/{policyId}/
GET /service/verification/data-agreements/
GET /service/verification/consent-records/
GET /service/verification/consent-record/{consentRecordId}/
POST /service/individual/record/data-agreement/{dataAgreementId}/
GET /service/individual/record/data-agreement/{dataAgreementId}/
GET /service/individual/record/data-agreement/{dataAgreementId}/all/
POST /service/individual/record/consent-record/draft/
POST /service/individual/record/consent-record/
GET /service/individual/record/consent-record/
PUT /service/individual/record/consent-record/{consentRecordId}/
POST /service/individual/record/consent-record/{consentRecordId}/signature/
PUT /service/individual/record/consent-record/{consentRecordId}/signature/
DELETE /service/individual/record/
GET /audit/consent-records/
GET /audit/consent-record/{consentRecordId}/
GET /audit/data-agreements/
GET /audit/data-agreement/{dataAgreementId}/
"""
WRITTEN = [tuple(line.split()) for line in TABLE.strip().splitlines()]
WITH_EXTRAS = {"receipt", "revisions"}


@pytest.fixture(scope="module")
def contract(samples: Path) -> dict[str, Any]:
    """The published OpenAPI."""
    file = samples / "rest" / "govstack-consent" / "api" / "consent-openapi.yaml"
    document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return document


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bb(folders: Callable[[str], Path]) -> AsyncIterator[BuildingBlock]:
    """A running gateway."""
    async with opened(folders("govstack")) as made:
        yield made


# Every operation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walked(bb: BuildingBlock) -> Answers:
    """The answers of every operation, asked in the order in which they make sense."""
    return await walk(bb)


async def walk(bb: BuildingBlock) -> Answers:
    """Do everything once: a policy, an agreement under it, a person, webhooks, consents given and withdrawn, audits."""
    answers: Answers = {}

    async def ask(method: str, template: str, *arguments: Any, path: dict[str, str] | None = None, **more: Any) -> Any:
        answer = await bb.ask(method, template.format(**(path or {})), *arguments, **more)
        answers[method, template] = answer
        return answer.json()

    admin = {"staff": "admin"}
    policy = (await ask("POST", "/config/policy/", POLICY, **admin))["policy"]
    of_policy = {"policyId": policy["id"]}
    await ask("PUT", "/config/policy/{policyId}/", {"policy": {**policy, "version": "2"}}, path=of_policy, **admin)
    await ask("GET", "/config/policy/{policyId}/", path=of_policy, **admin)
    await ask("GET", "/config/policy/{policyId}/revisions/", path=of_policy, **admin)
    await ask("GET", "/config/policies/", **admin)

    drafted = data_agreement("SNPP-WALK", policy={"id": policy["id"]})
    await ask("POST", "/config/data-agreement/", drafted, **admin)
    of_code = {"dataAgreementId": AGREEMENT}
    now = (await ask("GET", "/config/data-agreement/{dataAgreementId}/", path=of_code, **admin))["dataAgreement"]
    changed = {"dataAgreement": {name: now[name] for name in REQUIRED} | {"dpia": "https://snpp.gov.py/eipd/7"}}
    await ask("PUT", "/config/data-agreement/{dataAgreementId}/", changed, path=of_code, **admin)
    await ask("GET", "/config/data-agreements/", **admin)
    await ask("GET", "/service/data-agreement/{dataAgreementId}/", path=of_code)
    await ask("GET", "/service/policy/{policyId}/", path=of_policy)
    await ask("GET", "/service/verification/data-agreements/")

    person = bb.adult()
    named = {"individual": {"externalId": person.cedula, "externalIdType": "cedula"}}
    who = (await ask("POST", "/config/individual/", named))["individual"]["id"]
    await ask("POST", "/service/individual/", named)
    of_who = {"individualId": who}
    own = {"individual": {"id": who, "externalId": "alumno-17", "externalIdType": "student"}}
    await ask("PUT", "/service/individual/{individualId}/", own, path=of_who)
    for area in ("config", "service"):
        await ask("GET", f"/{area}/individual/{{individualId}}/", path=of_who)
        await ask("GET", f"/{area}/individuals/")

    hook = (await ask("POST", "/config/webhook/", WEBHOOK, **admin))["webhook"]
    of_hook = {"webhookId": hook["id"]}
    await ask("GET", "/config/webhook/{webhookId}/", path=of_hook, **admin)
    await ask("GET", "/config/webhooks/", **admin)
    await ask("PUT", "/config/webhook/{webhookId}/", {"webhook": {**hook, "disabled": True}}, path=of_hook, **admin)
    await ask("DELETE", "/config/webhook/{webhookId}/", path=of_hook, **admin)

    mine, base = {"individual": who}, "/service/individual/record"
    asked = await ask("POST", f"{base}/data-agreement/{{dataAgreementId}}/", path=of_code, individualId=who)
    of_record = {"consentRecordId": asked["consentRecord"]["id"]}
    one = f"{base}/consent-record/{{consentRecordId}}"
    ready = await ask("POST", f"{one}/signature/", {"signature": {}}, path=of_record, **mine)
    await ask("PUT", f"{one}/signature/", {"signature": {**ready["signature"], **SIGNED}}, path=of_record, **mine)
    await ask("PUT", f"{one}/", {"consentRecord": {"optIn": False}}, path=of_record, **mine)
    await ask("POST", f"{base}/consent-record/draft/", individualId=who, dataAgreementId=AGREEMENT)
    record = (await ask("POST", f"{base}/consent-record/", await bb.signed(who)))["consentRecord"]
    of_record = {"consentRecordId": record["id"]}
    await ask("GET", f"{base}/consent-record/", **mine)
    await ask("GET", f"{base}/data-agreement/{{dataAgreementId}}/", path=of_code, **mine)
    await ask("GET", f"{base}/data-agreement/{{dataAgreementId}}/all/", path=of_code, **mine)
    await ask("GET", "/service/verification/consent-records/")
    await ask("GET", "/service/verification/consent-record/{consentRecordId}/", path=of_record)
    auditor = {"staff": "auditor"}
    await ask("GET", "/audit/consent-records/", **auditor)
    await ask("GET", "/audit/consent-record/{consentRecordId}/", path=of_record, **auditor)
    await ask("GET", "/audit/data-agreements/", **auditor)
    await ask("GET", "/audit/data-agreement/{dataAgreementId}/", path=of_code, **auditor)
    await ask("DELETE", f"{base}/", **mine)

    await activate(bb, "SNPP-END")
    await ask("DELETE", "/config/data-agreement/{dataAgreementId}/", path={"dataAgreementId": "SNPP-END"}, **admin)
    await ask("DELETE", "/config/policy/{policyId}/", path=of_policy, **admin)
    return answers


REQUIRED = ("id", "version", "purpose", "lawfulBasis", "dpia")
POLICY = {
    "policy": {
        "name": "Política de datos",
        "version": "1",
        "url": "https://snpp.gov.py/politica/1",
        "jurisdiction": "PY",
    }
}
WEBHOOK = {
    "webhook": {
        "id": "",
        "payloadUrl": "https://snpp.gov.py/avisos",
        "contentType": "application/json",
        "disabled": False,
        "secretKey": "una-clave-que-nadie-ve",
    }
}


def data_agreement(code: str, **changes: Any) -> dict[str, Any]:
    """A DataAgreement between SNPP and PN-IDENT, with what only an agreement of ours can say."""
    siis = {
        "en": "Identity of applicants",
        "requester": "SNPP",
        "holder": "PN-IDENT",
        "datasets": {"identity": ["given_names", "surnames"]},
        "purposes": ["service-provision"],
        "norm": "Ley 7593/2025, arts. 5 y 6",
        "channels": ["api"],
        "minimum_assurance": 1,
        "labels": ["identifying"],
        "roles": ["operator", "system"],
        "valid_from": "2026-01-01T00:00:00-03:00",
        "valid_to": None,
    }
    fields = {"id": code, "version": "1", "purpose": "Inscribir", "lawfulBasis": "consent", "dpia": ""}
    return {"dataAgreement": {**fields, "siis": siis, **changes}}


async def activate(bb: BuildingBlock, code: str) -> None:
    """Draft an agreement here and bring it into force through our own face."""
    await bb.told("POST", "/config/data-agreement/", data_agreement(code), staff="admin")
    steps = [("SNPP", "admin", "propose"), ("SNPP", "officer", "sign"), ("PN-IDENT", "officer", "sign")]
    for institution, staff, step in [*steps, ("SNPP", "admin", "activate")]:
        body = {"step": step} | ({"proof_reference": "exp-1"} if step == "sign" else {})
        path = f"/api/v1/agreements/{code}/steps"
        answer = await bb.ask("POST", path, body, of=institution, staff=staff)
        assert answer.status_code == 201, answer.text


async def test_the_table_the_program_and_the_openapi_name_the_same_operations(contract: dict[str, Any]) -> None:
    published = {(method.upper(), path) for path, item in contract["paths"].items() for method in item}
    assert set(WRITTEN) == published == {(each.method, each.path) for each in OPERATIONS}
    assert len(WRITTEN) == len(OPERATIONS) == 42


async def test_required_parameters_and_bodies_are_those_of_the_openapi(contract: dict[str, Any]) -> None:
    for each in OPERATIONS:
        published = contract["paths"][each.path][each.method.lower()]
        parameters = published.get("parameters", [])
        assert set(each.required) == {p["name"] for p in parameters if p["in"] == "query" and p["required"]}
        assert (each.message is not None) == ("requestBody" in published), each.path


async def test_our_own_description_names_the_parameters_of_the_openapi(
    bb: BuildingBlock, contract: dict[str, Any]
) -> None:
    described = (await bb.http.get("/openapi.json")).json()["paths"]
    for method, path in WRITTEN:
        published = contract["paths"][path][method.lower()].get("parameters", [])
        ours = {(p["name"], p["in"]) for p in described[PREFIX + path][method.lower()].get("parameters", [])}
        theirs = {(p["name"], p["in"]) for p in published if p["name"] != "revisionId"}
        # The OpenAPI speaks of the header with the person's id in words only, and names it nowhere.
        assert {each for each in ours if each[1] != "header"} == theirs, path


@pytest.mark.parametrize(("method", "path"), WRITTEN)
async def test_an_operation_answers_as_the_openapi_says(
    walked: Answers, contract: dict[str, Any], method: str, path: str
) -> None:
    answer = walked[method, path]
    assert answer.status_code == 200, answer.text
    content = contract["paths"][path][method.lower()]["responses"]["200"].get("content")
    body = answer.json()
    if content is None:
        assert set(body) <= WITH_EXTRAS
        return
    schema = content["application/json"]["schema"]
    # The OpenAPI requires no member of an answer, so an empty one would do: all it names must be there.
    assert set(schema["properties"]) <= set(body) <= set(schema["properties"]) | WITH_EXTRAS
    validator = Draft202012Validator({**schema, "components": contract["components"]})
    assert [error.message for error in validator.iter_errors(body)] == []


# The sentences of the published Gherkin features


async def test_configuration_of_a_data_agreement_is_retrieved_by_its_id(bb: BuildingBlock) -> None:
    told = await bb.told("GET", f"/config/data-agreement/{AGREEMENT}/", staff="admin")
    assert told["dataAgreement"]["id"] == AGREEMENT
    assert told["dataAgreement"]["lawfulBasis"] == "consent"
    assert told["dataAgreement"]["signature"]["verificationSignedBy"] == "SNPP"


@pytest.mark.parametrize("code", ["invalid_id", "123!%40%23", "%00", "DEMO-MDS-IDENT"])
async def test_an_id_that_is_none_of_the_callers_is_400_whatever_it_is(bb: BuildingBlock, code: str) -> None:
    answer = await bb.ask("GET", f"/config/data-agreement/{code}/", staff="admin")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:siis:problem:not-found")


# One record behind two faces


async def test_a_signed_consent_opens_the_next_decision_and_its_withdrawal_closes_it(bb: BuildingBlock) -> None:
    person = bb.adult()
    who = await bb.individual(person)
    assert await bb.discloses(person) == 404
    stored = await bb.told("POST", "/service/individual/record/consent-record/", await bb.signed(who))
    record = stored["consentRecord"]
    assert (record["optIn"], record["state"]) == (True, "signed")
    assert stored["signature"]["objectReference"] == stored["revision"]["id"]
    assert await bb.discloses(person) == 200
    ours = await bb.ask("GET", f"/api/v1/consents/{record['id']}")
    assert (ours.json()["state"], ours.json()["in_force"]) == ("given", True)
    path = f"/service/individual/record/consent-record/{record['id']}/"
    ended = await bb.told("PUT", path, {"consentRecord": {"optIn": False}}, individual=who)
    assert (ended["consentRecord"]["optIn"], ended["consentRecord"]["state"]) == (False, "unsigned")
    assert ended["revision"]["predecessorHash"] == stored["revision"]["serializedHash"]
    assert await bb.discloses(person) == 404


async def test_a_signature_sent_again_consents_to_nothing_again(bb: BuildingBlock) -> None:
    person = bb.adult()
    who = await bb.individual(person)
    path, pair = "/service/individual/record/consent-record/", await bb.signed(who)
    first, again = [await bb.told("POST", path, pair) for _time in range(2)]
    assert first["consentRecord"] == again["consentRecord"]
    assert first["signature"]["id"] == again["signature"]["id"]
    await bb.told("DELETE", "/service/individual/record/", individual=who)
    replayed = await bb.told("POST", path, pair)
    assert replayed["consentRecord"]["optIn"] is False
    asked = await bb.told("POST", f"/service/individual/record/data-agreement/{AGREEMENT}/", individualId=who)
    other = f"{path}{asked['consentRecord']['id']}/signature/"
    ready = (await bb.told("POST", other, {"signature": {}}, individual=who))["signature"]
    moved = {"signature": {**pair["signature"], "id": ready["id"]}}
    assert (await bb.ask("PUT", other, moved, individual=who)).status_code == 400
    assert await bb.discloses(person) == 404
    await bb.told("POST", path, await bb.signed(who))
    assert await bb.discloses(person) == 200


async def test_what_our_own_face_withdraws_is_withdrawn_here(bb: BuildingBlock) -> None:
    who = await bb.individual(bb.adult())
    stored = await bb.told("POST", "/service/individual/record/consent-record/", await bb.signed(who))
    record_id = stored["consentRecord"]["id"]
    answer = await bb.ask("POST", f"/api/v1/consents/{record_id}/steps", {"step": "withdraw"})
    assert answer.status_code == 200, answer.text
    told = await bb.told("GET", f"/service/verification/consent-record/{record_id}/")
    assert told["consentRecord"]["optIn"] is False


async def test_a_record_opens_nothing_until_it_is_signed_and_its_id_then_leads_to_the_answer(bb: BuildingBlock) -> None:
    person = bb.adult()
    who = await bb.individual(person)
    base = "/service/individual/record"
    asked = (await bb.told("POST", f"{base}/data-agreement/{AGREEMENT}/", individualId=who))["consentRecord"]
    assert asked["state"] == "unsigned"
    assert "optIn" not in asked
    assert await bb.discloses(person) == 404
    path = f"{base}/consent-record/{asked['id']}"
    says_yes = await bb.ask("PUT", f"{path}/", {"consentRecord": {"optIn": True}}, individual=who)
    assert says_yes.status_code == 400
    ready = (await bb.told("POST", f"{path}/signature/", {"signature": {}}, individual=who))["signature"]
    assert json.loads(ready["payload"])["verificationPayloadHash"] == ready["verificationPayloadHash"]
    unsigned = await bb.ask("PUT", f"{path}/signature/", {"signature": ready}, individual=who)
    assert unsigned.status_code == 400
    assert await bb.discloses(person) == 404
    await bb.told("PUT", f"{path}/signature/", {"signature": {**ready, **SIGNED}}, individual=who)
    assert await bb.discloses(person) == 200
    current = await bb.told("GET", f"{base}/data-agreement/{AGREEMENT}/", individual=who)
    again = await bb.told("GET", f"/service/verification/consent-record/{asked['id']}/")
    assert current["consentRecord"] == again["consentRecord"]
    assert current["consentRecord"]["state"] == "signed"
    await bb.told("DELETE", f"{base}/", individual=who)
    assert await bb.discloses(person) == 404


async def test_a_refusal_is_recorded_as_one(bb: BuildingBlock) -> None:
    who = await bb.individual(bb.adult())
    asked = await bb.told("POST", f"/service/individual/record/data-agreement/{AGREEMENT}/", individualId=who)
    path = f"/service/individual/record/consent-record/{asked['consentRecord']['id']}/"
    told = await bb.told("PUT", path, {"consentRecord": {"optIn": False}}, individual=who)
    assert told["consentRecord"]["optIn"] is False
    assert json.loads(told["revision"]["serializedSnapshot"])["objectData"]["optIn"] is False
    late = await bb.ask("POST", f"{path}signature/", {"signature": {}}, individual=who)
    assert late.json()["type"] == "urn:siis:problem:answered"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"signature": ""}, "unsigned"),
        ({"verificationSignedBy": ""}, "unsigned"),
        ({"verificationPayload": '{"dataAgreement":"DEMO-SNPP-IDENT"}'}, "other-payload"),
        ({"verificationPayloadHash": "0" * 64}, "other-payload"),
        ({"payload": "{}"}, "other-payload"),
        ({"payload": "[" * 3000}, "other-payload"),
        ({"verificationSignedAs": "delegate"}, "not-found"),
        ({"verificationSignedAs": "king"}, "invalid-message"),
    ],
)
async def test_a_signature_that_is_none_or_over_something_else_stores_nothing(
    bb: BuildingBlock, changes: dict[str, Any], code: str
) -> None:
    who = await bb.individual(bb.adult())
    pair = await bb.signed(who, **changes)
    answer = await bb.ask("POST", "/service/individual/record/consent-record/", pair)
    assert (answer.status_code, answer.json()["type"]) == (400, f"urn:siis:problem:{code}")
    assert (await bb.told("GET", "/service/individual/record/consent-record/", individual=who))["consentRecords"] == []


async def test_a_draft_of_an_earlier_revision_cannot_be_signed(bb: BuildingBlock) -> None:
    await activate(bb, "SNPP-OLD")
    who = await bb.individual(bb.adult())
    path = "/service/individual/record/consent-record/"
    old = await bb.told("POST", f"{path}draft/", individualId=who, dataAgreementId="SNPP-OLD")
    changed = data_agreement("SNPP-OLD", dpia="https://snpp.gov.py/eipd/8")
    after = await bb.told("PUT", "/config/data-agreement/SNPP-OLD/", changed, staff="admin")
    assert after["revision"]["predecessorHash"] == old["consentRecord"]["dataAgreementRevisionHash"]
    pair = {"consentRecord": old["consentRecord"], "signature": {**old["signature"], **SIGNED}}
    answer = await bb.ask("POST", path, pair)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:siis:problem:old-revision")


async def test_only_a_representative_signs_for_a_minor(bb: BuildingBlock) -> None:
    child, mother = uuid7(), await bb.individual(bb.adult())
    async with bb.runtime.database.transaction() as connection:
        new = NewPerson(child, "Luz", "Ayala", (("cedula", "7999991"),), date.today() - timedelta(days=3000), "F")
        await registry.register(connection, bb.runtime.vault, [new])
        await people.add_representation(
            connection,
            subject=child,
            representative=UUID(mother),
            kind="parent",
            proof_reference="acta-1",
            recorded_by="SNPP/officer",
            birth_date=new.birth_date,
            at=utc_now() - timedelta(days=1),
        )
    named = {"individual": {"externalId": "7999991", "externalIdType": "cedula"}}
    who = (await bb.told("POST", "/service/individual/", named))["individual"]["id"]
    path = "/service/individual/record/consent-record/"
    alone = await bb.ask("POST", path, await bb.signed(who))
    assert alone.json()["errors"][0]["pointer"] == "/representation"
    other = await bb.individual(bb.adult())
    stranger = await bb.signed(who, verificationSignedAs="delegate", verificationSignedBy=other)
    assert (await bb.ask("POST", path, stranger)).json()["type"] == "urn:siis:problem:mandate"
    hers = await bb.signed(who, verificationSignedAs="delegate", verificationSignedBy=mother)
    assert (await bb.told("POST", path, hers))["consentRecord"]["optIn"] is True


# Agreements and policies


async def test_an_agreement_is_suspended_resumed_and_drafted_anew_by_its_fields(bb: BuildingBlock) -> None:
    await activate(bb, "SNPP-LIFE")
    path = "/config/data-agreement/SNPP-LIFE/"

    async def put(**changes: Any) -> dict[str, Any]:
        told = await bb.told("PUT", path, data_agreement("SNPP-LIFE", **changes), staff="admin")
        agreement: dict[str, Any] = told["dataAgreement"]
        return agreement

    assert (await put(active=False))["lifecycle"] == {"id": "suspended", "name": "Complete"}
    assert (await put(active=True))["active"] is True
    assert (await put(purpose="Inscribir y certificar"))["lifecycle"] == {"id": "draft", "name": "Draft"}
    listed = await bb.told("GET", "/service/verification/data-agreements/")
    assert [each["purpose"] for each in listed["dataAgreements"] if each["id"] == "SNPP-LIFE"] == ["Inscribir"]


async def test_the_revisions_of_an_agreement_are_a_chain_of_sha_256(bb: BuildingBlock) -> None:
    await activate(bb, "SNPP-CHAIN")
    hashes: list[bytes] = []
    async with bb.runtime.database.connection() as connection:
        await bb.told("GET", "/config/data-agreement/SNPP-CHAIN/", staff="admin")
        for each in await revisions.read(connection, revisions.DATA_AGREEMENT, "SNPP-CHAIN"):
            assert each.predecessor_sha256 == (hashes[-1] if hashes else None)
            assert each.sha256 == hashlib.sha256(each.snapshot.encode()).digest()
            hashes.append(each.sha256)
            fields = json.loads(each.snapshot)["objectData"]
            assert {"name": "surnames", "sensitivity": "identifying"}.items() <= fields["attributes"][1].items()
    assert len(hashes) == 5, "drafted, proposed, signed by one, signed by both, active"


@pytest.mark.parametrize(
    "changes",
    [
        {"lawfulBasis": "legitimate_interest"},
        {"forgettable": True},
        {"id": "PN-IDENT-X"},
        {"siis": {"requester": "SNPP"}},
        {"siis": {**data_agreement("X")["dataAgreement"]["siis"], "purposes": ["curiosity"]}},
        {"siis": {**data_agreement("X")["dataAgreement"]["siis"], "holder": "NOBODY"}},
        {"policy": {"id": "019a0000-0000-7000-8000-000000000000"}},
    ],
)
async def test_a_data_agreement_that_cannot_be_one_is_400_and_stores_nothing(
    bb: BuildingBlock, changes: dict[str, Any]
) -> None:
    sent = data_agreement("SNPP-BAD", **changes)
    answer = await bb.ask("POST", "/config/data-agreement/", sent, staff="admin")
    assert answer.status_code == 400, answer.text
    code = sent["dataAgreement"]["id"]
    assert (await bb.ask("GET", f"/config/data-agreement/{code}/", staff="admin")).status_code == 400


async def test_a_policy_over_an_active_agreement_cannot_be_deleted(bb: BuildingBlock) -> None:
    await activate(bb, "SNPP-POL")
    policy = (await bb.told("POST", "/config/policy/", POLICY, staff="admin"))["policy"]
    path = f"/config/policy/{policy['id']}/"
    sent = data_agreement("SNPP-POL", policy={"id": policy["id"]})
    under = await bb.told("PUT", "/config/data-agreement/SNPP-POL/", sent, staff="admin")
    assert under["dataAgreement"]["policy"] == policy
    # The other party reads what governs the agreement; whoever is no party does not.
    seen = f"/service/policy/{policy['id']}/"
    assert (await bb.told("GET", seen, of="PN-IDENT"))["policy"] == policy
    assert (await bb.ask("GET", seen, of="MTESS")).status_code == 400
    assert (await bb.ask("DELETE", path, staff="admin")).json()["type"] == "urn:siis:problem:policy-in-use"
    # A later revision is not imposed on the agreement.
    changed = {"policy": {**POLICY["policy"], "version": "2"}}
    newer = await bb.told("PUT", path, changed, staff="admin")
    now = await bb.told("GET", "/config/data-agreement/SNPP-POL/", staff="admin")
    assert now["dataAgreement"]["policy"]["version"] == "1"
    first = json.loads(under["revision"]["serializedSnapshot"])["objectData"]["policy"]
    assert first == policy
    found = await bb.told("GET", path, staff="admin", revisionId=newer["revision"]["id"])
    assert found["policy"]["version"] == "2"
    await bb.told("DELETE", "/config/data-agreement/SNPP-POL/", staff="admin")
    await bb.told("DELETE", path, staff="admin")
    assert (await bb.ask("GET", path, staff="admin")).status_code == 400


# Who sees what


async def test_an_institution_that_is_no_party_finds_what_it_finds_of_nothing(bb: BuildingBlock) -> None:
    person = bb.adult()
    who = await bb.individual(person)
    stored = await bb.told("POST", "/service/individual/record/consent-record/", await bb.signed(who))
    record_id, nothing = stored["consentRecord"]["id"], str(uuid7())
    outside: dict[str, Any] = {"of": "MTESS", "staff": "officer"}
    for path, there, absent in (
        ("/service/individual/{}/", who, nothing),
        ("/service/verification/consent-record/{}/", record_id, nothing),
        ("/audit/consent-record/{}/", record_id, nothing),
        ("/audit/data-agreement/{}/", AGREEMENT, "NO-SUCH"),
        ("/config/data-agreement/{}/", AGREEMENT, "NO-SUCH"),
    ):
        found, missing = [await bb.ask("GET", path.format(each), **outside) for each in (there, absent)]
        assert (found.status_code, found.content) == (missing.status_code, missing.content) == (400, found.content)
    for path in ("/service/verification/consent-records/", "/audit/consent-records/"):
        assert (await bb.told("GET", path, **outside))["consentRecords"] == []
    assert (await bb.told("GET", "/service/individuals/", **outside))["individuals"] == []
    path = "/service/individual/record/consent-record/"
    assert (await bb.ask("GET", path, of="MTESS", individual=who)).status_code == 400
    # It may know the person, too: what they answered to others stays with them.
    named = {"individual": {"externalId": person.cedula, "externalIdType": "cedula"}}
    await bb.told("POST", "/service/individual/", named, of="MTESS")
    assert (await bb.told("GET", path, of="MTESS", individual=who))["consentRecords"] == []
    for area in ("service/verification", "audit"):
        assert (await bb.ask("GET", f"/{area}/consent-record/{record_id}/", **outside)).status_code == 400


async def test_a_sealed_case_is_as_one_that_is_not_there(bb: BuildingBlock) -> None:
    person = bb.adult()
    who = await bb.individual(person)
    await bb.told("POST", "/service/individual/record/consent-record/", await bb.signed(who))
    async with bb.runtime.database.transaction() as connection:
        await people.set_flag(connection, UUID(who), "sealed", at=utc_now())
    named = {"individual": {"externalId": person.cedula, "externalIdType": "cedula"}}
    unknown = {"individual": {"externalId": "9999999", "externalIdType": "cedula"}}
    for method, path, body, absent in (
        ("POST", "/service/individual/", named, ("/service/individual/", unknown)),
        ("GET", f"/service/individual/{who}/", None, (f"/service/individual/{uuid7()}/", None)),
    ):
        found, missing = await bb.ask(method, path, body), await bb.ask(method, *absent)
        assert (found.status_code, found.content) == (400, missing.content)
    for path in ("/service/verification/consent-records/", "/service/individuals/"):
        assert who not in (await bb.ask("GET", path, limit=200)).text


async def test_nobody_is_registered_here_and_no_national_identifier_handed_out(bb: BuildingBlock) -> None:
    who = await bb.individual(bb.adult())
    for value, kind in (("9999998", "cedula"), (bb.adult().cedula, "cedula"), ("80000005-6", "ruc")):
        body = {"individual": {"externalId": value, "externalIdType": kind}}
        assert (await bb.ask("PUT", f"/service/individual/{who}/", body)).status_code == 400
    own = {"individual": {"externalId": "legajo-9", "externalIdType": "legajo"}}
    await bb.told("PUT", f"/service/individual/{who}/", own)
    assert (await bb.told("POST", "/service/individual/", own))["individual"]["id"] == who
    # Another institution's number of the same name is another number.
    assert (await bb.ask("POST", "/service/individual/", own, of="MTESS")).status_code == 400
    shown = (await bb.told("GET", f"/service/individual/{who}/"))["individual"]
    assert shown == {"id": who, "externalIdType": "cedula"}


async def test_an_administrator_sees_no_person_and_an_operator_changes_no_agreement(bb: BuildingBlock) -> None:
    for path in ("/config/individuals/", "/service/verification/consent-records/", "/audit/consent-records/"):
        assert (await bb.ask("GET", path, staff="admin")).status_code == 403
    assert (await bb.ask("POST", "/config/policy/", POLICY)).status_code == 403
    assert (await bb.ask("GET", "/audit/consent-records/")).status_code == 403
    bare = await bb.http.get(f"{PREFIX}/config/policies/")
    assert (bare.status_code, bare.json()["type"]) == (401, "urn:siis:problem:unauthorised")


async def test_reading_for_an_audit_is_itself_in_the_log(bb: BuildingBlock) -> None:
    told = await bb.told("GET", f"/audit/data-agreement/{AGREEMENT}/", staff="auditor")
    async with bb.runtime.database.connection() as connection:
        epochs = load_epochs(bb.runtime.settings.keys_dir, create=False)
        [entry] = await recent(connection, epochs, 1, type="consentbb.audited")
    assert str(entry.entry_id) == told["receipt"]["entry_id"]
    detail = entry.detail or {}
    assert (detail["actor"]["user"], detail["what"]) == ("auditor", {"agreement": AGREEMENT})


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"limit": "0"}, "/limit"),
        ({"limit": "201"}, "/limit"),
        ({"offset": "-1"}, "/offset"),
        ({"offset": "x"}, "/offset"),
    ],
)
async def test_a_page_that_is_none_is_400(bb: BuildingBlock, query: dict[str, str], pointer: str) -> None:
    answer = await bb.ask("GET", "/service/individuals/", **query)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, pointer)


async def test_pages_join_to_the_whole_list(bb: BuildingBlock) -> None:
    for _each in range(3):
        await bb.individual(bb.adult())
    whole = (await bb.told("GET", "/service/individuals/", limit=200))["individuals"]
    parts = [
        (await bb.told("GET", "/service/individuals/", limit=1, offset=i))["individuals"] for i in range(len(whole))
    ]
    assert [one for part in parts for one in part] == whole


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/service/individual/record/"),
        ("GET", "/service/individual/record/consent-record/"),
        ("POST", "/service/individual/record/consent-record/draft/"),
        ("POST", f"/service/individual/record/data-agreement/{AGREEMENT}/"),
    ],
)
async def test_what_is_about_a_person_needs_one(bb: BuildingBlock, method: str, path: str) -> None:
    answer = await bb.ask(method, path)
    assert answer.status_code == 400
    assert answer.json()["type"] in ("urn:siis:problem:missing-individual", "urn:siis:problem:missing-parameter")


# Webhooks


async def test_a_webhook_is_called_with_ids_only_and_a_signature_and_a_disabled_one_is_not(bb: BuildingBlock) -> None:
    received: list[tuple[dict[str, str], bytes]] = []
    statuses = ["500 No", "204 OK", "204 OK"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _colon, value in (line.partition(": ") for line in head[1:] if line)}
        received.append((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(
            f"HTTP/1.1 {statuses[len(received) - 1]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sent = {"webhook": {**WEBHOOK["webhook"], "payloadUrl": f"http://127.0.0.1:{port}/avisos"}}
    hook = (await bb.told("POST", "/config/webhook/", sent, staff="admin"))["webhook"]
    assert hook["secretKey"] == ""
    async with bb.runtime.database.connection() as connection:
        sealed = await connection.scalar(select(webhook_table.c.secret))
    assert b"una-clave" not in bytes(sealed or b"")
    other = await bb.told("POST", "/config/webhook/", sent, staff="admin", of="MTESS")
    person = bb.adult()
    who = await bb.individual(person)
    stored = await bb.told("POST", "/service/individual/record/consent-record/", await bb.signed(who))
    # At whichever face a person answers, who waits to be told is told.
    ours = f"/api/v1/consents/{stored['consentRecord']['id']}/steps"
    assert (await bb.ask("POST", ours, {"step": "withdraw"})).status_code == 200

    app = job_app(bb.runtime.database.url)
    add_task(app, Calls(bb.runtime.database, bb.runtime.vault))
    async with app.open_async():
        for _round in range(100):
            await app.run_worker_async(wait=False, install_signal_handlers=False, delete_jobs="successful")
            if len(received) == 3:
                break
            await asyncio.sleep(0.1)
    said = [json.loads(body) for _headers, body in received]
    assert [each["event"] for each in said] == ["consent.given", "consent.given", "consent.withdrawn"]
    assert said[0] == said[1], "a call that was not taken is repeated as it was"
    for headers, body in received:
        assert headers[SIGNATURE_HEADER.lower()] == signature_of("una-clave-que-nadie-ve", body)
        assert set(json.loads(body)) == CALLED_WITH
    assert said[0]["consentRecordId"] == stored["consentRecord"]["id"]

    path = f"/config/webhook/{hook['id']}/"
    await bb.told("PUT", path, {"webhook": {**hook, "disabled": True}}, staff="admin")
    await bb.told("POST", "/service/individual/record/consent-record/", await bb.signed(who))
    async with app.open_async():
        await app.run_worker_async(wait=False, install_signal_handlers=False)
    assert len(received) == 3
    await bb.told("DELETE", path, staff="admin")
    assert (await bb.ask("GET", f"/config/webhook/{other['webhook']['id']}/", staff="admin")).status_code == 400
    server.close()


CALLED_WITH = {"id", "event", "timestamp", "consentRecordId", "dataAgreementId", "individualId"}


@pytest.mark.parametrize(
    "changes",
    [
        {"payloadUrl": "http://snpp.gov.py/avisos"},
        {"payloadUrl": "https://usuario:clave@snpp.gov.py/"},
        {"payloadUrl": "https://snpp.gov.py/#ahí"},
        {"payloadUrl": "file:///etc/passwd"},
        {"payloadUrl": "https://[::1"},
        {"payloadUrl": "https://snpp.gov.py:puerto/"},
        {"contentType": "text/xml"},
        {"secretKey": ""},
        {"secretKey": "corta"},
        {"disabled": "no"},
    ],
)
async def test_a_webhook_that_may_not_be_called_is_not_stored(bb: BuildingBlock, changes: dict[str, Any]) -> None:
    sent = {"webhook": {**WEBHOOK["webhook"], **changes}}
    assert (await bb.ask("POST", "/config/webhook/", sent, staff="admin")).status_code == 400
