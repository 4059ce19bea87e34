"""Turns what happened in a journey into one entry of the audit log, grouped as the log's envelope asks."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from audit.models import Entry, Outcome
from consent.models import Caller, Decision, Request


def entry(
    kind: str,
    outcome: Outcome,
    *,
    at: datetime,
    policy_version: str,
    subject: UUID | None = None,
    correlation: str | None = None,
    **groups: dict[str, Any],
) -> Entry:
    """Build an entry; groups (actor, why, what, decision, exchange…) hold codes and ids, empty ones are left out."""
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
    correlation: str | None = None,
    outcome: Outcome | None = None,
    exchange: dict[str, Any] | None = None,
    what: dict[str, Any] | None = None,
) -> Entry:
    """Build the entry of a decided request: who asked what of whom, why, and what was decided on which basis."""
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
            **(what or {}),
        },
        decision={
            "id": str(decision.id),
            "effect": decision.effect,
            "reasons": list(decision.reasons),
            "obligations": list(decision.obligations),
            "trace": list(decision.trace),
        },
        exchange=exchange or {},
    )


def actor(caller: Caller) -> dict[str, Any]:
    """Return the group of an entry that says who acted, and how surely that is known."""
    return {
        "client": caller.client_id,
        "institution": caller.institution,
        "user": caller.user if caller.person is None else str(caller.person),
        "user_verified": caller.user_verified,
        "roles": sorted(caller.roles),
        "assurance": caller.assurance,
        **({"pilot": True} if caller.pilot else {}),
    }
