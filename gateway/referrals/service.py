"""The one door to referrals for faces and intake: each thing that can be done with one, over the rooms that do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.models import Reply
from audit.models import Receipt
from audit.service import AuditLog
from consent.models import Caller
from consent.policy import PolicyStore
from consent.volume import Volume
from gateway.catalogue.service import Catalogue
from gateway.clock import utc_now
from gateway.commands import Command, Done
from gateway.database import Database
from gateway.referrals import claims, creation, parts, reading, reports, steps
from gateway.referrals.desk import Desk
from gateway.referrals.models import Claimable, Line, NewParts, NewReferral, ReviewNote, Shown, Step
from gateway.registry.lookup import SubjectLookup
from gateway.vault import Vault
from gateway.witnesses.quorum import NO_WITNESSES, Quorum


class ReferralService:
    """The referral journey up to the job that delivers, and back from the reply."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        catalogue: Catalogue,
        subjects: SubjectLookup,
        audit: AuditLog,
        policies: PolicyStore,
        volume: Volume,
        quorum: Quorum = NO_WITNESSES,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._desk = Desk(
            database=database,
            vault=vault,
            catalogue=catalogue,
            subjects=subjects,
            audit=audit,
            policies=policies,
            volume=volume,
            quorum=quorum,
            now=now,
        )

    async def create(self, caller: Caller, command: Command, new: NewReferral) -> Done:
        """Accept a referral; see :func:`creation.create`."""
        return await creation.create(self._desk, caller, command, new)

    async def reply(self, caller: Caller, command: Command, reply: Reply) -> Done:
        """Take a recipient's report in a transaction of its own; see :func:`reports.reply`."""
        return await reports.reply(self._desk, caller, command, reply)

    async def apply(
        self,
        connection: AsyncConnection,
        institution: str,
        reply: Reply,
        *,
        actor: dict[str, Any],
        came: dict[str, Any],
    ) -> Done:
        """Take a recipient's report in the caller's transaction; see :func:`reports.apply`."""
        return await reports.apply(connection, self._desk, institution, reply, actor=actor, came=came)

    async def review(self, caller: Caller, command: Command, note: ReviewNote) -> Done:
        """Add a reviewer's note; see :func:`reports.review`."""
        return await reports.review(self._desk, caller, command, note)

    async def step(self, caller: Caller, command: Command, referral_id: UUID, step: Step) -> Done:
        """Take a step of the requester's; see :func:`steps.step`."""
        return await steps.step(self._desk, caller, command, referral_id, step)

    async def claim(self, caller: Caller, command: Command, referral_id: UUID, service: str) -> Done:
        """Claim an open referral; see :func:`claims.claim`."""
        return await claims.claim(self._desk, caller, command, referral_id, service)

    async def claimable(self, caller: Caller, *, after: UUID | None, limit: int) -> tuple[list[Claimable], Receipt]:
        """Return the open referrals that the caller's institution could claim; see :func:`claims.claimable`."""
        return await claims.claimable(self._desk, caller, after=after, limit=limit)

    async def split(self, caller: Caller, command: Command, referral_id: UUID, asked: NewParts) -> Done:
        """Split a referral into parts; see :func:`parts.split`."""
        return await parts.split(self._desk, caller, command, referral_id, asked)

    async def room(self, service: str, district: str | None) -> str:
        """Return whether a service can take one more; see :func:`reading.room`."""
        return await reading.room(self._desk, service, district)

    async def read(self, caller: Caller, referral_id: UUID) -> Shown:
        """Show a referral to one of its parties; see :func:`reading.read`."""
        return await reading.read(self._desk, caller, referral_id)

    async def listed(
        self, caller: Caller, *, sent: bool, states: Sequence[str], after: UUID | None, limit: int
    ) -> tuple[list[Line], Receipt]:
        """Return the referrals an institution sent or received; see :func:`reading.listed`."""
        return await reading.listed(self._desk, caller, sent=sent, states=states, after=after, limit=limit)
