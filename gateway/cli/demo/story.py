"""What was done so far in the demonstration, and the words its referrals have in common."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from gateway.cli.demo.clients import Caller
from schemas.ids import uuid7

# How each institution of the demonstration is reached.
CHANNELS = {"MDS": "soap", "MSPBS": "rest", "MINNA": "file"}
WHY = {"purpose": "service-access-determination", "basis": "official-authority"}
_GAP = {"code": "protection-gap"}


@dataclass(slots=True)
class Story:
    """What was done so far: acknowledged referrals with their recipient, and counts of each step.

    ``by_hand``: referrals that a service claimed among the open ones; no system of its institution was sent them.
    """

    acknowledged: dict[UUID, str] = field(default_factory=dict)
    by_hand: set[UUID] = field(default_factory=set)
    refused: int = 0
    fhir: int = 0
    disclosures: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    status_before: dict[str, int] = field(default_factory=dict)
    status_after: dict[str, int] = field(default_factory=dict)
    demand: Counter[str] = field(default_factory=Counter)
    orientation: Counter[str] = field(default_factory=Counter)
    outreach: Counter[str] = field(default_factory=Counter)


async def refer(caller: Caller, subject: tuple[str, str], story: Story, **asked: Any) -> str:
    """Send one referral of a person (system and value) and return its id; raises httpx.HTTPStatusError."""
    system, value = subject
    body = {"subject": {"system": system, "value": value}, "reason": _GAP, **WHY, **asked}
    told = await caller.done("/api/v1/referrals", body)
    story.acknowledged[UUID(told["id"])] = told["recipient"]
    return str(told["id"])


def part(service: str) -> dict[str, Any]:
    """Return one part of a referral that is split."""
    return {"service": service, "reason": _GAP}


def gap(person_id: UUID, service: str) -> tuple[dict[str, Any], str]:
    """Return the referral of a gap, and a key under which to send it."""
    subject = {"system": "siis", "value": str(person_id)}
    return {"subject": subject, "service": service, "reason": _GAP, **WHY}, str(uuid7())
