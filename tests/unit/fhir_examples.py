"""A FHIR message of our own making with one of everything, ways to change it, and an account kept apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.standards.fhir import ReferralEvent

BASE = "http://hospital.example/fhir"
TEI = "http://minsal.cl/listaespera"
SPECIALTY = f"{TEI}/StructureDefinition/EspecialidadMedicaDestinoCodigo"
PERTINENCE = f"{TEI}/StructureDefinition/PertinenciaInterconsulta"

Json = dict[str, Any]
Change = Callable[[Json], None]


def message() -> Json:
    """A small message with one of everything the reader reads; a new copy at each call."""
    return {
        "resourceType": "Bundle",
        "id": "b1",
        "type": "message",
        "timestamp": "2024-05-02T10:30:00-04:00",
        "entry": [
            {
                "fullUrl": f"{BASE}/MessageHeader/1",
                "resource": {
                    "resourceType": "MessageHeader",
                    "id": "m1",
                    "eventCoding": {"system": f"{TEI}/CodeSystem/CSTipoEventoLE", "code": "iniciar"},
                    "author": {"reference": "PractitionerRole/1"},
                    "source": {"endpoint": "http://hospital.example/out"},
                    "focus": [{"reference": "ServiceRequest/1"}],
                },
            },
            {
                "fullUrl": f"{BASE}/ServiceRequest/1",
                "resource": {
                    "resourceType": "ServiceRequest",
                    "contained": [
                        {"resourceType": "Condition", "id": "c1", "code": {"text": "Sospecha de anemia"}},
                        {"resourceType": "Organization", "id": "o1", "name": "Hospital Regional"},
                    ],
                    "extension": [
                        {
                            "url": SPECIALTY,
                            "valueCodeableConcept": {
                                "coding": [{"system": f"{TEI}/CodeSystem/CSEspecialidadMed", "code": "23"}]
                            },
                        }
                    ],
                    "identifier": [{"system": "http://hospital.example/orders", "value": "77"}],
                    "status": "active",
                    "intent": "order",
                    "priority": "asap",
                    "subject": {"reference": f"{BASE}/Patient/1"},
                    "performer": [{"reference": "#o1"}],
                    "authoredOn": "2024-05-01T23:30:00-04:00",
                    "reasonCode": [
                        {
                            "coding": [{"system": f"{TEI}/CodeSystem/CSDerivadoParaCodigo", "code": "3"}],
                            "text": "Tratamiento",
                        }
                    ],
                    "reasonReference": [{"reference": "#c1"}],
                },
            },
            {
                "fullUrl": f"{BASE}/Patient/1",
                "resource": {
                    "resourceType": "Patient",
                    "identifier": [{"system": "urn:py:cedula", "value": "4123456"}],
                    "name": [{"use": "old", "family": "Rojas"}, {"family": "Benítez", "given": ["Ana", "Sofía"]}],
                    "telecom": [
                        {"system": "email", "value": "ana@hospital.example"},
                        {"system": "phone", "value": "0981000000", "use": "old"},
                        {"system": "phone", "value": "0981123456"},
                    ],
                    "gender": "female",
                    "birthDate": "1990-02-28",
                },
            },
            {
                "fullUrl": f"{BASE}/PractitionerRole/1",
                "resource": {
                    "resourceType": "PractitionerRole",
                    "organization": {"identifier": {"system": "urn:py:establecimiento", "value": "0101"}},
                    "code": [{"coding": [{"system": "urn:x", "code": "iniciador"}]}],
                },
            },
        ],
    }


def resource(document: Json, place: int) -> Json:
    found: Json = document["entry"][place]["resource"]
    return found


def changed(change: Change) -> Json:
    document = message()
    change(document)
    return document


def leaf_pointers(value: Any, pointer: str = "") -> dict[str, Any]:
    """Every leaf by JSON Pointer, written apart from the reader's own walk."""
    if isinstance(value, dict) and value:
        parts = [(name.replace("~", "~0").replace("/", "~1"), member) for name, member in value.items()]
    elif isinstance(value, list) and value:
        parts = [(str(place), member) for place, member in enumerate(value)]
    else:
        return {pointer: value}
    return {p: leaf for step, member in parts for p, leaf in leaf_pointers(member, f"{pointer}/{step}").items()}


def assert_accounted(document: Json, event: ReferralEvent) -> None:
    leaves = leaf_pointers(document)
    named = [*event.taken, *(leaf.pointer for leaf in event.kept), *(leaf.pointer for leaf in event.structural)]
    assert sorted(named) == sorted(leaves)
    for leaf in (*event.kept, *event.structural):
        assert leaf.value is leaves[leaf.pointer]


def review(pertinence: str | None, negated: bool | None) -> Json:
    document = message()
    resource(document, 0)["eventCoding"]["code"] = "revisar"
    request = resource(document, 1)
    if pertinence is not None:
        coding = {"system": f"{TEI}/CodeSystem/CSPertinenciaInterconsulta", "code": pertinence}
        request["extension"].append({"url": PERTINENCE, "valueCodeableConcept": {"coding": [coding, dict(coding)]}})
    if negated is not None:
        request["doNotPerform"] = negated
    return document
