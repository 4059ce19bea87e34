"""Nominal reports of referrals: each institution gets those to its own services, or those it sent, and nobody else's.

Of a person a report shows what a decision releases now to the recipient, by the rule that the referral is sent by;
every person in it has an entry of their own in the log, committed before anything is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from audit.models import Entry, Receipt
from audit.service import AuditLog
from consent.models import Caller
from consent.policy import PolicyStore
from gateway import evidence
from gateway.governance.service import Governance
from gateway.referrals.nominal import Filter, Listed, listed, row_json
from gateway.referrals.releases import Release, refuse_while_stopped, releases
from gateway.referrals.tables import referral
from gateway.vault import Vault
from gateway.witnesses.quorum import NO_WITNESSES, Quorum
from schemas.ids import uuid7

REPORT = "referral.report"
#: Rows of one report: a page, and a file to keep.
MOST_ROWS = 5000
_BATCH = 500

Side = Literal["received", "sent"]


@dataclass(frozen=True, slots=True)
class Report:
    """Rows as JSON has them; ``next`` is what to ask ``after``, ``None`` when there is no more for now."""

    rows: list[dict[str, Any]]
    next: UUID | None
    receipt: Receipt


class Reports:
    """Makes nominal reports of referrals."""

    def __init__(
        self,
        *,
        governance: Governance,
        vault: Vault,
        audit: AuditLog,
        policies: PolicyStore,
        quorum: Quorum = NO_WITNESSES,
    ) -> None:
        self._governance, self._vault, self._audit = governance, vault, audit
        self._policies, self._quorum = policies, quorum

    async def referrals(self, caller: Caller, side: Side, asked: Filter, *, form: str) -> Report:
        """Return the referrals to (``received``) or from (``sent``) the caller's institution; ``form`` is for the log.

        Raises Denied, and EvidenceStopped while the witnesses of the log are missing.
        """
        await self._governance.authorise(caller, REPORT)
        return await self.of_institution(caller.institution, evidence.actor(caller), side, asked, form=form)

    async def of_institution(
        self, institution: str, actor: dict[str, Any], side: Side, asked: Filter, *, form: str
    ) -> Report:
        """Make a report for an institution, asked for by ``actor`` (the group of an entry that says who acts)."""
        at, policy, report = self._governance.now(), self._policies.current, uuid7()
        await refuse_while_stopped(
            self._audit, self._quorum, "report.stopped", actor=actor, version=policy.version, at=at
        )
        column = referral.c.recipient if side == "received" else referral.c.requester
        rows: list[dict[str, Any]] = []
        last, left, more = asked.after, asked.limit, True
        while left and more:
            part = replace(asked, limit=min(_BATCH, left), after=last)
            async with self._governance.database.connection() as connection:
                found = await listed(connection, column == institution, part, at)
                shown = None
                if side == "received":
                    currents = [item.current for item in found]
                    shown = await releases(connection, self._vault, policy, currents, at)
            made, entries = _part(found, shown, actor, str(report), at)
            # Before anything of them is shown.
            await self._audit.append_many(entries)
            rows += made
            more, left = len(found) == part.limit, left - len(found)
            last = found[-1].current.id if found else last
        receipt = await self._audit.append(
            evidence.entry(
                "report.made",
                "done",
                at=at,
                policy_version=policy.version,
                actor=actor,
                what={"report": str(report), "side": side, "form": form, "rows": len(rows), **asked.said()},
            )
        )
        return Report(rows, last if more else None, receipt)


def _part(
    found: list[Listed], shown: list[Release] | None, actor: dict[str, Any], report: str, at: datetime
) -> tuple[list[dict[str, Any]], list[Entry]]:
    """Return the rows of a part of a report, and the entry of each person in it; ``shown`` to a recipient alone."""
    if shown is None:
        return [_sent(item, at) for item in found], [_listed(item, actor, report, at) for item in found]
    rows = []
    for item, release in zip(found, shown, strict=True):
        # What was never sent, and may not be, its recipient does not learn of here.
        if release.person is not None or item.current.delivery == "transmitted":
            text = None if release.person is None else release.reason_text or None
            rows.append({**row_json(item, at), "person": release.person, "reason_text": text})
    return rows, [_entry(each, actor, report) for each in shown]


def _entry(release: Release, actor: dict[str, Any], report: str) -> Entry:
    return release.entry(
        "report.withheld" if release.person is None else "report.released", actor=actor, exchange={"report": report}
    )


def _sent(item: Listed, at: datetime) -> dict[str, Any]:
    """Return the row of its requester, who knows the referral by a number of its own."""
    current = item.current
    number = None if current.foreign_value is None else f"{current.foreign_system}:{current.foreign_value}"
    return {**row_json(item, at), "own_number": number}


def _listed(item: Listed, actor: dict[str, Any], report: str, at: datetime) -> Entry:
    return evidence.entry(
        "report.listed",
        "done",
        at=at,
        policy_version="none",
        subject=item.current.person_id,
        actor=actor,
        exchange={"referral": str(item.current.id), "report": report},
    )
