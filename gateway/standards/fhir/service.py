"""Takes FHIR R4 referral messages: hands them to the referral service and answers with an OperationOutcome."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
from starlette.responses import Response

from audit.models import Receipt
from consent.models import Caller
from gateway import errors
from gateway.commands import Command, Done, receipt_headers, receipt_json
from gateway.referrals.models import NewReferral, ReviewNote
from gateway.referrals.service import ReferralService
from gateway.registry import service as registry
from gateway.registry.models import NewPerson
from gateway.standards.fhir.bundle import content_key
from gateway.standards.fhir.errors import FhirError
from gateway.standards.fhir.models import Patient, ReferralEvent
from gateway.standards.fhir.outcome import Issue, notices, operation_outcome, refusal
from gateway.standards.fhir.reader import read_message
from schemas.errors import InvalidIdentifier, SchemaError
from schemas.ids import uuid7
from schemas.text import _
from schemas.validation import parse_json

FHIR_JSON = "application/fhir+json"
# Bundles nest deeper than our own messages: extensions within extensions.
_DEPTH = 64
# Characters of an identifier's system and value; R4 sets no limit, but an index has one.
_LONGEST_SYSTEM, _LONGEST_VALUE = 200, 400
_PURPOSE, _BASIS = "service-provision", "official-authority"
_STATUS = {errors.NotFound: 404, errors.Denied: 403, errors.Conflict: 409}


class FhirRefused(Exception):
    """A message that was not taken; ``code`` is an R4 issue type, ``issues`` what the sender is told."""

    def __init__(self, status: int, code: str, issues: list[Issue], receipt: Receipt | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.issues, self.receipt = status, code, issues, receipt

    def response(self, receipt: Receipt | None) -> Response:
        """Build the answer: an OperationOutcome with its status, and the receipt unless it says that nothing is there.

        What was not found, and what is hidden, must not differ.
        """
        shown = None if receipt is None or self.status == 404 else receipt_json(receipt)
        body = orjson.dumps(operation_outcome(self.issues))
        return Response(body, self.status, receipt_headers(shown), media_type=FHIR_JSON)


class FhirTaken(NamedTuple):
    """A message that was taken: status, OperationOutcome, and the receipt as JSON has it, for which R4 has no place."""

    status: int
    outcome: dict[str, Any]
    receipt: dict[str, str]


class FhirIntake:
    """The FHIR door to the referral service."""

    def __init__(self, referrals: ReferralService) -> None:
        self._referrals = referrals

    async def take(self, caller: Caller, body: bytes, correlation: str | None) -> FhirTaken:
        """Take one message as it is; the OperationOutcome returned has the referral's id among its issues.

        The hash of the bytes is the idempotency key (DESIGN 9.16). Raises :class:`FhirRefused`.
        """
        try:
            event = read_message(parse_json(body, max_depth=_DEPTH))
        except SchemaError as error:
            issues = [Issue("error", "structure", violation.message) for violation in error.violations]
            raise FhirRefused(400, "structure", issues) from None
        except FhirError as error:
            raise FhirRefused(422, error.code, [refusal(error)]) from None
        command = Command(caller.client_id, f"fhir:{content_key(body)}", body)
        try:
            done = await self._apply(caller, command, event, correlation)
        except errors.Refusal as error:
            status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 422)
            code = {403: "forbidden", 404: "not-found", 409: "conflict"}.get(status, "business-rule")
            raise FhirRefused(status, code, [Issue("error", code, _told(error))], error.receipt) from None
        taken = _("referencia {id}, estado {state}").format(id=done.answer["id"], state=done.answer["state"])
        answer = operation_outcome([Issue("information", "informational", taken), *notices(event)])
        answer["id"] = done.answer["id"]
        return FhirTaken(done.status, answer, done.answer["receipt"])

    async def _apply(self, caller: Caller, command: Command, event: ReferralEvent, correlation: str | None) -> Done:
        kept = {leaf.pointer: leaf.value for leaf in event.kept}
        foreign = None
        if event.interconsultation is not None:
            foreign = (event.interconsultation.system, event.interconsultation.value)
            _refuse_long(foreign)
        codes = {
            "fhir_event": event.event,
            "fhir_message": event.message_id,
            "target_codes": [f"{coding.system}|{coding.code}" for coding in event.target.codings],
            "reason_codes": [f"{coding.system}|{coding.code}" for coding in event.reason.codings],
            "kept": len(kept),
        }
        if event.event == "review":
            return await self._referrals.review(caller, command, _review(event, foreign, codes, kept))
        identifiers = _identifiers(caller, event)
        return await self._referrals.create(
            caller,
            command,
            NewReferral(
                identifiers=identifiers,
                service=event.target.service,
                reason_code=event.reason.code,
                reason_text=event.reason.text,
                priority=event.priority,
                purpose=_PURPOSE,
                basis=_BASIS,
                correlation=correlation,
                registers=_person(event, identifiers),
                foreign=foreign,
                channel="fhir",
                # One for each interconsultation, and a message without its number opens another (DESIGN 9.16).
                additional=True,
                # A hospital's list is a waiting list.
                waitlist=True,
                event_facts=codes,
                kept=kept,
            ),
        )


def _identifiers(caller: Caller, event: ReferralEvent) -> tuple[tuple[str, str], ...]:
    """Return the patient's identifiers, each in its system; a reference means something in the sender's system only."""
    found = [(identifier.system, identifier.value) for identifier in event.patient.identifiers]
    if event.patient.reference_fullurl is not None:
        found.append((f"urn:siis:client:{caller.client_id}:fhir", event.patient.reference_fullurl))
    for pair in found:
        _refuse_long(pair)
    try:
        return tuple(dict.fromkeys((system, registry.normalise(system, value)) for system, value in found))
    except InvalidIdentifier:
        raise errors.BadRequest("bad-identifier") from None


def _refuse_long(pair: tuple[str, str]) -> None:
    if len(pair[0]) > _LONGEST_SYSTEM or len(pair[1]) > _LONGEST_VALUE:
        text = _("un identificador pasa de {system} caracteres en el sistema o de {value} en el valor")
        told = text.format(system=_LONGEST_SYSTEM, value=_LONGEST_VALUE)
        raise FhirRefused(422, "too-long", [Issue("error", "too-long", told)])


def _person(event: ReferralEvent, identifiers: tuple[tuple[str, str], ...]) -> NewPerson:
    patient = event.patient
    known = isinstance(patient, Patient)
    return NewPerson(
        id=uuid7(),
        given_names=patient.given_names if isinstance(patient, Patient) else "",
        surnames=patient.surnames if isinstance(patient, Patient) else "",
        identifiers=identifiers,
        birth_date=patient.birth_date if isinstance(patient, Patient) else None,
        sex=patient.sex if isinstance(patient, Patient) else None,
        attributes={} if known else {"known-by-reference-only": True},
    )


def _review(
    event: ReferralEvent, foreign: tuple[str, str] | None, codes: dict[str, Any], kept: dict[str, Any]
) -> ReviewNote:
    review = event.review
    if foreign is None or review is None:
        raise errors.NotFound("not-found")
    facts = {
        **codes,
        "pertinent": review.pertinent,
        "do_not_perform": review.do_not_perform,
        "requires_exam": review.requires_exam,
        "contradictory": review.contradictory,
        "priority": event.priority,
    }
    texts: dict[str, Any] = {"kept": kept}
    if review.motive_text:
        texts["motive"] = review.motive_text
    return ReviewNote(foreign=foreign, facts=facts, texts=texts)


def _told(error: errors.Refusal) -> str:
    if isinstance(error, errors.NotFound):
        return _("no hay una referencia con ese número, o no es suya")
    if isinstance(error, errors.Denied):
        return _("no se permite: {reasons}").format(reasons=", ".join(error.reasons))
    if error.code == "no-capacity":
        return _("el servicio no tiene cupo, tampoco en espera")
    if isinstance(error, errors.Conflict):
        return _("esta interconsulta ya tiene una referencia")
    if error.code == "bad-identifier":
        return _("un identificador del paciente no es válido; la cédula va sin puntos ni espacios")
    return _("el pedido no es válido: {code}").format(code=error.code)
