"""What every room of the referrals works with, and how a refusal to a known caller enters the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from audit.models import Entry, Receipt
from audit.service import AuditLog
from consent.authority import may
from consent.models import Caller, Decision, Request, SubjectFacts
from consent.policy import PolicyStore
from consent.volume import Volume
from gateway import errors, evidence
from gateway.catalogue.service import Catalogue
from gateway.database import Database
from gateway.referrals.models import Referral
from gateway.registry.lookup import SubjectLookup
from gateway.vault import Vault
from gateway.witnesses.quorum import Quorum
from schemas.codes import code_list, require_code
from schemas.errors import UnknownCode


@dataclass(slots=True)
class Attempt:
    """What a caller tries with a referral; ``current`` is set once they are known to be a party to it."""

    current: Referral | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The database, the keys, the log, the policy, the catalogue and the clock."""

    database: Database
    vault: Vault
    catalogue: Catalogue
    subjects: SubjectLookup
    audit: AuditLog
    policies: PolicyStore
    volume: Volume
    quorum: Quorum
    now: Callable[[], datetime]

    def entry(self, kind: str, caller: Caller, at: datetime, *, subject: UUID | None = None, **exchange: Any) -> Entry:
        """Build the entry of something a caller did; ``exchange`` holds codes and ids."""
        return evidence.entry(
            kind,
            "done",
            at=at,
            policy_version=self.policies.current.version,
            subject=subject,
            actor=evidence.actor(caller),
            exchange=exchange,
        )

    async def denied(
        self,
        event: str,
        request: Request,
        decision: Decision,
        facts: SubjectFacts,
        *,
        correlation: str | None = None,
        **exchange: Any,
    ) -> errors.Refusal:
        """Record a decision that was no, after whatever was begun is rolled back, and return what the caller gets."""
        entry = evidence.decided(
            event, request, decision, subject=facts.subject, facts=facts, correlation=correlation, exchange=exchange
        )
        receipt = await self.audit.append(entry)
        if decision.hides_subject or decision.permit is not None:
            return errors.NotFound("not-found", receipt=receipt)
        return errors.Denied(decision.reasons, receipt)

    async def require(self, caller: Caller, action: str) -> None:
        """Raise Denied, on record, unless a role of the caller's allows an action with referrals."""
        at, policy = self.now(), self.policies.current
        if may(caller, action, policy, at):
            return
        entry = evidence.entry(
            "governance.denied",
            "deny",
            at=at,
            policy_version=policy.version,
            actor=evidence.actor(caller),
            what={"actions": [action]},
            decision={"reasons": ["role"]},
        )
        raise errors.Denied(("role",), await self.audit.append(entry))

    @asynccontextmanager
    async def attempt(self, caller: Caller, referral_id: UUID, tried: str) -> AsyncIterator[Attempt]:
        """Put on record what a known caller could not do with a referral, once whatever was begun is rolled back."""
        attempt = Attempt()
        try:
            yield attempt
        except (errors.NotFound, errors.Conflict) as error:
            if error.receipt is None:
                error.receipt = await self._refused(caller, referral_id, tried, error.code, attempt.current)
            raise

    async def _refused(
        self, caller: Caller, referral_id: UUID, tried: str, code: str, current: Referral | None
    ) -> Receipt:
        entry = evidence.entry(
            "referral.refused",
            "deny",
            at=self.now(),
            policy_version=self.policies.current.version,
            subject=None if current is None else current.person_id,
            actor=evidence.actor(caller),
            exchange={
                "referral": str(referral_id),
                "event": tried,
                "reason": code,
                **({} if current is None else {"state_before": current.state, "state_after": current.state}),
            },
        )
        return await self.audit.append(entry)


def require_reason(code: str, use: str, pointer: str) -> None:
    """Raise BadRequest with the codes there are, unless ``code`` is a reason for this use."""
    try:
        uses = require_code("reasons", code)["use"]
    except UnknownCode:
        uses = ()
    if use not in uses:
        allowed = [name for name, spec in code_list("reasons").items() if use in spec["use"]]
        raise errors.BadRequest("unknown-reason", pointer=pointer, allowed=allowed)
