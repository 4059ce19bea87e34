"""How ConsentRecords are shown: which record an id leads to, what counts of several, each with its revisions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, or_, select

from consent import records
from consent.agreement_life import Version
from consent.errors import NotInForce
from consent.records import ConsentRecord
from consent.tables import consent_record
from gateway import errors
from gateway.standards.govstack import agreements, individuals, models, revisions
from gateway.standards.govstack.agreements import Shown
from gateway.standards.govstack.models import Answer, Call, object_id
from gateway.standards.govstack.revisions import CONSENT_RECORD, Revision, State
from gateway.standards.govstack.tables import signature as signature_table

_COLUMN = "govstack_signature.document"
_CHUNK = 500


def version_of(found: Shown, number: int) -> Version:
    """Return one version of an agreement."""
    return next(each for each in found.history.versions if each.agreement.version == number)


async def show_for_agreement(call: Call) -> Answer:
    """Show a person's one current record under an agreement."""
    who = await individuals.of_header(call)
    code = call.path["dataAgreementId"]
    await agreements.shown(call.connection, code, call.institution)
    current = _current(await answers_of(call, who.id, code))
    if not current:
        raise errors.NotFound("not-found")
    [told] = await told_all(call, current)
    return said_read("consentbb.record_read", who.id, code), {"consentRecord": told}


async def show_current(call: Call) -> Answer:
    """List a person's current records, one per agreement, by id."""
    who = await individuals.of_header(call)
    current = _current(await answers_of(call, who.id))[call.offset : call.offset + call.limit]
    return said_read("consentbb.record_read", who.id, None), {"consentRecords": await told_all(call, current)}


async def show_history(call: Call) -> Answer:
    """List everything a person answered under an agreement, by id."""
    who = await individuals.of_header(call)
    code = call.path["dataAgreementId"]
    await agreements.shown(call.connection, code, call.institution)
    found = (await answers_of(call, who.id, code))[call.offset : call.offset + call.limit]
    return said_read("consentbb.record_read", who.id, code), {"consentRecords": await told_all(call, found)}


async def show(call: Call) -> Answer:
    """Show one record, with its revision, to a party of its agreement."""
    record = await resolve(call, call.path["consentRecordId"])
    body = await with_revision(call, record)
    return said_read("consentbb.record_read", record.subject, record.agreement), body


async def show_all(call: Call, event: str = "consentbb.records_read") -> Answer:
    """List the records under agreements of the caller's institution by id; with the header, one person's."""
    table = consent_record
    query = (
        select(table)
        .where(table.c.agreement.in_(individuals.agreements_of(call.institution)))
        .where(~individuals.closed(table.c.subject, call.institution))
        .order_by(table.c.id)
        .offset(call.offset)
        .limit(call.limit)
    )
    subject: UUID | None = None
    if call.individual is not None:
        subject = (await individuals.seen(call, call.individual)).id
        query = query.where(table.c.subject == subject)
    found = [ConsentRecord(*row) for row in await call.connection.execute(query)]
    said: dict[str, Any] = {"event": event, "records": len(found)}
    if subject is not None:
        said["subject"] = str(subject)
    return said, {"consentRecords": await told_all(call, found)}


async def audit_all(call: Call) -> Answer:
    """List the records for an auditor of a party; that they were read is in the log."""
    return await show_all(call, "consentbb.audited")


async def audit_one(call: Call) -> Answer:
    """Show one record to an auditor of a party; that it was read is in the log."""
    record = await resolve(call, call.path["consentRecordId"])
    [told] = await told_all(call, [record])
    return said_read("consentbb.audited", record.subject, record.agreement), {"consentRecord": told}


async def resolve(call: Call, record_id: str, subject: UUID | None = None) -> ConsentRecord:
    """Return the record that an id leads to, for a party of its agreement; raises NotFound."""
    try:
        record = await records.read_record(call.connection, object_id(record_id))
    except NotInForce:
        raise errors.NotFound("not-found") from None
    if not await records.is_party(call.connection, record.agreement, call.institution):
        raise errors.NotFound("not-found")
    await individuals.seen(call, str(record.subject))
    if subject not in (None, record.subject):
        raise errors.NotFound("not-found")
    return record if record.state != "requested" else await _answer_to(call, record)


async def _answer_to(call: Call, asked: ConsentRecord) -> ConsentRecord:
    """Return the first answer after a question, whichever way it was given; without one, the question."""
    found = await answers_of(call, asked.subject, asked.agreement)
    later = [each for each in found if each.state != "requested" and each.given_at >= asked.given_at]
    return min(later, key=lambda each: each.given_at, default=asked)


async def answers_of(call: Call, subject: UUID, code: str | None = None) -> list[ConsentRecord]:
    """Return everything a person was asked and answered under agreements of the caller's institution, by id."""
    found: list[ConsentRecord] = []
    while True:
        after = found[-1].id if found else None
        part = await records.records_of(
            call.connection, subject, party=call.institution, agreement=code, after=after, limit=_CHUNK
        )
        found += part
        if len(part) < _CHUNK:
            return found


def _current(found: Sequence[ConsentRecord]) -> list[ConsentRecord]:
    """Return the record that counts of each agreement: the newest answer, else the newest question."""
    newest: dict[str, ConsentRecord] = {}
    for record in sorted(found, key=lambda each: (each.state != "requested", each.given_at, each.state != "given")):
        newest[record.agreement] = record
    return sorted(newest.values(), key=lambda each: each.id)


async def with_revision(call: Call, record: ConsentRecord) -> dict[str, Any]:
    """Return a ConsentRecord with its newest revision, as most answers show it."""
    [(told, frozen)] = await _frozen_and_told(call, [record])
    return {"consentRecord": told, "revision": revisions.revision_json(frozen)}


async def _frozen(call: Call, record: ConsentRecord, agreement: Revision, *, signed: bool) -> list[Revision]:
    """Return the revisions of a record: as it was answered, and as it ended."""
    first = "given" if record.withdrawn_at is not None else record.state
    fields = {
        "id": str(record.id),
        "dataAgreement": record.agreement,
        "dataAgreementRevision": str(agreement.id),
        "dataAgreementRevisionHash": agreement.sha256.hex(),
        "individual": str(record.subject),
        "optIn": models.answer_of(first),
        "state": models.SIGNED if signed else models.UNSIGNED,
    }
    by, subject = record.recorded_by, record.subject
    states = [State(fields=fields, at=record.given_at, by=by, individual=subject)]
    if record.withdrawn_at is not None:
        ended = {**fields, "optIn": False, "state": models.UNSIGNED}
        states.append(State(fields=ended, at=record.withdrawn_at, by=None, individual=subject))
    return await revisions.freeze(call.connection, CONSENT_RECORD, str(record.id), states)


async def told_all(call: Call, found: Sequence[ConsentRecord]) -> list[dict[str, Any]]:
    """Return ConsentRecord objects."""
    return [told for told, _frozen_states in await _frozen_and_told(call, found)]


async def _frozen_and_told(call: Call, found: Sequence[ConsentRecord]) -> list[tuple[dict[str, Any], list[Revision]]]:
    """Return ConsentRecord objects with their revisions, reading each agreement once."""
    known: dict[str, Shown] = {}
    signatures = await _signatures(call, found)
    told = []
    for record in found:
        if record.agreement not in known:
            known[record.agreement] = await agreements.shown(call.connection, record.agreement, call.institution)
        shown = known[record.agreement]
        number = record.agreement_version or 1
        revision = shown.revision_of(number, record.given_at)
        signature = signatures.get(record.id)
        frozen = await _frozen(call, record, revision, signed=signature is not None and bool(signature["signature"]))
        if record.withdrawn_at is not None:
            # The end of a consent is another answer than the one that was signed.
            signature = None
        one = models.consent_record_json(
            record,
            subject=record.subject,
            agreement=shown.json(version_of(shown, number), at=revision.at),
            revision=revisions.revision_json(shown.revisions, revision),
            signature=None if signature is None else {**signature, "objectReference": str(frozen[0].id)},
            opt_in=_opt_in(record, call.at),
        )
        told.append((one, frozen))
    return told


def _opt_in(record: ConsentRecord, at: datetime) -> bool | None:
    over = record.expires_at is not None and record.expires_at <= at
    return False if over else models.answer_of(record.state)


async def _signatures(call: Call, found: Sequence[ConsentRecord]) -> dict[UUID, dict[str, Any]]:
    ids = [record.id for record in found]
    table = signature_table.c
    mine: ColumnElement[bool] = or_(table.answer.in_(ids), table.record.in_(ids))
    told: dict[UUID, dict[str, Any]] = {}
    for row in await call.connection.execute(select(table.id, table.record, table.answer, table.document).where(mine)):
        document = orjson.loads(call.vault.open(_COLUMN, row.id, bytes(row.document)))
        told[row.answer or row.record] = {**document, "id": str(row.id)}
    return told


def seal(call: Call, signature_id: UUID, document: dict[str, Any]) -> bytes:
    """Encrypt a Signature object; it may hold names and scanned papers."""
    return call.vault.seal(_COLUMN, signature_id, orjson.dumps(document).decode())


def said_read(event: str, subject: UUID, code: str | None) -> dict[str, Any]:
    """Return what the log says of something that was shown of a person."""
    return {"event": event, "subject": str(subject)} | ({} if code is None else {"agreement": code})
