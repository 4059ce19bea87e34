"""ConsentRecords: our records of what persons answered, given and withdrawn through the same functions as everywhere.

A record is never rewritten: what is asked first and answered later is two records, and the id of the first leads to the
second. Unsigned, nothing is consented, and a signature counts once.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from consent import people, records
from consent.models import Agreement
from consent.records import ConsentRecord, NewConsent, end_consent, record_consent
from consent.transaction import instant, lock
from gateway import errors
from gateway.governance.people import refused
from gateway.registry.models import PersonRef
from gateway.standards.govstack import agreements, individuals, models, revisions, shown
from gateway.standards.govstack.agreements import Shown
from gateway.standards.govstack.models import Answer, Call
from gateway.standards.govstack.revisions import Revision
from gateway.standards.govstack.tables import signature as signature_table
from schemas.canonical import canonical_json, sha256
from schemas.ids import uuid7
from schemas.text import _

_CHANNEL, _LANGUAGE = "web", "es"
# The institution's system passes the person's word on.
_REASON = "word-to-officer"
# More texts than an agreement has.
_TEXTS = 1000


async def draft(call: Call) -> Answer:
    """Show the record and the signature that a person would sign for an agreement; nothing is stored."""
    who = await individuals.seen(call, call.query["individualId"])
    found, agreement, revision = await _askable(call, call.query["dataAgreementId"])
    payload = await _payload(call, agreement, revision, who, opt_in=True)
    ready = models.unsigned(payload, at=instant(call.at), asked={})
    record = models.consent_record_json(
        None,
        subject=who.id,
        agreement=found.json(shown.version_of(found, agreement.version), at=revision.at),
        revision=revisions.revision_json(found.revisions, revision),
        signature=None,
        opt_in=True,
    )
    return shown.said_read("consentbb.consent_drafted", who.id, agreement.code), {
        "consentRecord": record,
        "signature": ready,
    }


async def request(call: Call) -> Answer:
    """Record that a person was asked; the record is unsigned and opens nothing until it is signed."""
    who = await individuals.seen(call, call.query["individualId"])
    _found, agreement, _revision = await _askable(call, call.path["dataAgreementId"])
    said = await _record(call, who, agreement, proof=f"consent-bb:{call.actor}", state="requested")
    return said, await shown.with_revision(call, await records.read_record(call.connection, UUID(said["consent"])))


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
    digest = sha256(canonical_json(kept))
    if (earlier := await _signed_before(call, digest)) is not None:
        # What was signed once is not signed again by being sent again, least of all after its withdrawal.
        body = await shown.with_revision(call, earlier)
        body["signature"] = {**kept, "id": str(await _signature_of(call, digest))}
        return shown.said_read("consentbb.record_read", who.id, agreement.code), body
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
    new = {"id": signature_id, "record": record_id, "answer": record_id, "sha256": digest, "created_at": call.at}
    sealed = shown.seal(call, signature_id, kept)
    await call.connection.execute(insert(signature_table).values(**new, document=sealed))
    body = await shown.with_revision(call, await records.read_record(call.connection, record_id))
    return said, {**body, "signature": body["consentRecord"]["signature"]}


async def change(call: Call) -> Answer:
    """Change a record's ``optIn``: to false withdraws or refuses; to true only signing leads."""
    who = await individuals.of_header(call)
    record = await shown.resolve(call, call.path["consentRecordId"], subject=who.id)
    given = call.message["consentRecord"]
    if given.get("id", call.path["consentRecordId"]) not in (call.path["consentRecordId"], str(record.id)):
        raise errors.BadRequest("other-object", pointer="/consentRecord/id", detail=_("Es el id de otro objeto."))
    if given["optIn"] is models.answer_of(record.state):
        body = await shown.with_revision(call, record)
        return shown.said_read("consentbb.record_read", who.id, record.agreement), body
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
    return said, await shown.with_revision(call, record)


async def remove_all(call: Call) -> Answer:
    """Withdraw everything a person consented to under agreements of the caller's institution.

    The records stay: none is forgettable, since each is the proof that the law asks for. Erasure is another right, on
    request of the person (Ley 7593/2025), and not a consent's.
    """
    who = await individuals.of_header(call)
    ended: list[str] = []
    for record in await shown.answers_of(call, who.id):
        if record.state == "given" and str(record.id) not in ended:
            ended += (await _withdraw(call, record.id))["ended"]
    if not ended:
        return shown.said_read("consentbb.record_read", who.id, None), {}
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
    sealed = shown.seal(call, signature_id, ready)
    new = {"id": signature_id, "record": record.id, "answer": None, "document": sealed, "created_at": call.at}
    await call.connection.execute(
        upsert(signature_table).values(new).on_conflict_do_update(index_elements=["record"], set_={"document": sealed})
    )
    said = shown.said_read("consentbb.signature_prepared", who.id, record.agreement)
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
    digest = sha256(canonical_json(kept))
    if await _signed_before(call, digest) is not None:
        raise errors.Conflict("answered", detail=_("Esa firma ya se usó: pida otra a la persona."))
    found = await agreements.shown(call.connection, record.agreement, call.institution)
    proof, mandate = f"consent-bb:{signature_id}", await _mandate(call, who, kept)
    said = await _record(call, who, _in_force(found), proof=proof, state="given", mandate=mandate)
    answer = UUID(said["consent"])
    signed = {"document": shown.seal(call, signature_id, kept), "sha256": digest}
    await call.connection.execute(update(signature_table).where(mine).values(answer=answer, **signed))
    body = await shown.with_revision(call, await records.read_record(call.connection, answer))
    return said, {"signature": body["consentRecord"]["signature"]}


async def _signed_before(call: Call, digest: bytes) -> ConsentRecord | None:
    await lock(call.connection, f"signature {digest.hex()}")
    query = select(signature_table.c.answer).where(signature_table.c.sha256 == digest)
    answer = await call.connection.scalar(query)
    return None if answer is None else await records.read_record(call.connection, answer)


async def _signature_of(call: Call, digest: bytes) -> UUID | None:
    return await call.connection.scalar(select(signature_table.c.id).where(signature_table.c.sha256 == digest))


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


async def _payload(call: Call, agreement: Agreement, revision: Revision, who: PersonRef, *, opt_in: bool) -> str:
    text = await _text(call, agreement)
    return models.verification_payload(agreement, revision.sha256.hex(), who.id, opt_in=opt_in, text=text)


async def _text(call: Call, agreement: Agreement) -> tuple[str, str]:
    """Return version and language of the newest published text; without one the agreement's own purpose is asked."""
    published = await records.texts_of(call.connection, agreement.code, limit=_TEXTS)
    spanish = [each for each in published if each.language == _LANGUAGE] or published
    if not spanish:
        return f"agreement-{agreement.version}", _LANGUAGE
    newest = max(spanish, key=lambda each: (each.published_at, each.version))
    return newest.version, newest.language


async def _to_sign(call: Call) -> tuple[ConsentRecord, PersonRef, str]:
    who = await individuals.of_header(call)
    record = await shown.resolve(call, call.path["consentRecordId"], subject=who.id)
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
