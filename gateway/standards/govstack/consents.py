"""ConsentRecords: our records of what persons answered, given and withdrawn through the same functions as everywhere.

A record is never rewritten: what is asked first and signed later is two records, and the id of the first leads to the
second. Unsigned, nothing is consented.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from consent import people, records
from consent.errors import NotInForce
from consent.models import Agreement
from consent.records import ConsentRecord, NewConsent, end_consent, record_consent
from consent.tables import consent_record
from consent.transaction import instant
from gateway import errors
from gateway.governance.people import refused
from gateway.registry.models import PersonRef
from gateway.standards.govstack import agreements, individuals, models, revisions
from gateway.standards.govstack.agreements import Shown
from gateway.standards.govstack.models import Answer, Call, object_id
from gateway.standards.govstack.revisions import CONSENT_RECORD, Revision, State
from gateway.standards.govstack.tables import signature as signature_table
from schemas.ids import uuid7
from schemas.text import _

_COLUMN = "govstack_signature.document"
_CHANNEL, _LANGUAGE = "web", "es"
# The institution's system passes the person's word on.
_REASON = "word-to-officer"
# More answers than one person has.
_ALL = 1000


async def draft(call: Call) -> Answer:
    """Show the record and the signature that a person would sign for an agreement; nothing is stored."""
    who = await individuals.seen(call, call.query["individualId"])
    found, agreement, revision = await _askable(call, call.query["dataAgreementId"])
    payload = await _payload(call, agreement, revision, who, opt_in=True)
    ready = models.unsigned(payload, at=instant(call.at), asked={})
    record = models.consent_record_json(
        None,
        subject=who.id,
        agreement=found.json(_version(found, agreement.version), at=revision.at),
        revision=revisions.revision_json(found.revisions, revision),
        signature=None,
        opt_in=True,
    )
    return _read("consentbb.consent_drafted", who.id, agreement.code), {"consentRecord": record, "signature": ready}


async def request(call: Call) -> Answer:
    """Record that a person was asked; the record is unsigned and opens nothing until it is signed."""
    who = await individuals.seen(call, call.query["individualId"])
    _found, agreement, _revision = await _askable(call, call.path["dataAgreementId"])
    said = await _record(call, who, agreement, proof=f"consent-bb:{call.actor}", state="requested")
    return said, await _with_revision(call, await records.read_record(call.connection, UUID(said["consent"])))


async def create_signed(call: Call) -> Answer:
    """Record a person's answer together with the signature on it."""
    given = call.message["consentRecord"]
    who = await individuals.seen(call, given["individual"]["id"])
    _found, agreement, revision = await _askable(call, given["dataAgreement"]["id"])
    opt_in = given.get("optIn", True)
    if given["dataAgreementRevisionHash"] != revision.sha256.hex():
        raise _stale("/consentRecord/dataAgreementRevisionHash")
    payload = await _payload(call, agreement, revision, who, opt_in=opt_in)
    kept = models.signed(payload, call.message["signature"])
    signature_id = uuid7()
    said = await _record(
        call,
        who,
        agreement,
        proof=f"consent-bb:{signature_id}",
        state="given" if opt_in else "refused",
        mandate=await _mandate(call, who, kept),
    )
    record_id = UUID(said["consent"])
    sealed = _seal(call, signature_id, kept)
    new = {"id": signature_id, "record": record_id, "answer": record_id, "document": sealed, "created_at": call.at}
    await call.connection.execute(insert(signature_table).values(new))
    body = await _with_revision(call, await records.read_record(call.connection, record_id))
    return said, {**body, "signature": body["consentRecord"]["signature"]}


async def change(call: Call) -> Answer:
    """Change a record's ``optIn``: to false withdraws or refuses; to true only signing leads."""
    who = await individuals.of_header(call)
    record = await _resolve(call, call.path["consentRecordId"], subject=who.id)
    given = call.message["consentRecord"]
    if given.get("id", call.path["consentRecordId"]) not in (call.path["consentRecordId"], str(record.id)):
        raise errors.BadRequest("other-object", pointer="/consentRecord/id", detail=_("Es el id de otro objeto."))
    if given["optIn"] is models.answer_of(record.state):
        body = await _with_revision(call, record)
        return _read("consentbb.record_read", who.id, record.agreement), body
    if given["optIn"]:
        detail = _("Un sí necesita firma: firme el registro pedido o cree uno nuevo.")
        raise errors.Conflict("unsigned", detail=detail)
    if record.state == "requested":
        found = await agreements.shown(call.connection, record.agreement, call.institution)
        agreement = _in_force(found)
        said = await _record(call, who, agreement, proof=f"consent-bb:{call.actor}", state="refused")
        record = await records.read_record(call.connection, UUID(said["consent"]))
    else:
        said = await _withdraw(call, record.id)
        record = await records.read_record(call.connection, record.id)
    return said, await _with_revision(call, record)


async def remove_all(call: Call) -> Answer:
    """Withdraw everything a person consented to under agreements of the caller's institution.

    The records stay: none is forgettable, since each is the proof that the law asks for. Erasure is another right, on
    request of the person (Ley 7593/2025), and not a consent's.
    """
    who = await individuals.of_header(call)
    ended: list[str] = []
    for record in await _mine(call, who.id):
        if record.state == "given" and str(record.id) not in ended:
            ended += (await _withdraw(call, record.id))["ended"]
    if not ended:
        return _read("consentbb.record_read", who.id, None), {}
    return {
        "event": "consent.withdrawn",
        "subject": str(who.id),
        "ended": sorted(ended),
        "reason": _REASON,
        "at": instant(call.at),
    }, {}


async def prepare_signature(call: Call) -> Answer:
    """Make a Signature for a record that waits for one, with its payload ready for signing."""
    record, who, payload = await _to_sign(call)
    asked = call.message["signature"]
    ready = models.unsigned(payload, at=instant(call.at), asked=asked)
    row = await call.connection.scalar(select(signature_table.c.id).where(signature_table.c.record == record.id))
    signature_id = uuid7() if row is None else row
    sealed = _seal(call, signature_id, ready)
    new = {"id": signature_id, "record": record.id, "answer": None, "document": sealed, "created_at": call.at}
    await call.connection.execute(
        upsert(signature_table).values(new).on_conflict_do_update(index_elements=["record"], set_={"document": sealed})
    )
    said = _read("consentbb.signature_prepared", who.id, record.agreement)
    return said, {"signature": {**ready, "id": str(signature_id)}}


async def sign(call: Call) -> Answer:
    """Add the signature to a record that was asked for; from now on the person has consented."""
    record, who, payload = await _to_sign(call)
    mine = signature_table.c.record == record.id
    signature_id = await call.connection.scalar(select(signature_table.c.id).where(mine))
    given = call.message["signature"]
    if signature_id is None or given.get("id", str(signature_id)) != str(signature_id):
        raise errors.NotFound("not-found")
    kept = models.signed(payload, given)
    found = await agreements.shown(call.connection, record.agreement, call.institution)
    proof, mandate = f"consent-bb:{signature_id}", await _mandate(call, who, kept)
    said = await _record(call, who, _in_force(found), proof=proof, state="given", mandate=mandate)
    answer = UUID(said["consent"])
    document = _seal(call, signature_id, kept)
    await call.connection.execute(update(signature_table).where(mine).values(answer=answer, document=document))
    body = await _with_revision(call, await records.read_record(call.connection, answer))
    return said, {"signature": body["consentRecord"]["signature"]}


async def show_for_agreement(call: Call) -> Answer:
    """Show a person's one current record under an agreement."""
    who = await individuals.of_header(call)
    code = call.path["dataAgreementId"]
    await agreements.shown(call.connection, code, call.institution)
    current = _current(await _mine(call, who.id, code))
    if not current:
        raise errors.NotFound("not-found")
    [told] = await _told(call, current)
    return _read("consentbb.record_read", who.id, code), {"consentRecord": told}


async def show_current(call: Call) -> Answer:
    """List a person's current records, one per agreement, by id."""
    who = await individuals.of_header(call)
    current = _current(await _mine(call, who.id))[call.offset : call.offset + call.limit]
    return _read("consentbb.record_read", who.id, None), {"consentRecords": await _told(call, current)}


async def show_history(call: Call) -> Answer:
    """List everything a person answered under an agreement, by id."""
    who = await individuals.of_header(call)
    code = call.path["dataAgreementId"]
    await agreements.shown(call.connection, code, call.institution)
    found = (await _mine(call, who.id, code))[call.offset : call.offset + call.limit]
    return _read("consentbb.record_read", who.id, code), {"consentRecords": await _told(call, found)}


async def show(call: Call) -> Answer:
    """Show one record, with its revision, to a party of its agreement."""
    record = await _resolve(call, call.path["consentRecordId"])
    body = await _with_revision(call, record)
    return _read("consentbb.record_read", record.subject, record.agreement), body


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
    return said, {"consentRecords": await _told(call, found)}


async def audit_all(call: Call) -> Answer:
    """List the records for an auditor of a party; that they were read is in the log."""
    return await show_all(call, "consentbb.audited")


async def audit_one(call: Call) -> Answer:
    """Show one record to an auditor of a party; that it was read is in the log."""
    record = await _resolve(call, call.path["consentRecordId"])
    [told] = await _told(call, [record])
    return _read("consentbb.audited", record.subject, record.agreement), {"consentRecord": told}


# What may be asked and signed


async def _askable(call: Call, code: str) -> tuple[Shown, Agreement, Revision]:
    """Return an agreement that a person may be asked to consent to, in its current revision."""
    found = await agreements.shown(call.connection, code, call.institution)
    agreement = _in_force(found)
    revision = found.revision_of(agreement.version, call.at)
    wanted = call.query.get("revisionId")
    if wanted is not None and wanted != str(revision.id):
        raise _stale("/revisionId")
    return found, agreement, revision


def _in_force(found: Shown) -> Agreement:
    version = found.history.in_force
    if version is None or version.agreement.status != "active":
        raise errors.Conflict("agreement-not-active", detail=_("El acuerdo no está vigente: nadie puede consentir."))
    return version.agreement


def _version(found: Shown, number: int) -> Any:
    return next(each for each in found.history.versions if each.agreement.version == number)


async def _payload(call: Call, agreement: Agreement, revision: Revision, who: PersonRef, *, opt_in: bool) -> str:
    text = await _text(call, agreement)
    return models.verification_payload(agreement, revision.sha256.hex(), who.id, opt_in=opt_in, text=text)


async def _text(call: Call, agreement: Agreement) -> tuple[str, str]:
    """Return version and language of the newest published text; without one the agreement's own purpose is asked."""
    published = await records.texts_of(call.connection, agreement.code, limit=_ALL)
    spanish = [each for each in published if each.language == _LANGUAGE] or published
    if not spanish:
        return f"agreement-{agreement.version}", _LANGUAGE
    newest = max(spanish, key=lambda each: (each.published_at, each.version))
    return newest.version, newest.language


async def _to_sign(call: Call) -> tuple[ConsentRecord, PersonRef, str]:
    who = await individuals.of_header(call)
    record = await _resolve(call, call.path["consentRecordId"], subject=who.id)
    if record.state != "requested":
        raise errors.Conflict("answered", detail=_("La persona ya respondió: el registro no espera firma."))
    _found, agreement, revision = await _askable(call, record.agreement)
    return record, who, await _payload(call, agreement, revision, who, opt_in=True)


async def _mandate(call: Call, who: PersonRef, signature: dict[str, Any]) -> UUID | None:
    """Return the mandate by which a delegate signs: ``verificationSignedBy`` is the Individual who does."""
    if signature.get("verificationSignedAs", "individual") == "individual":
        return None
    signer = await individuals.seen(call, signature["verificationSignedBy"])
    found = await people.mandate_between(call.connection, who.id, signer.id, birth_date=who.birth_date, at=call.at)
    if found is None:
        detail = _("Quien firma no representa a la persona.")
        raise errors.BadRequest("mandate", pointer="/signature/verificationSignedBy", detail=detail)
    return found.id


async def _record(
    call: Call, who: PersonRef, agreement: Agreement, *, proof: str, state: records.Answer, mandate: UUID | None = None
) -> dict[str, Any]:
    """Record an answer to everything the agreement asks for, sensitive classes named."""
    version, language = await _text(call, agreement)
    new = NewConsent(
        agreement=agreement.code,
        purposes=agreement.purposes,
        fields=frozenset().union(*agreement.datasets.values()),
        labels=frozenset(models.sensitive_labels(agreement)),
        text_version=version,
        language=language,
        channel=_CHANNEL,
        proof_reference=proof,
        representation=mandate,
    )
    with refused():
        return await record_consent(
            call.connection,
            who.id,
            new,
            birth_date=who.birth_date,
            recorded_by=str(call.actor),
            at=call.at,
            state=state,
        )


async def _withdraw(call: Call, record_id: UUID) -> dict[str, Any]:
    with refused():
        return await end_consent(call.connection, record_id, step="withdraw", reason=_REASON, at=call.at)


def _stale(pointer: str) -> errors.BadRequest:
    return errors.BadRequest("old-revision", pointer=pointer, detail=_("El acuerdo cambió: pida un borrador nuevo."))


# What is shown


async def _resolve(call: Call, record_id: str, subject: UUID | None = None) -> ConsentRecord:
    """Return the record that an id leads to, for a party of its agreement; raises NotFound."""
    try:
        record = await records.read_record(call.connection, object_id(record_id))
        answer = await call.connection.scalar(
            select(signature_table.c.answer).where(signature_table.c.record == record.id)
        )
        if answer is not None and answer != record.id:
            record = await records.read_record(call.connection, answer)
    except NotInForce:
        raise errors.NotFound("not-found") from None
    if not await records.is_party(call.connection, record.agreement, call.institution):
        raise errors.NotFound("not-found")
    await individuals.seen(call, str(record.subject))
    if subject not in (None, record.subject):
        raise errors.NotFound("not-found")
    return record


async def _mine(call: Call, subject: UUID, code: str | None = None) -> list[ConsentRecord]:
    return await records.records_of(call.connection, subject, party=call.institution, agreement=code, limit=_ALL)


def _current(found: Sequence[ConsentRecord]) -> list[ConsentRecord]:
    """Return the record that counts of each agreement: the newest answer, else the newest question."""
    newest: dict[str, ConsentRecord] = {}
    for record in sorted(found, key=lambda each: (each.state != "requested", each.given_at, each.state != "given")):
        newest[record.agreement] = record
    return sorted(newest.values(), key=lambda each: each.id)


async def _with_revision(call: Call, record: ConsentRecord) -> dict[str, Any]:
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


async def _told(call: Call, found: Sequence[ConsentRecord]) -> list[dict[str, Any]]:
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
            agreement=shown.json(_version(shown, number), at=revision.at),
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


def _seal(call: Call, signature_id: UUID, document: dict[str, Any]) -> bytes:
    return call.vault.seal(_COLUMN, signature_id, orjson.dumps(document).decode())


def _read(event: str, subject: UUID, code: str | None) -> dict[str, Any]:
    return {"event": event, "subject": str(subject)} | ({} if code is None else {"agreement": code})
