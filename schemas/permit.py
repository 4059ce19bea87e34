"""The permit: proof, in a type, that a decision came before a call to a producer.

It lives here because both sides need the type: the decision issues it, the adapters ask for it. Only
``consent/decision.py`` may call :func:`issue` (a test reads every other file for it).
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from datetime import datetime
from uuid import UUID

_SEAL = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """What was permitted: one action, on one holder's dataset, for one subject at most, releasing these fields."""

    decision_id: UUID
    action: str
    requester: str
    holder: str
    dataset: str
    subject: UUID | None
    released: frozenset[str]
    purpose: str
    issued_at: datetime
    # Asked for at every construction and never kept, so that a copy cannot be widened (dataclasses.replace fails).
    _seal: InitVar[object]

    def __post_init__(self, _seal: object) -> None:
        if _seal is not _SEAL:
            raise TypeError("a Permit comes from consent.decision only")


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the conformance kit has where a permit belongs: taken only by adapters opened towards this very machine."""


def issue(
    *,
    decision_id: UUID,
    action: str,
    requester: str,
    holder: str,
    dataset: str,
    subject: UUID | None,
    released: frozenset[str],
    purpose: str,
    issued_at: datetime,
) -> Permit:
    """Issue a permit. To be called by the decision and nobody else."""
    return Permit(
        decision_id=decision_id,
        action=action,
        requester=requester,
        holder=holder,
        dataset=dataset,
        subject=subject,
        released=released,
        purpose=purpose,
        issued_at=issued_at,
        _seal=_SEAL,
    )
