"""Steps 3 to 5 of the cycle where people do them: a service claims what is open, and answers by system or by link.

The other institutions of the demonstration are programs of their own; here they are only made to misbehave.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
from lxml import etree

from gateway.cli.demo.clients import Caller, Operator, patiently
from gateway.cli.demo.orientation import Open
from gateway.cli.demo.processes import Institution
from gateway.cli.demo.story import WHY, Story, part
from gateway.clock import PARAGUAY, local_day, utc_now
from schemas.ids import parse_uuid, uuid7

_TROUBLE_S = 2.0
_SUPERVISOR = Operator("jefa", "supervisor")
_PLACE, _PROOF = "USF Ñu Porã", "acta 12"


async def trouble(http: httpx.AsyncClient, institutions: dict[str, Institution]) -> None:
    """Let two institutions misbehave for a while: one is down and cuts answers, the other drops connections."""
    await switch(http, institutions["mds"], {"fail_503": -1})
    await switch(http, institutions["minna"], {"reset": 3})
    await switch(http, institutions["mspbs"], {"duplicate": 2})
    await asyncio.sleep(_TROUBLE_S)
    await switch(http, institutions["mds"], {"fail_503": 0, "after_effect_reset": 2})


async def switch(http: httpx.AsyncClient, institution: Institution, values: dict[str, float]) -> None:
    """Set switches of a simulated institution."""
    answer = await http.post(f"{institution.control}/_control/switches", json=values)
    answer.raise_for_status()


async def attend(http: httpx.AsyncClient, caller: Caller, opened: Open, story: Story) -> None:
    """Claim the open referrals for services of one institution, which attends each in another way."""
    waiting = await caller.read("/api/v1/referrals/open?limit=200")
    story.outreach["claimable"] = len(waiting["referrals"])
    claims = (
        (opened.attended, "health-control"),
        (opened.linked, "prenatal-control"),
        (opened.split, "growth-control"),
    )
    for referral_id, service in claims:
        await caller.done(f"/api/v1/referrals/{referral_id}/claim", {"service": service})
        story.outreach["claimed"] += 1
    await asyncio.gather(
        _by_system(caller, opened.attended),
        _by_link(http, caller, opened.linked, story),
        _in_parts(caller, opened.split, story),
    )


async def _by_system(caller: Caller, referral_id: str) -> None:
    """Report as the institution's own system does: an appointment nobody came to, another one, and the service."""
    today = local_day(utc_now())
    first, second = (
        {"appointment": {"at": f"{today + timedelta(days=days)}T08:30:00-03:00", "place": _PLACE}} for days in (1, 5)
    )
    given = {"outcome": "provided", "place": _PLACE, "proof_reference": _PROOF}
    for event, more in (("schedule", first), ("no_show", {}), ("reschedule", second), ("outcome", given)):
        body = {"event": event, "message_id": str(uuid7()), "occurred_on": today.isoformat(), **more}
        await caller.done(f"/api/v1/referrals/{referral_id}/counter-referrals", body)


async def _by_link(http: httpx.AsyncClient, caller: Caller, referral_id: str, story: Story) -> None:
    """Let an office without a system answer on the page of a signed link, with the PIN told by its supervisor."""
    made = await caller.done(f"/api/v1/referrals/{referral_id}/links", {}, operator=_SUPERVISOR)
    page = await _page(http, made["url"], {"paso": "abrir", "pin": made["pin"]})
    appointment = f"{utc_now().astimezone(PARAGUAY) + timedelta(days=1):%Y-%m-%dT%H:%M}"
    await _page(http, made["url"], _filled(page, "schedule") | {"cita": appointment, "lugar": _PLACE})
    page = await _page(http, made["url"], {"paso": "abrir", "pin": made["pin"]})
    answer = {"resultado": "provided", "lugar": _PLACE, "comprobante": _PROOF}
    await _page(http, made["url"], _filled(page, "outcome") | answer)
    story.outreach["linked"] = 1


async def _page(http: httpx.AsyncClient, url: str, form: dict[str, str]) -> str:
    async def send() -> httpx.Response:
        return await http.post(url, data=form)

    answer = await patiently(send)
    answer.raise_for_status()
    return answer.text


def _filled(page: str, act: str) -> dict[str, str]:
    """Return the fields of one form of a page as a browser would send them."""
    forms = etree.HTML(page).iterfind(".//form")
    [found] = [form for form in forms if form.find(f".//input[@name='acto'][@value='{act}']") is not None]
    return {str(field.get("name")): str(field.get("value", "")) for field in found.iterfind(".//input")}


async def _in_parts(caller: Caller, referral_id: str, story: Story) -> None:
    """Split a referral over two institutions; the last of its parts that is closed completes it."""
    parts: list[dict[str, Any]] = [part("specialised-consultation"), part("tekopora")]
    told = await caller.done(f"/api/v1/referrals/{referral_id}/parts", {"parts": parts, **WHY})
    for each in told["parts"]:
        story.acknowledged[parse_uuid(each["id"])] = each["recipient"]
    story.outreach["parts"] = len(told["parts"])
