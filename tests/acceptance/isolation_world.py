"""One world of referrals for the tests of isolation: who is party to what, and all of it that others may not get.

The place's board, three institutions and the coordinator have to do with the same person; others have nothing to do
with any of it.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import httpx

from adapters.simulator.population import SimPerson
from consent import agreements
from gateway.boards.service import NewBoard, adding, seating
from gateway.cli.context import governance_of
from gateway.cli.demo.clients import Caller
from gateway.clock import local_day, utc_now
from schemas.codes import code_list
from schemas.ids import uuid7
from tests.acceptance.bad_input import DUTY, adults, newcomer, referring, replying, subject
from tests.acceptance.governed import appoint, call
from tests.house import House, until

REQUESTER, RECIPIENT, COORDINATOR, STRANGER, MEMBER = "MTESS", "MSPBS", "UTGS", "MEC", "MUVH"
#: Recipient of another referral of the same person, and of a part of the first one.
OTHER, PART = "MINMUJER", "SENADIS"
#: Their offices have no system, so nobody answers meanwhile.
SERVICE, OTHERS_SERVICE, PART_SERVICE = "early-stimulation", "shelter", "rehabilitation"
GRANTED = ("auditor", "data-protection-officer", "administrator", "board-member")
ROLES = ("system", "operator", "supervisor", "analyst", *GRANTED)
ABSENT = "99999998"


@dataclass
class World:
    """What was made: ids by kind, texts that were written, and who may know of them."""

    house: House
    person: SimPerson
    systems: dict[str, Caller]
    made: dict[str, str] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    async def ask(self, who: str, role: str, method: str, path: str, body: Any = None) -> httpx.Response:
        """Call a path in a role at an institution: an operator, or its system."""
        operator = None if role == "system" else f"isla-{who.lower()}-{role}"
        return await call(self.house, self.systems[who], method, path, body, operator=operator, role=role)

    async def make(self, kind: str, who: str, role: str, path: str, body: Any, *, named: str = "id") -> dict[str, Any]:
        """Create something and keep its id under a kind."""
        answer = await self.ask(who, role, "POST", path, body)
        assert answer.status_code == 201, (kind, answer.text)
        told: dict[str, Any] = answer.json()
        self.made[kind] = str(told[named])
        return told

    def secrets(self, *but: str) -> dict[str, str]:
        """Return what nobody without a part in it may read, by kind, without some kinds."""
        person = self.person
        names = {"cedula": str(person.cedula), "name": f"{person.given_names} {person.surnames}"}
        return {kind: value for kind, value in (self.made | names).items() if kind not in but}


def written(kind: str) -> str:
    """Return the text that somebody wrote in a place, which is found again wherever it stands."""
    return f"palabras-de-{kind}"


def content(answer: httpx.Response) -> str:
    """Return everything an answer holds as text, also what is packed in it."""
    if not answer.content.startswith(b"PK"):
        return answer.text + str(dict(answer.headers))
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        parts = [packed.read(name) for name in packed.namelist()]
    return " ".join(part.decode("utf-8", "replace") for part in parts)


def found(answer: httpx.Response, secrets: Mapping[str, str]) -> list[str]:
    """Return which secrets an answer tells."""
    text = content(answer)
    # Digits of a number may stand in an id by chance.
    return [kind for kind, value in secrets.items() if re.search(rf"(?<![0-9a-f]){re.escape(value)}(?![0-9a-f])", text)]


async def _agreed(house: House) -> None:
    known = {each.code: each for each in agreements.demonstration_agreements()}["DEMO-UTGS-MSPBS-REFERRAL"]
    fields = known.datasets["service:health-control"]
    routes = (
        (REQUESTER, RECIPIENT, SERVICE),
        (REQUESTER, OTHER, OTHERS_SERVICE),
        (COORDINATOR, OTHER, OTHERS_SERVICE),
        (RECIPIENT, PART, PART_SERVICE),
    )
    async with house.context() as context, context.database.transaction() as connection:
        for requester, holder, service in routes:
            new = replace(
                known,
                code=f"ISLA-{uuid7()}",
                requester=requester,
                holder=holder,
                datasets={f"service:{service}": fields},
                labels=known.labels,
            )
            await agreements.put_agreement(connection, new, at=utc_now())


async def build_world(house: House) -> World:
    """Make the world; every kind of thing in it that has an id is in ``made``."""
    person = next(each for each in adults(house)[-75:-61] if each.district)
    systems = {}
    for name in (REQUESTER, RECIPIENT, OTHER, PART, COORDINATOR, STRANGER, MEMBER):
        # A portal shows anybody's usage to who identified them: that scope is for no institution's own system.
        systems[name] = await newcomer(house, name, *(code_list("scopes").keys() - {"usage.portal"}))
        for role in GRANTED:
            await appoint(house, name, f"isla-{name.lower()}-{role}", role)
    world = World(house, person, systems)
    await _agreed(house)
    await _board(world)
    for name in (RECIPIENT, STRANGER, OTHER, PART, REQUESTER):
        pulled = await world.ask(name, "system", "POST", "subscriptions", {"channel": "pull"})
        assert pulled.status_code == 201, pulled.text
        world.urls[f"subscription-{name}"] = pulled.json()["subscription"]
    world.made["subscription"] = world.urls[f"subscription-{RECIPIENT}"]

    async def agreed() -> bool:
        body = _reason(referring(person, SERVICE, priority="priority_track"), "referral")
        answer = await world.ask(REQUESTER, "operator", "POST", "referrals", body)
        if answer.status_code == 201:
            world.made["referral"] = answer.json()["id"]
        return answer.status_code == 201

    await until(agreed)
    await _referrals(world)
    await _around(world)
    return world


def _reason(body: dict[str, Any], kind: str) -> dict[str, Any]:
    world_text = {"code": "protection-gap", "text": written(kind)}
    return {**body, "reason": world_text}


async def _board(world: World) -> None:
    person = world.person
    assert person.department is not None
    code = f"mesa-{uuid7().hex[-8:]}"
    place = {"department": person.department, "district": person.district}
    new = NewBoard(code=code, names={"es": "Mesa", "en": "Board"}, institution=MEMBER, **place)
    elsewhere = NewBoard(
        code=f"otra-{uuid7().hex[-8:]}",
        names={"es": "Otra", "en": "Other"},
        department="17",
        district=None,
        institution=STRANGER,
    )
    async with world.house.context() as context:
        governance = governance_of(context)
        await governance.change_here(adding(new))
        await governance.change_here(adding(elsewhere))
        await governance.change_here(seating(code, MEMBER, f"isla-{MEMBER.lower()}-board-member"))
        await governance.change_here(seating(elsewhere.code, STRANGER, f"isla-{STRANGER.lower()}-board-member"))
    world.made["board"] = code
    world.urls["elsewhere"] = elsewhere.code

    async def seated() -> bool:
        seen = await world.ask(MEMBER, "board-member", "GET", f"boards/{code}/referrals")
        strange = await world.ask(STRANGER, "board-member", "GET", f"boards/{elsewhere.code}/referrals")
        return seen.status_code == strange.status_code == 200

    await until(seated)


async def _referrals(world: World) -> None:
    person, main = world.person, world.made["referral"]
    body = _reason(referring(person, OTHERS_SERVICE, priority="priority_track"), "other")
    await world.make("other", COORDINATOR, "operator", "referrals", body)
    split = {"parts": [{"service": PART_SERVICE, "reason": {"code": "protection-gap"}}], **DUTY}
    accept = replying("accept", str(uuid7()))
    answer = await world.ask(RECIPIENT, "operator", "POST", f"referrals/{main}/counter-referrals", accept)
    assert answer.status_code == 201, answer.text
    answer = await world.ask(RECIPIENT, "operator", "POST", f"referrals/{main}/parts", split)
    assert answer.status_code == 201, answer.text
    world.made["part"] = answer.json()["parts"][0]["id"]
    body = {**referring(person), "open": True, "services": [SERVICE, OTHERS_SERVICE], "additional": True}
    del body["service"]
    await world.make("claimed", REQUESTER, "operator", "referrals", _reason(body, "claimed"))
    candidates = await world.ask(OTHER, "operator", "GET", "referrals/open?limit=200")
    assert found(candidates, world.secrets()) == ["claimed"]
    claim = {"service": SERVICE}
    taken = await world.ask(RECIPIENT, "operator", "POST", f"referrals/{world.made['claimed']}/claim", claim)
    assert taken.status_code == 201, taken.text


async def _around(world: World) -> None:
    main = world.made["referral"]
    opened = {"referral": main, "text": written("case")}
    await world.make("case", RECIPIENT, "operator", "cases", opened)
    here = f"cases/{world.made['case']}/steps"
    due = (local_day(utc_now()) + timedelta(days=3)).isoformat()
    for kind, step in (
        ("referral", {"step": "add_referral", "referral": world.made["other"]}),
        ("task", {"step": "add_task", "text": written("task"), "institution": OTHER, "due_on": due}),
        ("barrier", {"step": "add_barrier", "barrier": "distance", "referral": world.made["other"]}),
        ("note", {"step": "note", "text": written("note")}),
    ):
        answer = await world.ask(MEMBER, "board-member", "POST", here, step)
        assert answer.status_code == 201, answer.text
        if kind in answer.json() and kind != "referral":
            world.made[kind] = answer.json()[kind]
    link = await world.ask(RECIPIENT, "supervisor", "POST", f"referrals/{main}/links", {})
    assert link.status_code == 201, link.text
    world.made["link"] = link.json()["id"]
    world.urls["link"] = link.json()["url"]
    new = {"referral": main, "text": written("thread")}
    await world.make("thread", RECIPIENT, "operator", "guidance/threads", new, named="thread")
    snapshot = {"kind": "baseline", "scope": {"service": SERVICE}}
    await world.make("snapshot", RECIPIENT, "supervisor", "statistics/snapshots", snapshot)
    step = {"step": "note", "note": written("step")}
    answer = await world.ask(REQUESTER, "operator", "POST", f"referrals/{main}/steps", step)
    assert answer.status_code == 201, answer.text
    events = (await world.ask(RECIPIENT, "operator", "GET", f"referrals/{main}/events")).json()["events"]
    world.made["entry"] = next(each["entry_id"] for each in events if each["entry_id"])
    asked = {"right": "access", "subject": subject(str(world.person.cedula))}
    await world.make("request", RECIPIENT, "operator", "rights-requests", asked, named="request")
    world.made |= {f"text of {kind}": written(kind) for kind in _TEXTS}


_TEXTS = ("referral", "other", "claimed", "case", "task", "note", "thread", "step")
