"""Decides who may read who used a person's data, and what of it stays hidden from whom; every reading is an entry.

A person's token may be in other hands, and who acts for somebody may be whom they need protection from: so acts that
would tell of a protection, or of the way to a refuge, are left out, and the answer looks as if there were none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.keys import Epochs
from audit.service import AuditLog
from audit.usage import Use, first_at, uses_of, uses_of_type
from consent import people
from consent.decision import REVIEW_WITHIN
from consent.models import Caller
from gateway import errors, evidence
from gateway.governance.emergencies import DELAYING_REASONS
from gateway.governance.people import PROTECT, Desk, Named
from gateway.governance.service import Governance
from gateway.governance.usage_words import Row, is_own, labels_of, labels_of_fields, row_of
from gateway.registry.merging import same_persons
from gateway.registry.models import PersonRef
from gateway.vault import Vault
from schemas.text import _

OWN, SHOW = "own.usage", "usage.show"
INTENT = "disclosure.intent"
_REVIEWED = "breakglass.reviewed"
_REGISTERS, _MOST_REGISTERS = "register.taken", 50
# Fields of these labels, and emergencies for these reasons, tell of violence or of a child in danger.
_GUARDED_LABELS = frozenset({"violence", "child-protection"})
_PROTECTING = frozenset({people.SEALED, people.COURT_ORDER, people.AGGRESSOR})
# A review names its emergency alone: what that was about stands here.
_GLASSES = text("SELECT id, reason, dataset, fields FROM consent.break_glass WHERE subject = ANY(:subjects)")
# Much longer than a producer has to answer: what came of an intent is looked for so long after it.
_ANSWERED_WITHIN = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which part is asked for: from ``since`` (included) to ``until`` (excluded), from behind the entry ``after``.

    ``face`` names the protocol for the log. ``whole`` asks for what is hidden from others too, which only who keeps
    protected cases may. ``skip`` and ``counted`` are for protocols that page by numbers: everything is read then.
    """

    limit: int
    since: datetime | None = None
    until: datetime | None = None
    after: UUID | None = None
    face: str = "api"
    whole: bool = False
    skip: int = 0
    counted: bool = False
    wanted: Callable[[Row], bool] = field(default=lambda _row: True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is shown: lines, newest first; ``next`` is what to ask ``after``, ``None`` at the end.

    ``registers`` are whole registers that passed in the period, with the first page only. ``total`` counts what there
    is to show, where that was asked.
    """

    person: UUID
    rows: list[Row]
    next: UUID | None
    registers: list[Row]
    total: int
    receipt: dict[str, str]


class _Reader(NamedTuple):
    """For whom it is shown: the person concerned, the person who looks, and whether that one acts for the other."""

    who: PersonRef
    person: UUID
    represents: bool


class Usage(Desk):
    """The readings of who used a person's data; ``caller`` as in :class:`Desk`."""

    def __init__(self, governance: Governance, vault: Vault, *, audit: AuditLog, epochs: Epochs) -> None:
        super().__init__(governance, vault)
        self._audit, self._epochs = audit, epochs

    async def read(
        self, caller: Caller | None, named: Named | None, asked: Asked, *, representative: Named | None = None
    ) -> Page:
        """Show who used a person's data, to the person, to who acts for them, or to who attends them.

        ``representative`` is whom an attendant has before them in the person's place. Raises BadRequest, Denied, and
        NotFound alike for somebody unknown, closed to the caller, and whom the reader does not act for.
        """
        closed: list[UUID | None] = []
        if asked.whole and caller is not None:
            await self.governance.authorise(caller, PROTECT)

        async def read(connection: AsyncConnection, at: datetime) -> tuple[UUID | None, dict[str, Any], Any]:
            who = await self.find(connection, named, caller)
            try:
                reader = await self._reader(connection, caller, who, representative, at)
            except errors.NotFound:
                closed.append(None if who is None else who.id)
                raise
            page, hidden = await self._page(connection, reader, asked, at)
            said = {
                "rows": len(page["rows"]),
                "hidden": dict(sorted(hidden.items())),
                "since": None if asked.since is None else asked.since.isoformat(),
                "until": None if asked.until is None else asked.until.isoformat(),
                "after": None if asked.after is None else str(asked.after),
                "face": asked.face,
                "whole": asked.whole,
                "represented": reader.represents,
            }
            return reader.who.id, said, page

        action = OWN if caller is not None and caller.person is not None else SHOW
        try:
            looked = await self.look(caller, action, "usage.read", read)
        except errors.NotFound:
            raise await self._closed(caller, closed[0] if closed else None) from None
        return Page(**looked.shown, receipt=looked.receipt)

    async def since_when(self) -> datetime:
        """Return since when there are entries; now, where there are none."""
        async with self.governance.database.connection() as connection:
            return await first_at(connection) or self.governance.now()

    async def _reader(
        self,
        connection: AsyncConnection,
        caller: Caller | None,
        who: PersonRef | None,
        representative: Named | None,
        at: datetime,
    ) -> _Reader:
        in_person = caller is not None and caller.person is not None
        if in_person and representative is not None:
            detail = _("Quien viene con su propia identificación no nombra a otro representante.")
            raise errors.BadRequest("invalid-record", pointer="/representative", detail=detail)
        mandate = await self._permit(connection, caller, who, at)
        if representative is not None:
            mandate = await self._acting(connection, who, representative, at)
        if who is None:
            raise errors.NotFound("not-found")
        if mandate is not None:
            return _Reader(who, mandate.representative, represents=True)
        return _Reader(who, who.id, represents=False)

    async def _acting(
        self, connection: AsyncConnection, who: PersonRef | None, named: Named, at: datetime
    ) -> people.Mandate | None:
        """Return the mandate of whom an attendant has before them, ``None`` if it is the person; raises NotFound."""
        other = await self.find(connection, named, None, pointer="/representative")
        if who is None or other is None:
            raise errors.NotFound("not-found")
        if other.id == who.id:
            return None
        mandate = await people.mandate_between(connection, who.id, other.id, birth_date=who.birth_date, at=at)
        if mandate is None or await people.is_sealed(connection, who.id):
            raise errors.NotFound("not-found")
        return mandate

    async def _page(
        self, connection: AsyncConnection, reader: _Reader, asked: Asked, at: datetime
    ) -> tuple[dict[str, Any], Counter[str]]:
        flags = await people.flags_of(connection, reader.who.id)
        protected = min((flag.since for flag in flags if flag.kind in _PROTECTING), default=None)
        same = await same_persons(connection, reader.who.id)
        glasses = await _guarded_glasses(connection, same)
        rows: list[Row] = []
        hidden: Counter[str] = Counter()
        answered: set[str] = set()
        total = 0
        uses = uses_of(
            connection,
            self._epochs,
            same,
            before=None if asked.after is None else _a_while_after(asked.after),
            since=asked.since,
            until=None if asked.until is None else asked.until + _ANSWERED_WITHIN,
        )
        async with aclosing(uses):
            async for use in uses:
                answered.update(_answers(use))
                if not _within(use, asked) or (use.type == INTENT and str(use.entry_id) in answered):
                    continue
                rule = _hiding(use, reader, protected, at, glasses)
                if rule is not None and not asked.whole:
                    hidden[rule] += 1
                    continue
                row = row_of(use, reader.person, rule)
                if not asked.wanted(row):
                    continue
                total += 1
                if asked.skip < total <= asked.skip + asked.limit:
                    rows.append(row)
                elif total > asked.skip and not asked.counted:
                    break
        more = total > asked.skip + asked.limit
        page = {
            "person": reader.who.id,
            "rows": rows,
            "next": rows[-1].use.entry_id if more and rows else None,
            "registers": [] if asked.after is not None else await self._registers(connection, reader, asked),
            "total": total,
        }
        return page, hidden

    async def _registers(self, connection: AsyncConnection, reader: _Reader, asked: Asked) -> list[Row]:
        period = {"since": asked.since, "until": asked.until}
        found = await uses_of_type(connection, self._epochs, _REGISTERS, **period, limit=_MOST_REGISTERS)
        return [row_of(use, reader.person, None) for use in found]

    async def _closed(self, caller: Caller | None, subject: UUID | None) -> errors.NotFound:
        """Put on record that somebody was shown nothing, and return what they are told."""
        machine = {"channel": "command-line", "user": f"uid:{os.getuid()}"}
        entry = evidence.entry(
            "usage.denied",
            "deny",
            at=self.governance.now(),
            policy_version="none",
            subject=subject,
            actor=machine if caller is None else evidence.actor(caller),
            decision={"reasons": ["unknown-subject" if subject is None else "no-mandate"]},
        )
        return errors.NotFound("not-found", receipt=await self._audit.append(entry))


def _hiding(use: Use, reader: _Reader, protected: datetime | None, at: datetime, glasses: frozenset[str]) -> str | None:
    """Return the rule that hides an entry, or ``None``: what a person did themselves they know."""
    if is_own(use, reader.person):
        return None
    if use.type.startswith("protection."):
        return "protection"
    guarded = _is_guarded(use) or (use.type == _REVIEWED and use.groups.get("what", {}).get("id") in glasses)
    # The days before too: the way to a refuge begins before the protection is recorded.
    if protected is not None and (guarded or use.at >= protected - REVIEW_WITHIN):
        return "protected"
    if guarded and reader.represents:
        return "representative"
    return "delayed" if guarded and use.at + REVIEW_WITHIN > at else None


async def _guarded_glasses(connection: AsyncConnection, same: list[UUID]) -> frozenset[str]:
    """Return the emergencies about a person that tell of violence or of a child in danger."""
    found = await connection.execute(_GLASSES, {"subjects": same})
    return frozenset(
        str(row.id)
        for row in found
        if row.reason in DELAYING_REASONS or not _GUARDED_LABELS.isdisjoint(labels_of_fields(row.dataset, row.fields))
    )


def _is_guarded(use: Use) -> bool:
    emergency = use.groups.get("why", {}).get("emergency") or {}
    return emergency.get("reason") in DELAYING_REASONS or not _GUARDED_LABELS.isdisjoint(labels_of(use))


def _within(use: Use, asked: Asked) -> bool:
    before = asked.after is None or use.entry_id < asked.after
    return before and (asked.until is None or use.at < asked.until)


def _answers(use: Use) -> list[str]:
    """Return the intent that this entry says the outcome of."""
    intent = use.groups.get("exchange", {}).get("intent")
    return [intent] if isinstance(intent, str) else []


def _a_while_after(entry_id: UUID) -> UUID:
    """Return an id of the time until which an intent just before this entry was answered (RFC 9562 clause 5.7)."""
    milliseconds = (entry_id.int >> 80) + int(_ANSWERED_WITHIN.total_seconds() * 1000)
    return UUID(int=min(milliseconds, (1 << 48) - 1) << 80)
