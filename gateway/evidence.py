"""Turns what happened in a journey into one entry of the audit log, grouped as the log's envelope asks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from adapters.models import EntryReceipt, Provenance
from audit.models import Entry, Outcome, Receipt
from consent.models import Caller, Decision, Request, SubjectFacts
from consent.subject import is_adult
from schemas.codes import code_list


def entry(
    kind: str,
    outcome: Outcome,
    *,
    at: datetime,
    policy_version: str,
    subject: UUID | None = None,
    correlation: str | None = None,
    about: dict[str, Any] | None = None,
    **groups: dict[str, Any],
) -> Entry:
    """Build an entry; groups (actor, why, what, decision, exchange…) hold codes and ids, empty ones are left out.

    ``about`` becomes the group ``subject``; without it an entry about a person says only that.
    """
    if about is None and subject is not None:
        about = {"kind": "person"}
    if about:
        groups["subject"] = about
    return Entry(
        at=at,
        type=kind,
        outcome=outcome,
        policy_version=policy_version,
        correlation=correlation,
        subject=subject,
        groups={name: group for name, group in groups.items() if group},
    )


def decided(
    kind: str,
    request: Request,
    decision: Decision,
    *,
    subject: UUID | None,
    facts: SubjectFacts | None = None,
    emergency: UUID | None = None,
    correlation: str | None = None,
    outcome: Outcome | None = None,
    exchange: dict[str, Any] | None = None,
    what: dict[str, Any] | None = None,
) -> Entry:
    """Build the entry of a decided request: who asked what of whom, why, and what was decided on which basis.

    ``facts`` are what the decision knew of the one person it is about, also where ``subject`` is not known here yet;
    ``emergency`` is the entry of the opened emergency that a permit rests on.
    """
    return entry(
        kind,
        outcome or decision.effect,
        at=request.at,
        subject=subject,
        correlation=correlation,
        policy_version=decision.policy_version,
        actor={**actor(request.caller), "on_behalf_of": request.on_behalf_of, "channel": request.channel},
        why={
            "purpose": request.purpose,
            "basis": request.basis,
            "norm": decision.norm,
            "agreement": None if decision.agreement is None else list(decision.agreement),
            "consent": None if decision.consent is None else str(decision.consent),
            **_consented(decision, facts),
            "case": request.case,
            "emergency": None
            if request.emergency is None
            else {
                "reason": request.emergency.reason,
                "incident": request.emergency.incident,
                "text": request.emergency.text,
            },
        },
        what={
            "holder": request.holder,
            "dataset": request.dataset,
            "action": request.action,
            "asked": sorted(request.fields),
            "released": sorted(decision.released),
            "withheld": dict(sorted(decision.withheld.items())),
            "reduced": dict(sorted(decision.treatments.items())),
            **({} if facts is None else {"persons": 1}),
            **_labels(request.dataset, decision.released),
            **(what or {}),
        },
        decision={
            "id": str(decision.id),
            "effect": decision.effect,
            "reasons": list(decision.reasons),
            "obligations": list(decision.obligations),
            "trace": list(decision.trace),
            **({} if emergency is None else {"emergency": str(emergency)}),
        },
        exchange=exchange or {},
        about=None if facts is None else _about(facts, decision, request.at),
    )


def actor(caller: Caller) -> dict[str, Any]:
    """Return the group of an entry that says who acted, from where, and how surely that is known."""
    return {
        "client": caller.client_id,
        "institution": caller.institution,
        "user": caller.user if caller.person is None else str(caller.person),
        "user_verified": caller.user_verified,
        "roles": sorted(caller.roles),
        "assurance": caller.assurance,
        **origin(caller.address, caller.bound_to, pilot=caller.pilot),
    }


def origin(address: str | None, bound_to: str | None, *, pilot: bool = False) -> dict[str, Any]:
    """Return what is known of the far end of a request: its address, the certificate or key its token is bound to."""
    return {
        **({} if address is None else {"address": address}),
        **({} if bound_to is None else {"bound_to": bound_to}),
        # A secret proves less than a key, so what was done with one shows it.
        **({"pilot": True} if pilot else {}),
    }


def told(provenance: Provenance, protocol: str) -> dict[str, Any]:
    """Return what the group ``exchange`` says of a call to an institution's system and of its raw answer.

    ``protocol`` is the kind of its adapter; where a register taken before answered, nothing was called.
    """
    said: dict[str, Any] = {
        "adapter": provenance.adapter,
        "institution": provenance.institution,
        "protocol": "register" if provenance.register else protocol,
        "at": provenance.at.isoformat(),
        "duration_ms": provenance.duration_ms,
        "attempts": provenance.attempts,
    }
    if provenance.register:
        said["register"] = provenance.register
    if provenance.raw_sha256 is not None:
        said["answer_sha256"] = provenance.raw_sha256.hex()
    if provenance.message_id:
        said["message_id"] = provenance.message_id
    if provenance.signature is not None:
        said["signature_sha256"] = provenance.signature.hex()
    return said


def proof_address(entry_id: UUID) -> str:
    """Return where the proof of an entry (C2SP tlog-proof) appears, below the gateway's public address."""
    return f"/audit/log/proof/{entry_id}"


def to_hand_over(receipt: Receipt, public_address: str) -> EntryReceipt:
    """Return a receipt as another institution gets it with a call: the address of its proof is whole."""
    return EntryReceipt(receipt.entry_id, receipt.leaf_hash, public_address + proof_address(receipt.entry_id))


def _about(facts: SubjectFacts, decision: Decision, at: datetime) -> dict[str, Any]:
    group: dict[str, Any] = {"kind": "person"}
    if facts.birth_date is not None:
        group["minor"] = not is_adult(facts.birth_date, at)
    mandates = [fact.representation for fact in facts.consents if fact.id == decision.consent]
    if mandates and mandates[0] is not None:
        group["representative"] = str(mandates[0])
    return group


def _consented(decision: Decision, facts: SubjectFacts | None) -> dict[str, str]:
    """Return the hash of what the person agreed to, where the release rests on their consent."""
    if decision.consent is None or facts is None:
        return {}
    hashes = [fact.scope_sha256 for fact in facts.consents if fact.id == decision.consent]
    return {"consent_scope_sha256": hashes[0].hex()} if hashes and hashes[0] is not None else {}


def _labels(dataset: str, released: Iterable[str]) -> dict[str, list[str]]:
    """Return the sensitivity labels of released fields; a referral has none of its own."""
    spec = code_list("datasets").get(dataset)
    if spec is None or not released:
        return {}
    return {"labels": sorted({spec["fields"][name]["label"] for name in released})}
