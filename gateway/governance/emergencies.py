"""Opens an emergency access with everything that goes with it, or nothing: its notices, its entry, its number."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Receipt
from audit.service import AuditLog
from consent import emergency
from consent.decision import REVIEW_WITHIN
from consent.models import Decision, Request, SubjectFacts
from consent.roles import OFFICER
from gateway import evidence
from gateway.database import Database
from gateway.governance import notices
from gateway.governance.notices import NewNotice

_log = structlog.get_logger(__name__)
_INTERVAL_S = 60.0
#: While these go on, somebody else may hold the person's telephone.
DELAYING_REASONS = frozenset({"violence-in-progress", "child-in-danger"})

_opened = Counter("siis_emergencies_opened_total", "Emergency accesses opened", ["institution"])
_unreviewed = Gauge("siis_emergencies_unreviewed", "Emergency accesses that wait for review", ["institution"])
_oldest = Gauge(
    "siis_emergencies_oldest_unreviewed_timestamp_seconds",
    "When the oldest emergency access that waits for review was opened",
    ["institution"],
)


async def open_emergency(
    connection: AsyncConnection,
    audit: AuditLog,
    request: Request,
    decision: Decision,
    facts: SubjectFacts,
    correlation: str | None,
) -> Receipt:
    """Open the glass for a permit of an emergency, tell who must be told, and stage its entry, in one transaction.

    The officers of the institution that asks and of the holder are told at once; the person too, unless a protected
    case forbids it. A further use within the day is an entry; it is told again when it reaches more fields. Raises
    :class:`consent.errors.EmergencyEnded`, and what :meth:`audit.service.AuditLog.stage` raises.
    """
    claim, subject, caller, at = request.emergency, facts.subject, request.caller, request.at
    if claim is None or subject is None or caller.user is None or decision.permit is None or not decision.emergency:
        raise TypeError("an emergency needs its permit, a claim, an operator and a person known here")
    said = await emergency.open_glass(
        connection,
        institution=caller.institution,
        user=caller.user,
        client=caller.client_id,
        subject=subject,
        holder=request.holder,
        dataset=request.dataset,
        fields=decision.released,
        claim=claim,
        at=at,
    )
    told, not_before = _when_to_tell(facts, claim.reason, at)
    what = {"added": said["added"], "expires_at": said["expires_at"]}
    if said["added"]:
        what["subject_notice"] = told
    entry = evidence.decided(
        said["event"],
        request,
        decision,
        subject=subject,
        correlation=correlation,
        facts=facts,
        what=what,
        exchange={"emergency": said["id"]},
    )
    if said["added"]:
        opened = UUID(said["id"])
        common = NewNotice(
            kind="breakglass", origin=caller.institution, reference=opened, entry_id=entry.id, subject=subject
        )
        new = [
            replace(common, audience_institution=institution, audience_role=OFFICER)
            for institution in sorted({caller.institution, request.holder})
        ]
        if told != "suppressed":
            new.append(replace(common, person=subject, not_before=not_before))
        await notices.write(connection, new, at=at)
        await emergency.mark_noticed(connection, opened, at=at)
    receipt = await audit.stage(connection, entry)
    if said["event"] == "breakglass.opened":
        _opened.labels(caller.institution).inc()
    return receipt


def _when_to_tell(facts: SubjectFacts, reason: str, at: datetime) -> tuple[str, datetime | None]:
    """Say whether the person is told ``now``, ``delayed`` until the review is due, or not at all (``suppressed``).

    Whoever a person is protected from may read what reaches them; then the notice itself would be the danger.
    """
    if facts.sealed or facts.court_order or facts.barred or facts.deceased:
        return "suppressed", None
    if reason in DELAYING_REASONS:
        return "delayed", at + REVIEW_WITHIN
    return "now", None


class EmergencyWatch:
    """Shows how many emergencies wait for review, and since when, to Prometheus."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, stop: asyncio.Event) -> None:
        """Look once a minute until ``stop`` is set; a database that is away is tried again."""
        while not stop.is_set():
            try:
                await self.look()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("emergencies.not_counted", error=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _INTERVAL_S)

    async def look(self) -> None:
        """Count now; institutions with nothing to review are shown no more."""
        async with self._database.connection() as connection:
            waiting = await emergency.waiting_for_review(connection)
        _unreviewed.clear()
        _oldest.clear()
        for institution, found in waiting.items():
            _unreviewed.labels(institution).set(found.emergencies)
            _oldest.labels(institution).set(found.oldest.timestamp())
