"""What the three institutions that take referrals have in common: a case book, and one way to take a referral."""

from __future__ import annotations

from typing import Any

from adapters.simulator.behaviour import Step, plan
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

    def ledger(self) -> dict[str, Any]:
        """Return ``received`` (effects by referral) and ``answers`` (how many are pending, given, refused)."""
        return self.book.ledger()

    async def stop(self) -> None:
        """Close the case book."""
        self.book.close()
