"""The messages that Chile's Ministry of Health publishes for its referrals (TEI 0.1.3), read as they lie.

Their keys pin the bytes, so no expectation here can come from an edited file.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.standards.fhir import (
    Coding,
    Default,
    FhirError,
    ForeignIdentifier,
    Party,
    Patient,
    PatientReference,
    ReferralEvent,
    Review,
    Target,
    content_key,
    notices,
    operation_outcome,
    read_message,
)

ACME = "http://acme.com/ehr/fhir"
TEI = "http://minsal.cl/listaespera/CodeSystem"
PLACER = ForeignIdentifier("http://terminology.hl7.org/CodeSystem/v2-0203#PLAC", "1")
INTERCONSULTATION = ForeignIdentifier("http://terminology.cens.cl/CodeSystem/listaespera#IdInterconsulta", "1")
KEYS = {
    "Bundle-EjemploBundleInicio.json": "775b76330d713d1001dac9f93940a2727b2a825c10288d9466c847f2486d556a",
    "Bundle-EjemploBundleReferencia.json": "1b7f24092c9ec464f7cf1cb3fac585c7f95faaf24de76926ba573e3f2f31d491",
    "Bundle-EjemploBundleRevisar.json": "29f9548d88fa6907da03d6c15b7466973b9ff8e910a82c9f4c697a0953b33527",
}


def document(samples: Path, name: str) -> tuple[bytes, Any]:
    raw = (samples / "referral" / "cl-minsal-tei" / name).read_bytes()
    return raw, json.loads(raw)


def read(samples: Path, name: str) -> ReferralEvent:
    return read_message(document(samples, name)[1])


def role(code: str) -> tuple[Coding, ...]:
    return (Coding(f"{TEI}/CSPractitionerTipoRolLE", code),)


def test_start(samples: Path) -> None:
    event = read(samples, "Bundle-EjemploBundleInicio.json")
    assert event.event == "start"
    assert event.message_id == "EjemploMessageHeader"
    assert event.sent_at == datetime(2023, 2, 9, 17, 15, 22, tzinfo=UTC)
    assert event.source_endpoint == "http://link-to-sending.cl"
    assert event.interconsultation is None
    assert event.patient == Patient(
        reference_fullurl=f"{ACME}/Patient/EjemploPatient",
        identifiers=(ForeignIdentifier("http://www.acme.com/identifiers/patient", "15999999", "K"),),
        given_names="Luis",
        surnames="Perez sierra",
        birth_date=date(1995, 12, 12),
        sex="M",
        phones=("569854875457",),
    )
    assert event.requester == Party(f"{ACME}/PractitionerRole/praR1", role("iniciador"), (PLACER,), None)
    assert event.target == Target("specialised-consultation", "MSPBS", (), None)
    assert event.reason.code == "clinical"
    assert event.reason.codings == (Coding(f"{TEI}/CSDerivadoParaCodigo", "1"), Coding(None, "1", "Diagnostico1"))
    assert event.reason.texts == (
        "examenes",
        "examenes realizados",
        "DiagnosticoTextoLibreSospecha",
        "FundamentoDiagnostico",
    )
    assert event.priority == "urgent"
    assert event.authored_on == datetime(2022, 1, 20, 13, 50, 20, tzinfo=UTC)
    assert event.review is None
    assert event.defaults == (Default("target.service", "/entry/1/resource/code", "specialised-consultation"),)
    kept = {leaf.pointer: leaf.value for leaf in event.kept}
    assert len(kept) == 121
    assert kept["/entry/1/resource/extension/1/valueString"] == "FundamentoPriorizacion"
    assert kept["/entry/4/resource/name/1/given/0"] == "Luisa"
    assert kept["/entry/4/resource/extension/3/extension/1/valueCodeableConcept/text"] == "Mapuche"
    assert kept["/entry/5/resource/item/0/answer/0/valueString"] == "Anamnesis"
    assert kept["/entry/10/resource/code/text"] == "tipo alergia"


def test_refer(samples: Path) -> None:
    event = read(samples, "Bundle-EjemploBundleReferencia.json")
    assert event.event == "refer"
    assert event.message_id == "EjemploMessageHeaderReferencia"
    assert event.interconsultation == INTERCONSULTATION
    assert event.patient == PatientReference(f"{ACME}/Patient/EjemploPatient", ())
    # The published message names the entries the other way round: "Agendador" is the role atendedor.
    assert event.requester == Party(f"{ACME}/PractitionerRole/referenciaAgendador", role("atendedor"), (PLACER,), None)
    assert event.target == Target(
        service="specialised-consultation",
        institution="MSPBS",
        codings=(
            Coding(f"{TEI}/CSEspecialidadMed", "3"),
            Coding(f"{TEI}/CSEspecialidadMed", "4"),
            Coding(f"{TEI}/CSDestinoReferenciaCodigo", "1"),
        ),
        performer=Party(f"{ACME}/PractitionerRole/referenciaAtendedor", role("referenciador"), (PLACER,), None),
    )
    assert (event.reason.code, event.reason.codings, event.reason.text) == ("clinical", (), "Motivo derivación")
    assert event.priority == "routine"
    assert event.authored_on == event.sent_at == datetime(2023, 2, 9, 17, 15, 22, tzinfo=UTC)
    assert event.review is None
    assert [(default.field, default.value) for default in event.defaults] == [
        ("authored_on", "2023-02-09T17:15:22+00:00"),
        ("priority", "routine"),
        ("reason.code", "clinical"),
    ]
    assert len(event.kept) == 18


def test_review(samples: Path) -> None:
    event = read(samples, "Bundle-EjemploBundleRevisar.json")
    assert event.event == "review"
    assert event.message_id == "EjemploMessageHeaderRevisar"
    assert event.interconsultation == INTERCONSULTATION
    assert event.patient == PatientReference(f"{ACME}/Patient/EjemploPatient", ())
    assert event.requester == Party(f"{ACME}/PractitionerRole/revisar", role("revisor"), (PLACER,), None)
    # "Pertinente", and yet doNotPerform with a motive for not being pertinent: as published.
    assert event.review == Review(
        pertinence=Coding(f"{TEI}/CSPertinenciaInterconsulta", "1"),
        pertinent=True,
        do_not_perform=True,
        motive=Coding(f"{TEI}/CSMotivoNoPertinenciaCodigo", "1"),
        motive_text="Texto libre",
        requires_exam=True,
        contradictory=True,
    )
    assert event.priority == "routine"
    assert event.authored_on == datetime(2022, 1, 20, 13, 50, 20, tzinfo=UTC)
    assert len(event.kept) == 24
    warning = operation_outcome(notices(event))["issue"][0]
    assert (warning["severity"], warning["code"]) == ("warning", "conflict")


@pytest.mark.parametrize("name", KEYS)
def test_the_bytes_are_the_published_ones(samples: Path, name: str) -> None:
    assert content_key(document(samples, name)[0]) == KEYS[name]


def leaf_places(value: Any, path: tuple[str | int, ...] = ()) -> dict[str, tuple[str | int, ...]]:
    """Every leaf by JSON Pointer, written apart from the reader's own walk."""
    if isinstance(value, dict) and value:
        parts: Any = value.items()
    elif isinstance(value, list) and value:
        parts = enumerate(value)
    else:
        return {"".join(f"/{step}" for step in path): path}
    return {p: place for step, member in parts for p, place in leaf_places(member, (*path, step)).items()}


def value_at(value: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        value = value[step]
    return value


@pytest.mark.parametrize("name", KEYS)
def test_every_leaf_is_taken_or_kept_or_structural_and_only_once(samples: Path, name: str) -> None:
    bundle = document(samples, name)[1]
    event = read_message(bundle)
    places = leaf_places(bundle)
    rest = (*event.kept, *event.structural)
    assert sorted([*event.taken, *(leaf.pointer for leaf in rest)]) == sorted(places)
    for leaf in rest:
        assert leaf.value == value_at(bundle, places[leaf.pointer])


@pytest.mark.parametrize("name", KEYS)
def test_structural_is_the_envelope_and_the_narrative_only(samples: Path, name: str) -> None:
    for leaf in read(samples, name).structural:
        assert leaf.pointer.endswith(
            ("/resourceType", "/id", "/fullUrl", "/text/status", "/text/div", "/meta/profile/0")
        )


@pytest.mark.parametrize("name", KEYS)
def test_what_is_said_to_be_taken_is_really_in_the_event(samples: Path, name: str) -> None:
    """Change each taken leaf in turn: the event must change with it, or the message be refused."""
    raw, bundle = document(samples, name)
    before = replace(read_message(bundle), taken=(), kept=(), structural=())
    for pointer in read_message(bundle).taken:
        other = json.loads(raw)
        place = leaf_places(other)[pointer]
        holder, last = value_at(other, place[:-1]), place[-1]
        holder[last] = not holder[last] if isinstance(holder[last], bool) else holder[last] + "x"
        try:
            after = read_message(other)
        except FhirError:
            continue
        assert replace(after, taken=(), kept=(), structural=()) != before, pointer


@pytest.mark.parametrize("name", KEYS)
def test_the_answer_names_every_kept_place_and_no_value_of_the_person(samples: Path, name: str) -> None:
    event = read(samples, name)
    outcome = operation_outcome(notices(event))
    named = [path for issue in outcome["issue"] for path in issue.get("expression", ())]
    assert len(named) == len(event.kept) + len(event.defaults)
    for private in ("Luisa", "Mapuche", "Anamnesis", "2134", "15999999"):
        assert private not in json.dumps(outcome, ensure_ascii=False)


def others(samples: Path) -> list[Path]:
    folder = samples / "referral"
    bare = [path for path in sorted((folder / "cl-minsal-tei").glob("*.json")) if path.name not in KEYS]
    return [*bare, *sorted((folder / "gravity-sdoh").glob("*.json")), *sorted((folder / "fhir-core").glob("*.json"))]


def test_resources_that_are_no_message_are_refused_with_what_was_expected(samples: Path) -> None:
    found = others(samples)
    assert len(found) >= 20
    for path in found:
        with pytest.raises(
            FhirError, match="Bundle de tipo message cuya primera entrada es un MessageHeader"
        ) as refused:
            read_message(json.loads(path.read_bytes()))
        assert refused.value.pointer == "/resourceType", path.name
