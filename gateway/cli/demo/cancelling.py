"""Two referrals are taken back in the demonstration: one before it was sent, one that its recipient has already."""

from __future__ import annotations

import asyncio
import time

import httpx

from gateway.cli.demo.clients import Caller
from gateway.cli.demo.demand import Families
from gateway.cli.demo.outreach import switch
from gateway.cli.demo.processes import Institution
from gateway.cli.demo.story import Story, refer

# A worker that was killed is missed within a minute.
_PATIENCE_S = 90.0
_LONG_S = 600


async def take_back(
    http: httpx.AsyncClient,
    calling: dict[str, Caller],
    institutions: dict[str, Institution],
    families: Families,
    story: Story,
) -> None:
    """Take both back; nobody else is referred meanwhile, since one institution is paused and one made slow."""
    await asyncio.gather(
        _before_it_is_sent(calling, families, story),
        _after_it_was_sent(http, calling["demo-utgs"], institutions["mspbs"], families, story),
    )


async def _before_it_is_sent(calling: dict[str, Caller], families: Families, story: Story) -> None:
    caller, manager = calling["demo-utgs"], calling["demo-utgs-territorio"]
    await _lane(manager, "pause")
    try:
        made = await refer(caller, ("siis", families.adolescent), story, service="abrazo")
        await _ask(caller, made, "sent-by-mistake")
        await _until(caller, made, "state", "cancelled")
    finally:
        await _lane(manager, "resume")
    story.orientation["cancelled_unsent"] = 1


async def _after_it_was_sent(
    http: httpx.AsyncClient, caller: Caller, recipient: Institution, families: Families, story: Story
) -> None:
    await switch(http, recipient, {"accept_after_s": _LONG_S, "outcome_after_s": _LONG_S})
    made = await refer(caller, ("siis", families.grandmother), story, service="specialised-consultation")
    await _until(caller, made, "delivery", "transmitted")
    await switch(http, recipient, {"accept_after_s": 0.3, "outcome_after_s": 1})
    await _ask(caller, made, "refused-by-person")
    story.orientation["cancelled_sent"] = 1


async def _ask(caller: Caller, referral_id: str, reason: str) -> None:
    step = {"step": "request_cancel", "reason": {"code": reason}}
    await caller.done(f"/api/v1/referrals/{referral_id}/steps", step)


async def _lane(manager: Caller, step: str) -> None:
    """Pause or resume delivery to MINNA; a run before may have been ended in between, or this is a repetition."""
    answer = await manager.post(f"/api/v1/delivery/lanes/MINNA/{step}", b"")
    if answer.status_code != httpx.codes.CONFLICT:
        answer.raise_for_status()


async def _until(caller: Caller, referral_id: str, field: str, value: str) -> None:
    """Wait until a referral is there, or for some time: what comes later is seen at the end."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if (await caller.read(f"/api/v1/referrals/{referral_id}"))[field] == value:
            return
        await asyncio.sleep(0.2)
