"""The codes of BALP: what kind of event each type of entry is, and the codings that its profiles fix.

From IHE ITI Basic Audit Log Patterns 1.1.4 (https://profiles.ihe.net/ITI/BALP) and DICOM PS3.16 CID 400 and 401.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from audit.models import Outcome

PROFILES = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/"
READ, PATIENT_READ = f"{PROFILES}IHE.BasicAudit.Read", f"{PROFILES}IHE.BasicAudit.PatientRead"
CREATE, PATIENT_CREATE = f"{PROFILES}IHE.BasicAudit.Create", f"{PROFILES}IHE.BasicAudit.PatientCreate"
AUTHZ_CONSENT = f"{PROFILES}IHE.BasicAudit.AuthZconsent"
ASSURANCE = f"{PROFILES}ihe-assuranceLevel"

Shape = Literal["read", "create", "decision", "other"]
Coding = dict[str, str]

_BALP = "https://profiles.ihe.net/ITI/BALP/CodeSystem/"
_HL7 = "http://terminology.hl7.org/CodeSystem/"
_DCM = "http://dicom.nema.org/resources/ontology/DCM"


def _coding(system: str, code: str, display: str | None = None) -> Coding:
    return {"system": system, "code": code} | ({} if display is None else {"display": display})


def dicom(code: str, display: str) -> Coding:
    """Return a coding of the DICOM controlled terminology."""
    return _coding(_DCM, code, display)


REST = _coding(f"{_HL7}audit-event-type", "rest", "Restful Operation")
ALERT = dicom("110113", "Security Alert")
DECIDED_BY_CONSENT = _coding(f"{_BALP}AuthZsubType", "AuthZ-Consent")
DECIDED_BY_ROLE = _coding(f"{_BALP}AuthZsubType", "AuthZ-Role")
INTERACTION = "http://hl7.org/fhir/restful-interaction"
READING, CREATING = _coding(INTERACTION, "read", "read"), _coding(INTERACTION, "create", "create")
TYPES = "urn:siis:entry-type"

SOURCE_ROLE, DESTINATION_ROLE = dicom("110153", "Source Role ID"), dicom("110152", "Destination Role ID")
APPLICATION = dicom("110150", "Application")
RECIPIENT = _coding(f"{_HL7}v3-ParticipationType", "IRCP", "information recipient")
AUTHOR = _coding(f"{_HL7}v3-ParticipationType", "AUT", "Author")
ORGANISATION = _coding(f"{_HL7}v3-RoleClass", "PROV", "healthcare provider")
AUTHORISER = _coding(f"{_HL7}extra-security-role-type", "authserver", "authorization server")

PERSON, OBJECT = (
    _coding(f"{_HL7}audit-entity-type", "1", "Person"),
    _coding(f"{_HL7}audit-entity-type", "2", "System Object"),
)
PATIENT = _coding(f"{_HL7}object-role", "1", "Patient")
DOMAIN_RESOURCE = _coding(f"{_HL7}object-role", "4", "Domain Resource")
REQUEST_ID = _coding(f"{_BALP}BasicAuditEntityType", "XrequestId")
CONSENT = _coding("http://hl7.org/fhir/resource-types", "Consent", "Consent")
REFERRAL = _coding("http://hl7.org/fhir/resource-types", "ServiceRequest", "ServiceRequest")
APPLICATION_SERVER = _coding(f"{_HL7}security-source-type", "4", "Application Server")

DPV = "https://w3id.org/dpv#"

#: AuditEvent.outcome (audit-event-outcome of HL7): 0 is success, 4 a minor and 8 a serious failure.
OUTCOMES: dict[Outcome, str] = {"permit": "0", "permit_redacted": "0", "done": "0", "failed": "4", "deny": "8"}


class Kind(NamedTuple):
    """What kind of event an entry is: the shape of its patterns, AuditEvent.type and AuditEvent.action."""

    shape: Shape
    type: Coding
    action: Literal["C", "R", "U", "D", "E"]


_READ, _CREATE = Kind("read", REST, "R"), Kind("create", REST, "C")
_DECISION = Kind("decision", ALERT, "E")
_USED = Kind("other", dicom("110101", "Audit Log Used"), "R")
_EXPORT = Kind("other", dicom("110106", "Export"), "R")
_IMPORT = Kind("other", dicom("110107", "Import"), "C")
_OVERRIDE = Kind("other", dicom("110127", "Emergency Override Started"), "E")
_ROLES = Kind("other", dicom("110136", "Security Roles Changed"), "U")
_SETUP = Kind("other", dicom("110129", "Security Configuration"), "U")
_NOTICED = Kind("other", ALERT, "E")
_ANY = Kind("other", dicom("110100", "Application Activity"), "E")

# A type of entry, or what comes before its dot.
_KINDS = {
    "disclosure.intent": _DECISION,
    "disclosure.released": _READ,
    "disclosure.unanswered": _READ,
    "status.released": _READ,
    "referral.created": _CREATE,
    "referral.sending": _DECISION,
    "referral.read": _READ,
    "referral.listed": _READ,
    "referral.claimed": _READ,
    "counterreferral.received": _CREATE,
    "consent.given": _CREATE,
    "consent.refused": _CREATE,
    "consent.requested": _CREATE,
    "consent.read": _READ,
    "consent.receipt": _READ,
    "register.taken": _IMPORT,
    "register.intent": _IMPORT,
    "breach.exported": _EXPORT,
    "log": _USED,
    "log.exported": _EXPORT,
    "log.bundled": _EXPORT,
    "breakglass": _OVERRIDE,
    "role": _ROLES,
    "compartment": _ROLES,
    "client": _SETUP,
    "admin": _SETUP,
    "agreement": _SETUP,
    "request": _NOTICED,
    "governance": _NOTICED,
}


def kind_of(type: str, outcome: str) -> Kind:
    """Return the kind of event that an entry of this type is; a refusal is a decision whatever was asked."""
    if outcome == "deny" and type.partition(".")[0] not in ("request", "governance"):
        return _DECISION
    return _KINDS.get(type) or _KINDS.get(type.partition(".")[0], _ANY)
