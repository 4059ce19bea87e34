"""FHIR R4 referral messages (Chile's TEI guide): a Bundle in, a referral event out; an OperationOutcome back.

Pure translation: no database, no network, no rule of the domain. Narrative is never parsed nor rendered.
"""

from gateway.standards.fhir.bundle import content_key
from gateway.standards.fhir.errors import FhirError
from gateway.standards.fhir.models import (
    Coding,
    Default,
    ForeignIdentifier,
    Kept,
    Party,
    Patient,
    PatientReference,
    Reason,
    ReferralEvent,
    Review,
    Target,
)
from gateway.standards.fhir.outcome import Issue, notices, operation_outcome, refusal
from gateway.standards.fhir.reader import read_message

__all__ = [
    "Coding",
    "Default",
    "FhirError",
    "ForeignIdentifier",
    "Issue",
    "Kept",
    "Party",
    "Patient",
    "PatientReference",
    "Reason",
    "ReferralEvent",
    "Review",
    "Target",
    "content_key",
    "notices",
    "operation_outcome",
    "read_message",
    "refusal",
]
