"""The record of a consent in the structure of ISO/IEC TS 27560:2023, and as a plain text that the person can keep.

Names and titles are taken in Spanish whatever the language in force, so that one record has one hash.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from consent.grants import CONSENT
from consent.models import Agreement
from consent.people import PARAGUAY
from consent.records import ConsentRecord, ConsentText
from consent.transaction import instant
from schemas.canonical import canonical_json, sha256
from schemas.codes import code_list

SCHEMA = "ISO/IEC TS 27560:2023"
JURISDICTION = "PY"
# W3C DPV 2.3 names of the states; one that has expired is told by its time.
_DPV_STATES = {
    "requested": "ConsentRequested",
    "given": "ConsentGiven",
    "refused": "ConsentRefused",
    "withdrawn": "ConsentWithdrawn",
    "revoked": "ConsentRevoked",
    "invalidated": "ConsentInvalidated",
    "expired": "ConsentExpired",
}


def record_27560(record: ConsentRecord, agreement: Agreement, text: ConsentText | None) -> dict[str, Any]:
    """Return a record as JSON after ISO/IEC TS 27560:2023: header, processing, notice, parties, events; DPV codes.

    ``agreement`` is the version it was given under, ``text`` what the person was asked, where it is published.
    """
    norm = next((agreed.norm for agreed in agreement.bases if agreed.basis == CONSENT), None)
    given_by = "data-subject" if record.representation is None else "representative"
    return {
        "record_header": {
            "schema_version": SCHEMA,
            "record_id": str(record.id),
            "pii_principal_id": str(record.subject),
            "vocabulary": "https://w3id.org/dpv#",
        },
        "pii_processing": {
            "agreement": record.agreement,
            "agreement_version": agreement.version,
            "scope_sha256": None if record.scope_sha256 is None else record.scope_sha256.hex(),
            "title": agreement.es,
            "purposes": [
                {"purpose": code, "purpose_type": f"dpv:{spec['dpv']}", "title": spec["es"]}
                for code, spec in _named("purposes", record.purposes)
            ],
            "lawful_basis": "dpv:Consent",
            "norm": norm,
            "pii_information": [
                {"dataset": dataset, "title": _title("datasets", dataset), "attributes": sorted(fields)}
                for dataset, fields in _by_dataset(record, agreement).items()
            ],
            "sensitive_pii_categories": [
                {"category": code, "title": spec["es"]} for code, spec in _named("labels", record.labels)
            ],
            "collection_method": {"channel": record.channel, "title": _title("consent-channels", record.channel)},
            "recipients": [agreement.requester],
            "storage_locations": [JURISDICTION],
            "processing_locations": [JURISDICTION],
            "retention_period": None if agreement.retention_days is None else f"P{agreement.retention_days}D",
            "jurisdiction": JURISDICTION,
            "withdrawal_method": {
                "operation": f"POST /api/v1/consents/{record.id}/steps",
                "in_person": [agreement.requester, agreement.holder],
            },
        },
        "notice": {
            "notice_version": record.text_version,
            "language": record.language,
            "notice_sha256": None if text is None else text.text_sha256.hex(),
        },
        "parties": [
            _party("pii-principal", str(record.subject), None),
            *([_party("representative", str(record.representation), None)] if record.representation else []),
            _party("recipient", agreement.requester, _title("institutions", agreement.requester)),
            _party("pii-controller", agreement.holder, _title("institutions", agreement.holder)),
        ],
        "events": _events(record, given_by),
        "proof": {"reference": record.proof_reference, "recorded_by": record.recorded_by},
    }


def _by_dataset(record: ConsentRecord, agreement: Agreement) -> dict[str, frozenset[str]]:
    covered = {dataset: fields & frozenset(record.fields) for dataset, fields in sorted(agreement.datasets.items())}
    return {dataset: fields for dataset, fields in covered.items() if fields}


def _named(codes: str, wanted: list[str]) -> list[tuple[str, dict[str, Any]]]:
    return [(code, code_list(codes)[code]) for code in sorted(wanted)]


def _title(codes: str, code: str) -> str:
    return str(code_list(codes).get(code, {}).get("es", code))


def _party(role: str, party_id: str, name: str | None) -> dict[str, Any]:
    return {"party_role": role, "party_id": party_id, "party_name": name}


def _events(record: ConsentRecord, given_by: str) -> list[dict[str, Any]]:
    """Return the answer and its end; an ended record was a given one before."""
    ended = record.withdrawn_at is not None
    answer = "given" if ended else record.state
    events = [
        {
            "event_time": instant(record.given_at),
            "event_state": f"dpv:{_DPV_STATES[answer]}",
            "valid_until": None if record.expires_at is None else instant(record.expires_at),
            "entity": given_by,
        }
    ]
    if record.withdrawn_at is not None:
        events.append(
            {
                "event_time": instant(record.withdrawn_at),
                "event_state": f"dpv:{_DPV_STATES[record.state]}",
                "reason": record.end_reason,
                "entity": given_by if record.state == "withdrawn" else "pii-controller",
            }
        )
    return events


def document_sha256(document: dict[str, Any]) -> bytes:
    """Return the hash of a record in this form: of its canonical JSON (sorted keys, no spaces, UTF-8)."""
    return sha256(canonical_json(document))


def receipt_text(record: ConsentRecord, agreement: Agreement, text: ConsentText | None, at: datetime) -> str:
    """Return the receipt in plain Spanish: who may see what of whom, for what, until when, and how to take it back."""
    # A receipt is a document in Spanish; what the person read stands in it in the language they read it in.
    requester, holder = (_title("institutions", code) for code in (agreement.requester, agreement.holder))
    state = {
        "requested": "se le pidió y no respondió todavía",
        "given": "dio su consentimiento",
        "refused": "no dio su consentimiento",
        "withdrawn": "retiró el consentimiento",
        "revoked": "el consentimiento fue revocado por la institución o una autoridad",
        "invalidated": "el consentimiento fue anulado",
        "expired": "el consentimiento venció",
    }[record.state]
    if record.state == "given" and record.expires_at is not None and record.expires_at <= at:
        state = "el consentimiento venció"
    lines = [
        "CONSTANCIA DE CONSENTIMIENTO",
        f"Número: {record.id}",
        f"Estado: {state}",
        f"Fecha: {_day(record.given_at)}",
        f"Quién podrá ver los datos: {requester}",
        f"Quién los tiene: {holder}",
        "Para qué: " + "; ".join(str(spec["es"]) for _code, spec in _named("purposes", record.purposes)),
        "Qué datos:",
        *(
            f"  - {_title('datasets', dataset)}: {_fields(dataset, fields)}"
            for dataset, fields in _by_dataset(record, agreement).items()
        ),
    ]
    if record.labels:
        named = ", ".join(str(spec["es"]) for _code, spec in _named("labels", record.labels))
        lines.append(f"Datos sensibles que incluye expresamente: {named}")
    if record.representation is not None:
        lines.append("Lo dio quien representa a la persona.")
    lines.append("Vale hasta: " + ("que se retire" if record.expires_at is None else _day(record.expires_at)))
    if record.withdrawn_at is not None:
        lines.append(f"Terminó: {_day(record.withdrawn_at)} ({_title('consent-end-reasons', record.end_reason or '')})")
    if agreement.retention_days is not None:
        lines.append(f"Quien los recibe los guarda hasta {agreement.retention_days} días.")
    lines += [
        f"Cómo retirarlo: en cualquier momento y sin dar motivo, en {requester} o en {holder}, con este número.",
        "Al retirarlo, el pedido siguiente de esos datos se rechaza.",
        f"Texto que se le leyó: versión {record.text_version}, idioma {record.language}",
    ]
    if text is not None:
        lines += ["", text.text]
    return "\n".join(lines) + "\n"


def _fields(dataset: str, fields: frozenset[str]) -> str:
    """Name fields as the dataset declares them, in the order of the codes; a referral's have codes only."""
    declared = code_list("datasets").get(dataset, {"fields": {}})["fields"]
    return ", ".join(str(declared[name]["es"]) if name in declared else name for name in sorted(fields))


def _day(at: datetime) -> str:
    return f"{at.astimezone(PARAGUAY):%d/%m/%Y %H:%M}"
