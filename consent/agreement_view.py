"""How an agreement is shown, to a program or a person: JSON-ready, the same for every face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from consent.agreement_life import Contradiction, History, Version
from consent.transaction import instant


def summary_json(history: History) -> dict[str, Any]:
    """Return an agreement in a list: what is in force, and what is under negotiation, if anything."""
    in_force, pending = history.in_force, history.pending
    shown = (in_force or pending or history.versions[-1]).agreement
    return {
        "code": shown.code,
        "es": shown.es,
        "en": shown.en,
        "requester": shown.requester,
        "holder": shown.holder,
        "status": shown.status,
        "version": shown.version,
        "valid_from": instant(shown.valid_from),
        "valid_to": None if shown.valid_to is None else instant(shown.valid_to),
        "pending": None
        if pending is None
        else {"version": pending.agreement.version, "status": pending.agreement.status},
    }


def history_json(history: History, contradictions: Sequence[Contradiction]) -> dict[str, Any]:
    """Return everything about an agreement: texts, versions, signatures, the steps it allows, what contradicts it."""
    in_force, pending = history.in_force, history.pending
    return {
        **summary_json(history),
        "current": None if in_force is None else _text_json(in_force),
        "pending": None if pending is None else _text_json(pending),
        "versions": [_version_json(each) for each in history.versions],
        "signatures": [
            {
                "text_sha256": each.text_sha256.hex(),
                "party": each.party,
                "signatory": each.signatory,
                "proof_reference": each.proof_reference,
                "at": instant(each.at),
            }
            for each in history.signatures
        ],
        "steps": list(history.possible()),
        "conflicts": [conflict_json(each) for each in contradictions],
    }


def conflict_json(contradiction: Contradiction) -> dict[str, Any]:
    """Return a contradiction in JSON's words."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in contradiction._asdict().items()}


def _version_json(version: Version) -> dict[str, Any]:
    agreement = version.agreement
    return {
        "version": agreement.version,
        "status": agreement.status,
        "by": version.by,
        "at": instant(version.at),
        "text_sha256": agreement.text_sha256().hex(),
    }


def _text_json(version: Version) -> dict[str, Any]:
    agreement = version.agreement
    return {
        **_version_json(version),
        "valid_from": instant(agreement.valid_from),
        "valid_to": None if agreement.valid_to is None else instant(agreement.valid_to),
        **agreement.document(),
    }
