"""The data types of R4 that the reader needs: codings, identifiers, dates and moments."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

from gateway.standards.fhir.codes import extension_url
from gateway.standards.fhir.models import Coding, ForeignIdentifier
from gateway.standards.fhir.tree import Element
from schemas.text import _

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_MONTH = re.compile(r"[0-9]{4}(-(0[1-9]|1[0-2]))?\Z")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})\Z")


def coding(part: Element) -> Coding | None:
    """Read a Coding; ``None`` when it names neither system nor code nor display."""
    read = Coding(part.text("system"), part.text("code"), part.text("display"))
    return None if read == Coding(None, None) else read


def codings(concept: Element | None) -> tuple[Coding, ...]:
    """Read the codings of a CodeableConcept."""
    parts = [] if concept is None else concept.children("coding")
    return tuple(read for part in parts if (read := coding(part)) is not None)


def first_coding(concept: Element | None) -> Coding | None:
    """Read the first coding of a CodeableConcept and leave the others."""
    parts = [] if concept is None else concept.children("coding")
    return coding(parts[0]) if parts else None


def codings_of_all(concepts: list[Element]) -> tuple[Coding, ...]:
    """Read the codings of several CodeableConcepts, in their order."""
    return tuple(read for concept in concepts for read in codings(concept))


def extension_concept(part: Element, name: str) -> Element | None:
    """Open the CodeableConcept of one of our known extensions; its value must be there and of that type."""
    extension = part.extension(extension_url(name))
    if extension is None:
        return None
    concept = extension.child("valueCodeableConcept")
    if concept is None:
        raise extension.error(_("falta este dato obligatorio"), "required", "valueCodeableConcept")
    return concept


def extension_text(part: Element | None, name: str) -> str | None:
    """Read the text of one of our known extensions; its value must be there and of that type."""
    extension = None if part is None else part.extension(extension_url(name))
    return None if extension is None else extension.need("valueString")


def extension_flag(part: Element, name: str) -> bool | None:
    """Read the boolean of one of our known extensions; its value must be there and of that type."""
    extension = part.extension(extension_url(name))
    if extension is None:
        return None
    flag = extension.flag("valueBoolean")
    if flag is None:
        raise extension.error(_("falta este dato obligatorio"), "required", "valueBoolean")
    return flag


def kinds(part: Element) -> list[Element]:
    """Open the codings of an Identifier's type."""
    kind = part.child("type")
    return [] if kind is None else kind.children("coding")


def identifier(part: Element, kind: Element | None = None) -> ForeignIdentifier | None:
    """Read an Identifier; ``None``, taking nothing, when it is old, has no value, or nothing says whose it is.

    The system is kept as it is. Without one, ``system#code`` of ``kind``, or of the first complete coding of its type.
    """
    value, system = part.look("value"), part.look("system")
    if value is None or part.look("use") == "old":
        return None
    if system is not None:
        part.take("system")
    else:
        for named in [kind] if kind is not None else kinds(part):
            space, code = named.look("system"), named.look("code")
            if space is not None and code is not None:
                named.take("system")
                named.take("code")
                system = f"{space}#{code}"
                break
    if system is None:
        return None
    part.take("value")
    return ForeignIdentifier(system, value, extension_text(part, "check-digit"))


def identifiers(parts: list[Element]) -> tuple[ForeignIdentifier, ...]:
    """Read the usable ones of several Identifiers."""
    return tuple(read for part in parts if (read := identifier(part)) is not None)


def day(part: Element, name: str) -> date | None:
    """Read a date; ``None``, taking nothing, when only year or month are known (R4 ``date``)."""
    text = part.look(name)
    if text is None or _MONTH.match(text):
        return None
    if not _DAY.match(text):
        raise part.error(_("se esperaba una fecha AAAA-MM-DD"), "value", name)
    try:
        read = date.fromisoformat(text)
    except ValueError:
        raise part.error(_("esta fecha no existe"), "value", name) from None
    part.take(name)
    return read


def instant(part: Element, name: str) -> datetime | None:
    """Read a moment with its offset, as UTC (R4 ``instant``)."""
    text = part.look(name)
    if text is None:
        return None
    if not _MOMENT.match(text):
        raise part.error(_("se esperaba fecha y hora con zona: AAAA-MM-DDThh:mm:ssZ"), "value", name)
    try:
        read = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise part.error(_("esta fecha y hora no existe"), "value", name) from None
    part.take(name)
    return read


def moment(part: Element, name: str) -> datetime | None:
    """Read a moment as UTC; ``None``, taking nothing, when it has no time of day (R4 ``dateTime``)."""
    text = part.look(name)
    if text is not None and _MONTH.match(text):
        return None
    if text is not None and _DAY.match(text):
        try:
            date.fromisoformat(text)
        except ValueError:
            raise part.error(_("esta fecha no existe"), "value", name) from None
        return None
    return instant(part, name)
