"""Says our agreements, persons and consents in the words of the Consent building block, and reads its words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from consent.agreement_life import NEGOTIATED
from consent.grants import CONSENT
from consent.models import Actor, Agreement
from consent.policy import dataset_labels
from consent.records import ConsentRecord
from consent.transaction import instant
from gateway import errors
from gateway.vault import Vault
from schemas.canonical import canonical_json, sha256
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid
from schemas.text import _

#: Their word for each of our legal bases (W3C DPV names stand in ``legal-bases``); "contract" and
#: "legitimate_interest" free no public body from anything and have none.
LAWFUL_BASES: Mapping[str, str] = MappingProxyType(
    {
        CONSENT: "consent",
        "official-authority": "public_task",
        "legal-obligation": "legal_obligation",
        "vital-interest": "vital_interest",
    }
)
UNSIGNED, SIGNED = "unsigned", "signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One operation asked for: who acts when, on which connection, and what the request says.

    ``path`` are the ids in the address, ``query`` the parameters, ``individual`` the person of the request's header,
    ``message`` its body, already valid; ``local`` that this gateway itself is reached by plain http, on this machine.
    """

    connection: AsyncConnection
    vault: Vault
    actor: Actor
    institution: str
    at: datetime
    path: Mapping[str, str]
    query: Mapping[str, str]
    individual: str | None
    message: Mapping[str, Any]
    offset: int
    limit: int
    local: bool


#: What the log must say, None where nothing personal was read; and the body of the answer.
Answer = tuple[dict[str, Any] | None, dict[str, Any]]


def object_id(text: str) -> UUID:
    """Read the id of an object; what is no id names nothing. Raises NotFound."""
    try:
        return parse_uuid(text)
    except InvalidIdentifier:
        raise errors.NotFound("not-found") from None


def lawful_basis(agreement: Agreement) -> str:
    """Return the one basis that a DataAgreement has: consent if the agreement rests on it, else its first."""
    bases = [agreed.basis for agreed in agreement.bases]
    return LAWFUL_BASES[CONSENT if CONSENT in bases else bases[0]]


def our_basis(word: str) -> str:
    """Return our code of a lawful basis; raises BadRequest with those that can be used."""
    for code, theirs in LAWFUL_BASES.items():
        if theirs == word:
            return code
    raise errors.BadRequest("unknown-basis", pointer="/dataAgreement/lawfulBasis", allowed=LAWFUL_BASES.values())


def data_agreement_json(
    agreement: Agreement, *, dpia: str, policy: dict[str, Any] | None, signature: dict[str, Any] | None
) -> dict[str, Any]:
    """Return a DataAgreement: the holder is its controller and the source of the data.

    Nothing in it depends on the time it is shown. No consent is forgettable: it is the proof that Ley 7593/2025 art. 6
    asks of the controller.
    """
    told: dict[str, Any] = {
        "id": agreement.code,
        "version": str(agreement.version),
        "controller": {
            "id": agreement.holder,
            "name": str(code_list("institutions").get(agreement.holder, {}).get("es", agreement.holder)),
            "url": f"urn:siis:institution:{agreement.holder}",
        },
        "purpose": agreement.es,
        "lawfulBasis": lawful_basis(agreement),
        "dataUse": "data_source",
        "dpia": dpia,
        "active": agreement.status == "active",
        "forgettable": False,
        "lifecycle": {
            "id": agreement.status,
            "name": "Draft" if agreement.status in NEGOTIATED else "Complete",
        },
    }
    if policy is not None:
        told["policy"] = policy
    if signature is not None:
        told["signature"] = signature
    return told


def attributes_json(agreement: Agreement) -> list[dict[str, Any]]:
    """Return the DataAgreementAttributes: every field of every dataset, its label as sensitivity."""
    return [
        {
            "id": f"{dataset}/{field}",
            "name": field,
            "sensitivity": dataset_labels(dataset).get(field, ""),
            "category": dataset,
        }
        for dataset, fields in sorted(agreement.datasets.items())
        for field in sorted(fields)
    ]


def sensitive_labels(agreement: Agreement) -> list[str]:
    """Return the sensitive classes that an agreement may open: whoever consents to it names them expressly."""
    found = code_list("labels")
    return sorted(label for label in agreement.labels if found[label].get("sensitive"))


def agreement_signature_json(agreement: Agreement, party: str, proof: str, at: str) -> dict[str, Any]:
    """Return the Signature of a party on an agreement's text: where the signed paper is, no cryptography."""
    valid_to = None if agreement.valid_to is None else instant(agreement.valid_to)
    validity = {"code": agreement.code, "valid_from": instant(agreement.valid_from), "valid_to": valid_to}
    text = canonical_json(agreement.document() | validity).decode()
    return {
        "id": f"{agreement.code}/{agreement.text_sha256().hex()[:16]}/{party}",
        "payload": text,
        "signature": proof,
        "verificationMethod": "document-reference",
        "verificationPayload": text,
        "verificationPayloadHash": agreement.text_sha256().hex(),
        "verificationSignedBy": party,
        "timestamp": at,
        "objectType": "revision",
    }


def consent_record_json(
    record: ConsentRecord | None,
    *,
    subject: UUID,
    agreement: dict[str, Any],
    revision: dict[str, Any],
    signature: dict[str, Any] | None,
    opt_in: bool | None,
) -> dict[str, Any]:
    """Return a ConsentRecord, a draft with an empty id for no record; without an answer yet it has no ``optIn``.

    The end of a consent is another answer than the one that was signed, so an ended one is unsigned.
    """
    told: dict[str, Any] = {
        "id": "" if record is None else str(record.id),
        "dataAgreement": agreement,
        "dataAgreementRevision": revision,
        "dataAgreementRevisionHash": revision["serializedHash"],
        "individual": {"id": str(subject)},
        "state": SIGNED if signature is not None and signature["signature"] else UNSIGNED,
    }
    if opt_in is not None:
        told["optIn"] = opt_in
    if signature is not None:
        told["signature"] = signature
    return told


def answer_of(state: str) -> bool | None:
    """Return what a record's state says in ``optIn``: nothing while it is only asked."""
    return {"given": True, "requested": None}.get(state, False)


def verification_payload(
    agreement: Agreement, revision_sha256: str, subject: UUID, *, opt_in: bool, text: tuple[str, str]
) -> str:
    """Return what a person signs: who, which revision with which sensitive classes, yes or no, after which text."""
    return canonical_json(
        {
            "schemaName": "ConsentRecord",
            "dataAgreement": agreement.code,
            "dataAgreementRevisionHash": revision_sha256,
            "individual": str(subject),
            "optIn": opt_in,
            "sensitiveClasses": sensitive_labels(agreement),
            "textVersion": text[0],
            "language": text[1],
        }
    ).decode()


_IN_PAYLOAD = (
    "verificationPayload",
    "verificationPayloadHash",
    "verificationMethod",
    "verificationArtifact",
    "verificationSignedBy",
    "verificationJwsHeader",
    "timestamp",
    "signedWithoutObjectReference",
    "objectType",
)


def unsigned(payload: str, *, at: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Signature ready to be signed: its payload is complete, its signature empty."""
    told: dict[str, Any] = {
        "id": "",
        "signature": "",
        "verificationPayload": payload,
        "verificationPayloadHash": sha256(payload.encode()).hex(),
        "verificationMethod": asked.get("verificationMethod", ""),
        "verificationSignedBy": asked.get("verificationSignedBy", ""),
        "timestamp": at,
        "signedWithoutObjectReference": True,
        "objectType": "revision",
    }
    for name in ("verificationArtifact", "verificationJwsHeader", "verificationSignedAs"):
        if name in asked:
            told[name] = asked[name]
    told["payload"] = canonical_json({name: told[name] for name in _IN_PAYLOAD if name in told}).decode()
    return told


def signed(payload: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Signature to keep; raises BadRequest unless it is one, over this very payload.

    Whether the key behind it is the person's, only the system that made it can tell: it is kept as the proof, not
    checked as cryptography.
    """
    for name in ("signature", "verificationMethod", "verificationSignedBy"):
        if not given.get(name):
            raise errors.BadRequest(
                "unsigned", pointer=f"/signature/{name}", detail=_("A la firma le falta este campo.")
            )
    expected = sha256(payload.encode()).hex()
    if given.get("verificationPayload") != payload or given.get("verificationPayloadHash") != expected:
        detail = _("La firma es sobre otro texto o sobre otra revisión: pida un borrador nuevo y firme ese.")
        raise errors.BadRequest("other-payload", pointer="/signature/verificationPayload", detail=detail)
    if expected not in _hashes(given.get("payload", "")):
        detail = _("El payload firmado no contiene el hash de verificationPayload.")
        raise errors.BadRequest("other-payload", pointer="/signature/payload", detail=detail)
    kept = ("payload", "signature", "timestamp", "verificationSignedAs", *_IN_PAYLOAD)
    return {name: given[name] for name in kept if name in given}


def _hashes(payload: str) -> tuple[str, ...]:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return ()
    return (found["verificationPayloadHash"],) if _has_hash(found) else ()


def _has_hash(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("verificationPayloadHash"), str)
