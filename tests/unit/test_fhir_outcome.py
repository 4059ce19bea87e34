"""The OperationOutcome that answers a FHIR sender."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.standards.fhir import (
    Default,
    FhirError,
    Kept,
    PatientReference,
    Reason,
    ReferralEvent,
    Review,
    Target,
    notices,
    operation_outcome,
    refusal,
)
from gateway.standards.fhir.outcome import expression


def event(contradictory: bool) -> ReferralEvent:
    return ReferralEvent(
        event="review",
        message_id="m1",
        sent_at=datetime(2024, 5, 2, tzinfo=UTC),
        source_endpoint="http://hospital.example/out",
        interconsultation=None,
        patient=PatientReference("http://hospital.example/Patient/1", ()),
        requester=None,
        target=Target("specialised-consultation", "MSPBS", (), None),
        reason=Reason("clinical", (), ()),
        priority="routine",
        authored_on=None,
        review=Review(None, None, None, None, None, None, contradictory),
        defaults=(Default("priority", "/entry/1/resource/priority", "routine"),),
        taken=("/type",),
        kept=(
            Kept("/meta/lastUpdated", "secret-1"),
            Kept("/entry/1/resource/status", "secret-2"),
            Kept("/entry/1/resource/_birthDate/extension/0/url", "secret-3"),
            Kept("/entry/4/resource/active", True),
        ),
        structural=(Kept("/resourceType", "Bundle"),),
    )


def test_a_refusal_names_class_place_and_what_was_expected() -> None:
    outcome = operation_outcome(
        [refusal(FhirError("/entry/1/resource/priority", "se esperaba routine", "code-invalid"))]
    )
    assert outcome == {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": "error",
                "code": "code-invalid",
                "details": {"text": "se esperaba routine"},
                "expression": ["Bundle.entry[1].resource.priority"],
            }
        ],
    }


def test_the_answer_names_defaults_and_every_kept_place_without_its_value() -> None:
    outcome = operation_outcome(notices(event(contradictory=False)))
    assert [(issue["severity"], issue["expression"]) for issue in outcome["issue"]] == [
        ("information", ["Bundle.entry[1].resource.priority"]),
        ("information", ["Bundle.meta.lastUpdated"]),
        ("information", ["Bundle.entry[1].resource.status", "Bundle.entry[1].resource.birthDate.extension[0].url"]),
        ("information", ["Bundle.entry[4].resource.active"]),
    ]
    assert "routine" in outcome["issue"][0]["details"]["text"]
    assert "secret" not in str(outcome)


def test_the_answer_warns_of_a_review_that_contradicts_itself() -> None:
    issue = operation_outcome(notices(event(contradictory=True)))["issue"][0]
    assert (issue["severity"], issue["code"]) == ("warning", "conflict")
    assert "expression" not in issue


def test_an_outcome_without_issues_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one issue"):
        operation_outcome([])


@pytest.mark.parametrize(
    ("pointer", "path"),
    [
        ("", "Bundle"),
        ("/entry/0/resource/focus/1/reference", "Bundle.entry[0].resource.focus[1].reference"),
        ("/a~1b~0c", "Bundle.`a/b~c`"),
        ("/con espacio", "Bundle.`con espacio`"),
        ("/con`comilla\\", "Bundle.`con\\`comilla\\\\`"),
    ],
)
def test_a_pointer_becomes_a_fhirpath(pointer: str, path: str) -> None:
    assert expression(pointer) == path
