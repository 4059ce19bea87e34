"""What is asked for: the ServiceRequest in focus, with its target, reason, priority and, in a review, the verdict."""

from __future__ import annotations

from typing import Final, get_args

from gateway.standards.fhir import codes
from gateway.standards.fhir.bundle import Message
from gateway.standards.fhir.datatypes import (
    codings,
    codings_of_all,
    extension_concept,
    extension_flag,
    first_coding,
    identifier,
    kinds,
)
from gateway.standards.fhir.models import Coding, Default, ForeignIdentifier, Priority, Reason, Review, Target
from gateway.standards.fhir.people import read_party
from gateway.standards.fhir.tree import Element, pointer
from schemas.text import _

_LIVE: Final = frozenset({"draft", "active"})
_INTENTS: Final = frozenset({"proposal", "plan", "directive", "order", "option"}) | {
    f"{kind}-order" for kind in ("original", "reflex", "filler", "instance")
}
_PRIORITIES: Final[dict[str, Priority]] = {known: known for known in get_args(Priority)}
_VOID_CONDITION: Final = frozenset({"refuted", "entered-in-error"})
_VOID_OBSERVATION: Final = frozenset({"cancelled", "entered-in-error"})
_DIAGNOSIS: Final = Coding("http://terminology.hl7.org/CodeSystem/condition-category", "encounter-diagnosis")


def check_live(request: Element, review: bool) -> None:
    """Refuse a request that its own modifiers say must not be acted upon (R4 ``status``, ``doNotPerform``).

    Both stay among what is kept; only a review may say ``doNotPerform``, which is then its verdict.
    """
    status = request.look("status")
    if status is None:
        raise request.error(_("falta este dato obligatorio"), "required", "status")
    if status not in _LIVE:
        raise request.error(_("solo se toman solicitudes en estado draft o active"), "business-rule", "status")
    intent = request.look("intent")
    if intent is None:
        raise request.error(_("falta este dato obligatorio"), "required", "intent")
    if intent not in _INTENTS:
        raise request.error(_("no es un código de intent de FHIR R4"), "code-invalid", "intent")
    negated = request.data.get("doNotPerform")
    if negated is not None and not isinstance(negated, bool):
        raise request.error(_("se esperaba true o false"), "structure", "doNotPerform")
    if negated and not review:
        raise request.error(_("doNotPerform solo se toma en el evento revisar"), "business-rule", "doNotPerform")


def read_interconsultation(request: Element) -> ForeignIdentifier | None:
    """Read the interconsultation's number: the identifier of TEI's own type, else the first with a system.

    An identifier that only says "placer" or "filler" would join strangers' referrals: it stays among what is kept.
    """
    parts = request.children("identifier")
    for part in parts:
        for kind in kinds(part):
            if codes.properties("identifier-type", Coding(kind.look("system"), kind.look("code"))):
                return identifier(part, kind)
    for part in parts:
        if part.look("system") is not None and (read := identifier(part)) is not None:
            return read
    return None


def read_target(message: Message, request: Element, defaults: list[Default]) -> Target:
    """Read where the referral goes: specialty, sub-specialty, what is requested, kind of place, first performer."""
    specialty = codings(extension_concept(request, "specialty"))
    received = (
        *specialty,
        *codings(extension_concept(request, "sub-specialty")),
        *codings(request.child("code")),
        *codings_of_all(request.children("locationCode")),
    )
    service = codes.service_for(received)
    if service is None:
        service = codes.default("service")
        defaults.append(Default("target.service", pointer((*request.path, "code")), service))
    performers = request.children("performer")
    performer = read_party(message, performers[0]) if performers else None
    return Target(service, codes.institution_of(service), received, performer)


def read_priority(request: Element, defaults: list[Default]) -> Priority:
    """Read the priority; R4: a missing one is normal priority."""
    given = request.text("priority")
    if given is None:
        defaults.append(Default("priority", pointer((*request.path, "priority")), "routine"))
        return "routine"
    if given not in _PRIORITIES:
        raise request.error(_("se esperaba routine, urgent, asap o stat"), "code-invalid", "priority")
    return _PRIORITIES[given]


def read_reason(message: Message, request: Element, defaults: list[Default]) -> Reason:
    """Read why: ``reasonCode``, what ``reasonReference`` points to, the diagnosis among ``supportingInfo``, and the
    text of ``locationCode``, where TEI puts the motive of the derivation.

    Of the supporting information only the diagnosis is a reason; the rest of the clinical record stays kept.
    """
    concepts = request.children("reasonCode")
    received = list(codings_of_all(concepts))
    texts = [text for concept in concepts if (text := concept.text("text")) is not None]
    seen: set[tuple[str | int, ...]] = set()
    for name in ("reasonReference", "supportingInfo"):
        for reference in request.children(name):
            found = message.resolve(reference)
            if found is None or found.resource.path in seen:
                continue
            if name == "supportingInfo" and not _is_diagnosis(found.resource):
                continue
            if _read_ground(found.resource, received, texts):
                reference.take("reference")
                seen.add(found.resource.path)
    texts.extend(text for place in request.children("locationCode") if (text := place.text("text")) is not None)
    reason = codes.reason_for(received)
    if reason is None:
        reason = codes.default("reason")
        defaults.append(Default("reason.code", pointer((*request.path, "reasonCode")), reason))
    return Reason(reason, tuple(received), tuple(texts))


def _is_diagnosis(resource: Element) -> bool:
    if resource.look("resourceType") != "Condition":
        return False
    return any(
        (part.look("system"), part.look("code")) == (_DIAGNOSIS.system, _DIAGNOSIS.code)
        for category in resource.children("category")
        for part in category.children("coding")
    )


def _read_ground(resource: Element, received: list[Coding], texts: list[str]) -> bool:
    """Add what a Condition or Observation gives as a ground; False for other resources and for withdrawn ones."""
    kind = resource.look("resourceType")
    if kind == "Condition":
        verification = resource.child("verificationStatus")
        stated = verification.children("coding") if verification is not None else []
        if any(part.look("code") in _VOID_CONDITION for part in stated):
            return False
    elif kind != "Observation" or resource.look("status") in _VOID_OBSERVATION:
        return False
    concept = resource.child("code")
    received.extend(codings(concept))
    parts = [None if concept is None else concept.text("text")]
    if kind == "Observation":
        parts.append(resource.text("valueString"))
    else:
        parts.extend(note.text("text") for note in resource.children("note"))
    texts.extend(part for part in parts if part is not None)
    return True


def read_review(request: Element) -> Review:
    """Read the reviewer's verdict. The meaning of the pertinence code comes from the map; the raw code stays."""
    pertinence = first_coding(extension_concept(request, "pertinence"))
    pertinent: bool | None = codes.properties("pertinence", pertinence).get("pertinent")
    negated = request.flag("doNotPerform")
    shadow = request.child("_doNotPerform")
    concept = None if shadow is None else extension_concept(shadow, "no-pertinence-motive")
    return Review(
        pertinence=pertinence,
        pertinent=pertinent,
        do_not_perform=negated,
        motive=first_coding(concept),
        motive_text=None if concept is None else concept.text("text"),
        requires_exam=extension_flag(request, "requires-exam"),
        contradictory=pertinent is not None and negated is not None and pertinent == negated,
    )
