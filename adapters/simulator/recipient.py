"""What the three institutions that take referrals have in common: a case book, and one way to take a referral."""

from __future__ import annotations

from typing import Any

from adapters.simulator.behaviour import Step, answers_to, plan
from adapters.simulator.casebook import CaseBook
from adapters.simulator.settings import Office, Settings


class Recipient(Office):
    """An institution that takes referrals once each and answers them after a while."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.book = CaseBook(settings.state)

    def take(self, referral_id: str, steps: list[Step] | None = None) -> tuple[int, bool]:
        """Take a referral, committed when this returns; return its number here and whether it is new."""
        delays = (self.switches["accept_after_s"], self.switches["outcome_after_s"])
        planned = plan(self.name, self.settings.seed, referral_id) if steps is None else steps
        return self.book.take(referral_id, planned, delays)

    def note(self, notice_id: str, referral_id: str, kind: str) -> bool | None:
        """Take a notice about a referral, committed when this returns: whether it is new, None without the referral."""
        steps = answers_to(self.name, self.settings.seed, referral_id, notice_id, kind)
        return self.book.note(notice_id, referral_id, kind, steps, self.switches["accept_after_s"])

    def ledger(self) -> dict[str, Any]:
        """Return ``received`` and ``told`` (effects by referral and notice), ``answers`` (how many in which state)."""
        return self.book.ledger()

    async def stop(self) -> None:
        """Close the case book."""
        self.book.close()
