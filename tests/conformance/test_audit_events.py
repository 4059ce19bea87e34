"""Entries in the shapes of others: what IHE BALP 1.1.4 and OCSF 1.9.0 publish as required holds of every event.

The facts below are those of the published StructureDefinitions (https://profiles.ihe.net/ITI/BALP) and of the schema
files of OCSF (events/base_event.json, events/application/api_activity.json and the objects they name).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from audit.models import OUTCOMES, LoggedEntry
from gateway.auditing.forms import Source
from gateway.standards.balp import codes
from gateway.standards.balp.events import event as fhir_event
from gateway.standards.ocsf.events import event as ocsf_event

SOURCE = Source("https://siis.example", "siis.example/audit", "0.1.0")
DCM = "http://dicom.nema.org/resources/ontology/DCM"
PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
ENTITY, ROLE = (
    "http://terminology.hl7.org/CodeSystem/audit-entity-type",
    "http://terminology.hl7.org/CodeSystem/object-role",
)
BALP = "https://profiles.ihe.net/ITI/BALP/CodeSystem/"
PERSON = UUID(int=7)

ACTOR = {"client": "demo-mds", "institution": "MDS", "user": "op-1", "roles": ["operator"], "assurance": 2}
WHY = {"purpose": "service-provision", "basis": "consent", "consent": str(uuid4()), "agreement": ["A-1", 2]}
WHAT = {
    "holder": "PN-IDENT",
    "dataset": "identity",
    "asked": ["given_names", "surnames"],
    "released": ["given_names"],
    "withheld": {"surnames": "objection"},
    "labels": ["identifying"],
}


TYPES = (
    "disclosure.intent",
    "disclosure.released",
    "disclosure.denied",
    "disclosure.unanswered",
    "status.released",
    "referral.created",
    "referral.sending",
    "referral.transmitted",
    "counterreferral.received",
    "consent.given",
    "consent.withdrawn",
    "breakglass.opened",
    "role.granted",
    "client.added",
    "governance.denied",
    "request.refused",
    "log.opened",
    "log.searched",
    "log.exported",
    "register.taken",
)
DETAILS: tuple[dict[str, Any], ...] = (
    {
        "actor": ACTOR,
        "why": WHY,
        "what": WHAT,
        "decision": {"reasons": ["role"]},
        "exchange": {"referral": str(PERSON)},
    },
    {"actor": {**ACTOR, "user": None, "address": "192.0.2.7"}, "what": {"dataset": "identity", "withheld": {}}},
    {"actor": {"channel": "command-line", "user": "uid:0"}},
    {},
)


def an_entry(
    type: str, outcome: str = "permit", *, person: bool = True, erased: bool = False, **groups: Any
) -> LoggedEntry:
    envelope = {
        "at": "2026-10-13T14:00:00.123456Z",
        "type": type,
        "outcome": outcome,
        "recorder": "siis-gateway",
        "policy_version": "1",
        "correlation": groups.pop("correlation", "0" * 31 + "a"),
        "subject": str(PERSON) if person else None,
    }
    return LoggedEntry(uuid4(), 2026, 12, envelope, None if erased else groups)


def entries() -> Iterator[LoggedEntry]:
    """Every kind of entry, with much and with little in it."""
    for type, outcome, detail, person in itertools.product(TYPES, sorted(OUTCOMES), DETAILS, (True, False)):
        yield an_entry(type, outcome, person=person, **detail)
    yield an_entry("disclosure.released", erased=True, correlation=None)


ALL = list(entries())


def coding_of(element: dict[str, Any], name: str = "type") -> tuple[str, str]:
    value = element[name]
    first = value["coding"][0] if "coding" in value else value
    return first["system"], first["code"]


def one(elements: list[dict[str, Any]], system: str, code: str) -> dict[str, Any]:
    [found] = [element for element in elements if coding_of(element) == (system, code)]
    return found


def check_agent(event: dict[str, Any], system: str, code: str, *, network: bool, requestor: bool | None = None) -> None:
    agent = one(event["agent"], system, code)
    assert agent["who"]["identifier"]["value"]
    assert ("network" in agent) is network
    assert requestor in (None, agent["requestor"])
    assert not {"media", "altId", "location"} & agent.keys()


def check_rest(event: dict[str, Any], action: str, interaction: str, client: str, server: str, users: set[str]) -> None:
    assert coding_of(event) == ("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest")
    subtypes = [coding_of({"type": each}) for each in event["subtype"]]
    assert subtypes.count(("http://hl7.org/fhir/restful-interaction", interaction)) == 1
    assert (event["action"], event["outcome"]) == (action, "0")
    check_agent(event, DCM, client, network=True)
    check_agent(event, DCM, server, network=True)
    named = [agent for agent in event["agent"] if coding_of(agent)[0] == PARTICIPATION]
    assert len(named) <= 1
    for agent in named:
        assert coding_of(agent)[1] in users
        assert agent["requestor"] is True
        assert "network" not in agent
    data = one(event["entity"], ENTITY, "2")
    assert data["what"]["identifier"]["value"]
    assert coding_of(data, "role") == (ROLE, "4")
    traces = [each for each in event["entity"] if coding_of(each) == (f"{BALP}BasicAuditEntityType", "XrequestId")]
    assert all(each["what"]["identifier"]["value"] for each in traces)
    assert len(traces) <= 1


def check_patient(event: dict[str, Any]) -> None:
    patient = one(event["entity"], ENTITY, "1")
    assert coding_of(patient, "role") == (ROLE, "1")
    assert patient["what"]["type"] == "Patient"
    assert patient["what"]["identifier"]["value"] == str(PERSON)


def check_read(event: dict[str, Any]) -> None:
    check_rest(event, "R", "read", "110152", "110153", {"IRCP"})


def check_create(event: dict[str, Any]) -> None:
    check_rest(event, "C", "create", "110153", "110152", {"AUT", "INF", "CST"})


def check_authorisation(event: dict[str, Any]) -> None:
    assert coding_of(event) == (DCM, "110113")
    assert {coding_of({"type": each}) for each in event["subtype"]} <= {
        (f"{BALP}AuthZsubType", "AuthZ-Consent"),
        (f"{BALP}AuthZsubType", "AuthZ-Role"),
    }
    assert event["action"] == "E"
    assert len(event["agent"]) >= 4
    check_agent(event, DCM, "110150", network=True)
    check_agent(event, PARTICIPATION, "IRCP", network=False, requestor=True)
    check_agent(event, "http://terminology.hl7.org/CodeSystem/v3-RoleClass", "PROV", network=False, requestor=False)
    authoriser = "http://terminology.hl7.org/CodeSystem/extra-security-role-type"
    check_agent(event, authoriser, "authserver", network=False, requestor=False)
    # val-audit-source: who decides is who records.
    assert one(event["agent"], authoriser, "authserver")["who"] == event["source"]["observer"]
    check_patient(event)
    kinds = [coding_of(each) for each in event["entity"]]
    consents = kinds.count(("http://hl7.org/fhir/resource-types", "Consent"))
    assert consents >= 1
    # Its slicing is closed.
    assert len(kinds) == consents + 1


CHECKS: dict[str, list[Callable[[dict[str, Any]], None]]] = {
    codes.READ: [check_read],
    codes.PATIENT_READ: [check_read, check_patient],
    codes.CREATE: [check_create],
    codes.PATIENT_CREATE: [check_create, check_patient],
    codes.AUTHZ_CONSENT: [check_authorisation],
}


def test_every_event_has_what_fhir_r4_requires() -> None:
    for entry in ALL:
        event = json.loads(json.dumps(fhir_event(entry, SOURCE)))
        assert (event["resourceType"], event["id"]) == ("AuditEvent", str(entry.entry_id))
        assert datetime.fromisoformat(event["recorded"]).tzinfo is not None
        assert set(event["type"]) >= {"system", "code"}
        assert event["action"] in set("CRUDE")
        assert event["outcome"] in {"0", "4", "8", "12"}
        assert event["source"]["observer"]["identifier"]["value"]
        assert event["agent"]
        for agent in event["agent"]:
            assert type(agent["requestor"]) is bool
            assert agent.get("network", {"type": "1"})["type"] in set("12345")
        for entity in event.get("entity", []):
            assert "what" in entity
            assert all({"type", "valueString"} == set(detail) for detail in entity.get("detail", []))
        assert "slice" not in json.dumps(event)


@pytest.mark.parametrize("profile", CHECKS)
def test_an_event_that_claims_a_profile_is_what_the_profile_says(profile: str) -> None:
    claimed = [event for entry in ALL if profile in (event := fhir_event(entry, SOURCE))["meta"].get("profile", [])]
    assert claimed
    for event in claimed:
        for check in CHECKS[profile]:
            check(event)


@pytest.mark.parametrize(("outcome", "expected"), [("permit", "0"), ("done", "0"), ("failed", "4"), ("deny", "8")])
def test_outcomes_are_told_as_fhir_tells_them(outcome: str, expected: str) -> None:
    event = fhir_event(an_entry("disclosure.released", outcome, decision={"reasons": ["agreement", "role"]}), SOURCE)
    assert (event["outcome"], event["outcomeDesc"]) == (expected, "agreement role")
    assert codes.PATIENT_READ not in event["meta"].get("profile", []) or expected == "0"


def test_purpose_labels_and_fields_are_told_and_nothing_of_an_answer() -> None:
    event = fhir_event(an_entry("disclosure.released", actor=ACTOR, why=WHY, what=WHAT), SOURCE)
    user = one(event["agent"], PARTICIPATION, "IRCP")
    assert {"system": codes.DPV, "code": "RequestedServiceProvision"} in user["purposeOfUse"][0]["coding"]
    data = one(event["entity"], ENTITY, "2")
    assert data["securityLabel"] == [{"system": "urn:siis:label", "code": "identifying"}]
    assert {detail["type"]: detail["valueString"] for detail in data["detail"]} == {
        "asked": "given_names surnames",
        "released": "given_names",
        "withheld": "surnames",
    }


def test_every_event_has_what_ocsf_requires() -> None:
    for entry in ALL:
        event = json.loads(json.dumps(ocsf_event(entry, SOURCE)))
        required = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
        assert event.keys() >= required | {"actor", "api", "src_endpoint"}
        assert (event["category_uid"], event["class_uid"]) == (6, 6003)
        assert event["activity_id"] in {0, 1, 2, 3, 4, 99}
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert event["severity_id"] in {0, 1, 2, 3, 4, 5, 6, 99}
        assert event["status_id"] in {0, 1, 2, 99}
        assert event["time"] == 1_791_900_000_123
        assert event["metadata"]["version"] == "1.9.0"
        assert {"name", "uid"} & event["metadata"]["product"].keys()
        assert {"process", "user", "invoked_by", "session", "app_name", "app_uid"} & event["actor"].keys()
        assert {"account", "name", "uid"} & event["actor"].get("user", {"uid": ""}).keys()
        assert event["api"]["operation"]
        assert event["api"]["request"]["uid"]
        for end in ("src_endpoint", "dst_endpoint"):
            assert {"ip", "uid", "name", "hostname", "svc_name"} & event[end].keys()
        for resource in event.get("resources", []):
            assert {"name", "uid"} & resource.keys()
