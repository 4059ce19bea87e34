"""Lists the receipts of an institution: proofs that exchanges it took part in are in the log, for who has no headers.

Of what an institution asked for only what it got is listed: a denial that must look like "not found" would show here.
"""

from __future__ import annotations

from typing import NamedTuple

from audit import receipts
from audit.receipts import Numbered, Wanted
from consent.models import Caller
from gateway.governance.service import Governance
from schemas.codes import code_list

READ = ("receipt.read", "audit.read")
#: What happened between two institutions, and both know of.
_EXCHANGED = frozenset(
    {
        "disclosure.released",
        "status.released",
        "referral.sending",
        "referral.transmitted",
        "referral.undelivered",
        "referral.claimed",
        "referral.step",
        "counterreferral.received",
        "register.intent",
        "register.taken",
        "register.refused",
    }
)
#: What the holder of the data knows of, because its own system was asked, and the one who asked may not learn of.
_ASKED = frozenset({"disclosure.intent", "disclosure.unanswered"})


class ReceiptPage(NamedTuple):
    """A page of receipts, and the receipt (as JSON has it) of the entry that says who looked at it."""

    items: list[Numbered]
    receipt: dict[str, str]


async def page(governance: Governance, caller: Caller, *, after: tuple[int, int], limit: int) -> ReceiptPage:
    """Return receipts of the caller's institution behind a place in the log; raises Denied. The look is an entry."""
    await governance.authorise(caller, *READ)
    mine = caller.institution
    held = [code for code, spec in code_list("datasets").items() if spec["holder"] == mine]
    async with governance.database.connection() as connection:
        items = await receipts.page(connection, mine, Wanted(_EXCHANGED, _ASKED, held), after=after, limit=limit)
    what = {"behind": list(after), "entries": len(items)}
    return ReceiptPage(items, await governance.note_reading(caller, "receipts.read", what))
