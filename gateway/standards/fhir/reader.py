"""From a FHIR R4 message Bundle to one referral event, with an account of every leaf of the message."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from gateway.standards.fhir import codes
from gateway.standards.fhir.bundle import Message, open_message
from gateway.standards.fhir.datatypes import instant, moment
from gateway.standards.fhir.models import Default, Event, Kept, ReferralEvent
from gateway.standards.fhir.people import read_party, read_patient
from gateway.standards.fhir.request import (
    check_live,
    read_interconsultation,
    read_priority,
    read_reason,
    read_review,
    read_target,
)
from gateway.standards.fhir.tree import Element, Path, leaves, pointer
from schemas.text import _

_STRUCTURAL: Final = frozenset({("resourceType",), ("id",), ("text", "status"), ("text", "div")})


def read_message(bundle: dict[str, Any]) -> ReferralEvent:
    """Read a parsed message Bundle of Chile's TEI guide 0.1.x (FHIR R4 4.0.1, messaging).

    The events ``iniciar``, ``referenciar`` and ``revisar`` are taken. ``message_id`` is ``MessageHeader.id``, which
    R4 messaging quotes in the answer; without one, ``Bundle.identifier.value``, else ``Bundle.id``. A missing
    priority, reason, specialty or ``authoredOn`` is filled in and named in ``defaults``.

    Nothing is fetched and nothing is decided. Raises :class:`FhirError` for whatever cannot be taken, and nothing else.
    """
    everything = leaves(bundle)
    message = open_message(bundle)
    event = _read(message)
    taken = message.root.taken
    rest = {path: value for path, value in everything.items() if path not in taken}
    return replace(
        event,
        taken=tuple(pointer(path) for path in everything if path in taken),
        kept=tuple(Kept(pointer(path), value) for path, value in rest.items() if not _is_structural(path)),
        structural=tuple(Kept(pointer(path), value) for path, value in rest.items() if _is_structural(path)),
    )


def _read(message: Message) -> ReferralEvent:
    header = message.header
    event = _event(header)
    source = header.child("source")
    if source is None:
        raise header.error(_("falta este dato obligatorio"), "required", "source")
    request = _focus(message)
    check_live(request, review=event == "review")
    subject = request.child("subject")
    if subject is None:
        raise request.error(_("falta la persona derivada"), "required", "subject")
    defaults: list[Default] = []
    sent_at = instant(message.root, "timestamp")
    authored_on = moment(request, "authoredOn")
    if authored_on is None and sent_at is not None:
        authored_on = sent_at
        defaults.append(Default("authored_on", pointer((*request.path, "authoredOn")), sent_at.isoformat()))
    priority = read_priority(request, defaults)
    target = read_target(message, request, defaults)
    reason = read_reason(message, request, defaults)
    requester = request.child("requester") or header.child("author")
    return ReferralEvent(
        event=event,
        message_id=_message_id(message),
        sent_at=sent_at,
        source_endpoint=source.need("endpoint"),
        interconsultation=read_interconsultation(request),
        patient=read_patient(message, subject),
        requester=None if requester is None else read_party(message, requester),
        target=target,
        reason=reason,
        priority=priority,
        authored_on=authored_on,
        review=read_review(request) if event == "review" else None,
        defaults=tuple(defaults),
        taken=(),
        kept=(),
        structural=(),
    )


def _event(header: Element) -> Event:
    if header.data.get("response") is not None:
        raise header.error(_("se esperaba un mensaje nuevo, no la respuesta a otro"), "not-supported", "response")
    event = header.child("eventCoding")
    if event is None:
        raise header.error(_("falta el evento como eventCoding"), "required", "eventCoding")
    known, system = codes.codes("event-type"), codes.system("event-type")
    if event.need("system") != system:
        raise event.error(_("se esperaba el sistema {system}").format(system=system), "code-invalid", "system")
    code = event.need("code")
    taken = ", ".join(name for name, entry in known.items() if "event" in entry)
    if code not in known:
        raise event.error(_("evento desconocido; se toman {events}").format(events=taken), "code-invalid", "code")
    meaning: Event | None = known[code].get("event")
    if meaning is None:
        what = _("el evento {event} existe pero aquí no se toma; se toman {events}").format(event=code, events=taken)
        raise event.error(what, "not-supported", "code")
    return meaning


def _focus(message: Message) -> Element:
    references = message.header.children("focus")
    if not references:
        raise message.header.error(_("falta la referencia a la ServiceRequest"), "required", "focus")
    requests: dict[Path, Element] = {}
    for reference in references:
        found = message.resolve(reference)
        if found is None:
            raise reference.error(_("la referencia no está en el mensaje"), "not-found", "reference")
        if found.resource.look("resourceType") == "ServiceRequest" and found.resource.path not in requests:
            requests[found.resource.path] = found.resource
            reference.take("reference")
    if len(requests) != 1:
        raise message.header.error(_("se esperaba exactamente una ServiceRequest"), "invariant", "focus")
    return next(iter(requests.values()))


def _message_id(message: Message) -> str | None:
    own = message.header.text("id")
    if own is not None:
        return own
    identifier = message.root.child("identifier")
    persistent = None if identifier is None else identifier.text("value")
    return persistent or message.root.text("id")


def _is_structural(path: Path) -> bool:
    if path[0] == "entry" and path[2:3] == ("fullUrl",):
        return len(path) == 3
    inside = path[3:] if path[0] == "entry" and path[2:3] == ("resource",) else path
    while inside[:1] == ("contained",):
        inside = inside[2:]
    return inside in _STRUCTURAL or (inside[:2] == ("meta", "profile") and len(inside) == 3)
