"""The FHIR reader on messages of our own making: references, defaults, what is kept, reviews."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from fhir_examples import BASE, TEI, Change, Json, assert_accounted, changed, message, resource, review

from gateway.standards.fhir import (
    Coding,
    FhirError,
    ForeignIdentifier,
    Patient,
    PatientReference,
    content_key,
    read_message,
)
from schemas.codes import code_list


def test_reads_a_message_with_relative_contained_and_logical_references() -> None:
    document = message()
    event = read_message(document)
    assert event.event == "start"
    assert event.message_id == "m1"
    assert event.sent_at == datetime(2024, 5, 2, 14, 30, tzinfo=UTC)
    assert event.authored_on == datetime(2024, 5, 2, 3, 30, tzinfo=UTC)
    assert event.source_endpoint == "http://hospital.example/out"
    assert event.interconsultation == ForeignIdentifier("http://hospital.example/orders", "77")
    assert event.patient == Patient(
        reference_fullurl=f"{BASE}/Patient/1",
        identifiers=(ForeignIdentifier("urn:py:cedula", "4123456"),),
        given_names="Ana Sofía",
        surnames="Benítez",
        birth_date=date(1990, 2, 28),
        sex="F",
        phones=("0981123456",),
    )
    assert event.requester is not None
    assert event.requester.reference == f"{BASE}/PractitionerRole/1"
    assert event.requester.roles == (Coding("urn:x", "iniciador"),)
    assert event.requester.organization_identifiers == (ForeignIdentifier("urn:py:establecimiento", "0101"),)
    assert event.target.service == "specialised-consultation"
    assert event.target.institution == "MSPBS"
    assert event.target.codings == (Coding(f"{TEI}/CodeSystem/CSEspecialidadMed", "23"),)
    assert event.target.performer is not None
    assert event.target.performer.reference == f"{BASE}/ServiceRequest/1#o1"
    assert event.target.performer.organization_name == "Hospital Regional"
    assert event.reason.code == "clinical"
    assert event.reason.text == "Tratamiento; Sospecha de anemia"
    assert event.priority == "asap"
    assert event.review is None
    assert event.defaults == ()
    assert_accounted(document, event)


def test_a_person_stays_out_of_the_event_in_text_form() -> None:
    shown = repr(read_message(message()))
    for private in ("4123456", "Benítez", "Ana", "1990", "0981123456", "anemia"):
        assert private not in shown


def test_what_is_missing_is_filled_in_and_named() -> None:
    def bare(document: Json) -> None:
        for name in ("priority", "authoredOn", "extension", "reasonCode"):
            del resource(document, 1)[name]

    event = read_message(changed(bare))
    assert (event.priority, event.reason.code, event.target.service) == (
        "routine",
        "clinical",
        "specialised-consultation",
    )
    assert event.authored_on == event.sent_at
    assert [(default.field, default.pointer, default.value) for default in event.defaults] == [
        ("authored_on", "/entry/1/resource/authoredOn", "2024-05-02T14:30:00+00:00"),
        ("priority", "/entry/1/resource/priority", "routine"),
        ("target.service", "/entry/1/resource/code", "specialised-consultation"),
        ("reason.code", "/entry/1/resource/reasonCode", "clinical"),
    ]


def test_without_any_time_there_is_no_time() -> None:
    def timeless(document: Json) -> None:
        del document["timestamp"], resource(document, 1)["authoredOn"]

    event = read_message(changed(timeless))
    assert (event.sent_at, event.authored_on, event.defaults) == (None, None, ())


@pytest.mark.parametrize(
    ("place", "name", "value", "attribute"),
    [
        (2, "birthDate", "1990-02", "birth_date"),
        (2, "birthDate", "1990", "birth_date"),
        (2, "gender", "other", "sex"),
        (2, "gender", "unknown", "sex"),
    ],
)
def test_what_the_model_cannot_hold_exactly_is_kept(place: int, name: str, value: str, attribute: str) -> None:
    event = read_message(changed(lambda d: resource(d, place).update({name: value})))
    assert getattr(event.patient, attribute) is None
    assert (f"/entry/{place}/resource/{name}", value) in {(leaf.pointer, leaf.value) for leaf in event.kept}


def test_a_day_without_a_time_is_kept_and_the_sending_time_taken() -> None:
    event = read_message(changed(lambda d: resource(d, 1).update(authoredOn="2024-05-01")))
    assert event.authored_on == event.sent_at
    assert "2024-05-01" in {leaf.value for leaf in event.kept if isinstance(leaf.value, str)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: None, "m1"),
        (lambda d: (resource(d, 0).pop("id"), d.update(identifier={"system": "urn:a", "value": "p9"})), "p9"),
        (lambda d: resource(d, 0).pop("id"), "b1"),
        (lambda d: (resource(d, 0).pop("id"), d.pop("id")), None),
    ],
)
def test_the_message_is_known_by_its_header_then_its_bundle(change: Change, expected: str | None) -> None:
    document = changed(change)
    event = read_message(document)
    assert event.message_id == expected
    assert_accounted(document, event)


def test_a_versioned_reference_means_that_version_only() -> None:
    def versioned(document: Json) -> None:
        resource(document, 1)["subject"]["reference"] = "Patient/1/_history/2"
        resource(document, 2)["meta"] = {"versionId": "2"}

    assert isinstance(read_message(changed(versioned)).patient, Patient)
    older = changed(versioned)
    resource(older, 2)["meta"]["versionId"] = "1"
    assert isinstance(read_message(older).patient, PatientReference)


def test_a_relative_reference_hangs_on_the_url_of_its_own_entry_only() -> None:
    document = message()
    document["entry"][1]["fullUrl"] = "urn:uuid:6d6ac4d6-53b9-4b5e-a0c8-9a3b1a7d1a11"
    resource(document, 0)["focus"] = [{"reference": "urn:uuid:6d6ac4d6-53b9-4b5e-a0c8-9a3b1a7d1a11"}]
    resource(document, 1)["subject"] = {"reference": "Patient/1"}
    patient = read_message(document).patient
    assert patient == PatientReference("Patient/1", ())


def test_a_person_may_be_named_by_identifier_alone() -> None:
    subject = {"identifier": {"system": "urn:py:cedula", "value": "4123456"}, "display": "Ana"}
    event = read_message(changed(lambda d: resource(d, 1).update(subject=subject)))
    assert event.patient == PatientReference(None, (ForeignIdentifier("urn:py:cedula", "4123456"),))
    assert ("/entry/1/resource/subject/display", "Ana") in {(leaf.pointer, leaf.value) for leaf in event.kept}


def test_an_identifier_without_system_goes_by_its_type_and_one_without_either_is_kept() -> None:
    def typed(document: Json) -> None:
        resource(document, 2)["identifier"] = [
            {"value": "1"},
            {"type": {"coding": [{"code": "x"}, {"system": "urn:t", "code": "PP"}]}, "value": "2"},
            {"system": "urn:old", "value": "3", "use": "old"},
        ]

    document = changed(typed)
    event = read_message(document)
    assert event.patient.identifiers == (ForeignIdentifier("urn:t#PP", "2"),)
    assert_accounted(document, event)


def test_a_placer_number_of_nobody_known_does_not_name_an_interconsultation() -> None:
    number = {"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]}}
    document = changed(lambda d: resource(d, 1).update(identifier=[{**number, "value": "1"}]))
    assert read_message(document).interconsultation is None
    interconsultation = {"system": "http://terminology.cens.cl/CodeSystem/listaespera", "code": "IdInterconsulta"}
    number["type"]["coding"].append(interconsultation)
    document = changed(lambda d: resource(d, 1).update(identifier=[{**number, "value": "1"}]))
    assert read_message(document).interconsultation == ForeignIdentifier(
        "http://terminology.cens.cl/CodeSystem/listaespera#IdInterconsulta", "1"
    )


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("verificationStatus", {"coding": [{"code": "refuted"}]}),
        ("verificationStatus", {"coding": [{"code": "entered-in-error"}]}),
    ],
)
def test_a_withdrawn_condition_is_no_reason(member: str, value: Any) -> None:
    document = changed(lambda d: resource(d, 1)["contained"][0].update({member: value}))
    event = read_message(document)
    assert event.reason.texts == ("Tratamiento",)
    assert_accounted(document, event)


def test_one_resource_referred_to_many_times_is_read_once() -> None:
    document = changed(lambda d: resource(d, 1).update(reasonReference=[{"reference": "#c1"}] * 5_000))
    event = read_message(document)
    assert event.reason.texts == ("Tratamiento", "Sospecha de anemia")
    assert_accounted(document, event)


def test_cyclic_references_end() -> None:
    def cycle(document: Json) -> None:
        resource(document, 3)["organization"] = {"reference": "PractitionerRole/1"}
        resource(document, 1)["requester"] = {"reference": "ServiceRequest/1"}
        resource(document, 1)["performer"] = [{"reference": "PractitionerRole/1"}]
        resource(document, 1)["reasonReference"] = [{"reference": "ServiceRequest/1"}]

    document = changed(cycle)
    event = read_message(document)
    assert event.requester is not None
    assert event.requester.reference == f"{BASE}/ServiceRequest/1"
    assert event.target.performer is not None
    assert event.target.performer.organization_identifiers == ()
    assert_accounted(document, event)


@pytest.mark.parametrize(
    ("pertinence", "negated", "pertinent", "contradictory"),
    [
        ("1", True, True, True),
        ("1", False, True, False),
        ("1", None, True, False),
        ("2", True, False, False),
        ("2", False, False, True),
        ("2", None, False, False),
        ("3", True, None, False),
        ("3", False, None, False),
        ("9", True, None, False),
        (None, True, None, False),
        (None, None, None, False),
    ],
)
def test_a_review_says_when_it_contradicts_itself(
    pertinence: str | None, negated: bool | None, pertinent: bool | None, contradictory: bool
) -> None:
    document = review(pertinence, negated)
    event = read_message(document)
    assert event.review is not None
    assert event.review.pertinent is pertinent
    assert event.review.do_not_perform is negated
    assert event.review.contradictory is contradictory
    assert_accounted(document, event)


@pytest.mark.parametrize("document", [message(), review("1", True), review("2", False)])
def test_what_is_said_to_be_taken_is_really_in_the_event(document: Json) -> None:
    """Change each taken leaf in turn: the event must change with it, or the message be refused."""
    resource(document, 1)["performer"].append({"reference": "PractitionerRole/1"})
    before = read_message(document)
    for pointer in before.taken:
        other = copy.deepcopy(document)
        *way, last = [int(step) if step.isdigit() else step for step in pointer.split("/")[1:]]
        holder: Any = other
        for step in way:
            holder = holder[step]
        holder[last] = not holder[last] if isinstance(holder[last], bool) else holder[last] + "x"
        try:
            after = read_message(other)
        except FhirError:
            continue
        bare = {"taken": (), "kept": (), "structural": ()}
        assert replace(after, **bare) != replace(before, **bare), pointer


def test_narrative_and_ids_are_structural_and_security_labels_are_not() -> None:
    def narrated(document: Json) -> None:
        resource(document, 2)["text"] = {"status": "generated", "div": "<div><script>x</script></div>"}
        resource(document, 2)["meta"] = {"profile": ["http://p.example"], "security": [{"code": "R"}]}

    event = read_message(changed(narrated))
    structural = {leaf.pointer for leaf in event.structural}
    assert {
        "/resourceType",
        "/entry/2/fullUrl",
        "/entry/2/resource/text/div",
        "/entry/2/resource/meta/profile/0",
        "/entry/1/resource/contained/0/id",
    } <= structural
    assert "/entry/2/resource/meta/security/0/code" in {leaf.pointer for leaf in event.kept}


def test_the_content_key_is_the_sha_256_of_the_bytes() -> None:
    assert content_key(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert content_key(b"{}") != content_key(b"{ }")


def test_every_code_the_map_leads_to_exists() -> None:
    tei = code_list("fhir-tei")
    services = {tei["specialty"]["service"], tei["defaults"]["values"]["service"]}
    services |= {entry["service"] for entry in tei["specialty"]["codes"].values()}
    for service in services:
        assert code_list("services")[service]["institution"] in code_list("institutions")
    reasons = {entry["reason"] for entry in tei["derived-for"]["codes"].values()} | {
        tei["defaults"]["values"]["reason"]
    }
    for reason in reasons:
        assert "referral" in code_list("reasons")[reason]["use"]
    assert len(tei["event-type"]["codes"]) == 7
