"""Who the message is about and who acts in it: Patient, PractitionerRole, Organization."""

from __future__ import annotations

from typing import Final, Literal

from gateway.standards.fhir.bundle import Message, type_named
from gateway.standards.fhir.datatypes import codings_of_all, day, extension_text, identifiers
from gateway.standards.fhir.models import ForeignIdentifier, Party, Patient, PatientReference
from gateway.standards.fhir.tree import Element
from schemas.text import _

# R4 name-use, best first; "old" is never used (it is a modifier: the name is no longer theirs).
_NAME_USES: Final = ("official", None, "usual", "temp", "nickname", "anonymous", "maiden")
_SEX: Final[dict[str, Literal["M", "F"]]] = {"male": "M", "female": "F"}
_GENDERS: Final = frozenset({"male", "female", "other", "unknown"})


def read_patient(message: Message, subject: Element) -> Patient | PatientReference:
    """Read the subject of the request: the Patient of the message, else the reference to one.

    Raises :class:`FhirError` when the subject names nobody, points into the message at nothing, or is no Patient.
    """
    found = message.resolve(subject)
    if found is None:
        return _reference_only(message, subject)
    person = found.resource
    if person.look("resourceType") != "Patient":
        raise subject.error(_("se esperaba una referencia a un Patient"), "value", "reference")
    subject.take("reference")
    name = _best_name(person)
    family = None if name is None else name.text("family")
    second = None if name is None else extension_text(name.child("_family"), "second-surname")
    return Patient(
        reference_fullurl=found.url,
        identifiers=identifiers(person.children("identifier")),
        given_names="" if name is None else " ".join(name.texts("given")),
        surnames=" ".join(part for part in (family, second) if part),
        birth_date=day(person, "birthDate"),
        sex=_sex(person),
        phones=_phones(person),
    )


def _reference_only(message: Message, subject: Element) -> PatientReference:
    literal = subject.look("reference")
    known = _logical(subject)
    if literal is None and not known:
        raise subject.error(_("la persona derivada debe nombrarse por referencia o identificador"), "required")
    if literal is not None:
        if literal.startswith("#"):
            raise subject.error(_("la referencia no está en el mensaje"), "not-found", "reference")
        if type_named(literal) not in (None, "Patient"):
            raise subject.error(_("se esperaba una referencia a un Patient"), "value", "reference")
        subject.take("reference")
    return PatientReference(message.absolute(subject), known)


def read_party(message: Message, reference: Element) -> Party:
    """Read who acts: a PractitionerRole with its Organization, or an Organization itself.

    Somebody else, or somebody who is not in the message, is named by the reference alone.
    """
    found = message.resolve(reference)
    if reference.look("reference") is not None:
        reference.take("reference")
    if found is None:
        return Party(message.absolute(reference), (), _logical(reference), None)
    kind = found.resource.look("resourceType")
    if kind == "Organization":
        return Party(found.url, (), *_house(found.resource))
    if kind != "PractitionerRole":
        return Party(found.url, (), (), None)
    roles = codings_of_all(found.resource.children("code"))
    employer = found.resource.child("organization")
    if employer is None:
        return Party(found.url, roles, (), None)
    house = message.resolve(employer)
    if house is None or house.resource.look("resourceType") != "Organization":
        return Party(found.url, roles, _logical(employer), None)
    employer.take("reference")
    return Party(found.url, roles, *_house(house.resource))


def _logical(reference: Element) -> tuple[ForeignIdentifier, ...]:
    named = reference.child("identifier")
    return identifiers([] if named is None else [named])


def _house(organization: Element) -> tuple[tuple[ForeignIdentifier, ...], str | None]:
    return identifiers(organization.children("identifier")), organization.text("name")


def _best_name(person: Element) -> Element | None:
    ranked = [
        (_NAME_USES.index(use) if use in _NAME_USES else len(_NAME_USES), place, name)
        for place, name in enumerate(person.children("name"))
        if (use := name.look("use")) != "old"
    ]
    return min(ranked)[2] if ranked else None


def _sex(person: Element) -> Literal["M", "F"] | None:
    gender = person.look("gender")
    if gender is not None and gender not in _GENDERS:
        raise person.error(_("se esperaba male, female, other o unknown"), "code-invalid", "gender")
    sex = _SEX.get(gender or "")
    if sex is not None:
        person.take("gender")
    return sex


def _phones(person: Element) -> tuple[str, ...]:
    phones = []
    for contact in person.children("telecom"):
        number = contact.look("value")
        if number is None or contact.look("system") != "phone" or contact.look("use") == "old":
            continue
        contact.take("system")
        contact.take("value")
        phones.append(number)
    return tuple(phones)
