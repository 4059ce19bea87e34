"""Step 1 of the cycle: demand is collected with a full form, a simplified one, and the priorities of a community."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from gateway.cli.demo.clients import Caller
from gateway.cli.demo.story import Story
from gateway.clock import local_day, utc_now
from schemas.ids import uuid7

# The board of the demonstration is that of this department.
DEPARTMENT, DISTRICT = "11", "1116"
_PLACE = {"department": DEPARTMENT, "district": DISTRICT, "locality": "Ñu Porã"}
_YEAR = timedelta(days=365.25)


@dataclass(frozen=True, slots=True)
class Families:
    """Who was met: an expecting mother with two working children and their grandmother (our ids); a newborn, by the
    local number it got.
    """

    mother: str
    child: str
    adolescent: str
    grandmother: str
    newborn: str


async def collect(calling: dict[str, Caller], story: Story) -> Families:
    """Send the three forms, each by the system of the institution that fills it in; raises httpx.HTTPStatusError."""
    today = local_day(utc_now())
    full = await _send(calling["demo-mds-tekopora"], _full(today), today, story)
    simplified = await _send(calling["demo-mspbs-usf"], _simplified(today), today, story)
    await _send(calling["demo-utgs-territorio"], _community(), today, story)
    mother, child, adolescent, grandmother = (person["id"] for person in full["persons"])
    return Families(mother, child, adolescent, grandmother, simplified["persons"][1]["local_id"])


async def _send(caller: Caller, form: dict[str, Any], today: date, story: Story) -> dict[str, Any]:
    heading = {"number": f"DEMO-{uuid7()}", "observed_on": today.isoformat(), "place": _PLACE}
    told = await caller.done("/api/v1/forms", heading | form)
    story.demand[form["kind"]] += 1
    story.demand["persons"] += told["registered"]
    story.demand["without_cedula"] += sum("local_id" in person for person in told["persons"])
    return told


def _full(today: date) -> dict[str, Any]:
    return {
        "kind": "full",
        "household": {"characteristics": {"poverty": True}, "services": {"tekopora": False}},
        "members": [
            _member("Ramona", 34, "F", today, relation="head", characteristics={"pregnant": True}),
            _member("Luz María", 9, "F", today, relation="child", characteristics={"child-labour": True}),
            _member("Teodoro", 14, "M", today, relation="child", characteristics={"child-labour": True}),
            _member("Eulogia", 71, "F", today, relation="parent", services={"health-control": False}),
        ],
    }


def _simplified(today: date) -> dict[str, Any]:
    newborn = _member("Ña'ẽmi", 0, "F", today, relation="child")
    del newborn["identifier"]
    return {"kind": "simplified", "members": [_member("Celso", 27, "M", today, relation="head"), newborn]}


def _community() -> dict[str, Any]:
    return {"kind": "community", "priorities": ["safe-water", "electricity"], "services": {"safe-water": False}}


def _member(names: str, age: int, sex: str, today: date, **more: Any) -> dict[str, Any]:
    """Return a member who exists nowhere else: each run of the demonstration meets another family."""
    return {
        "identifier": {"system": "cedula", "value": f"98{secrets.randbelow(10**6):06d}"},
        "given_names": names,
        "surnames": "Demostración",
        "birth_date": (today - age * _YEAR - timedelta(days=60)).isoformat(),
        "sex": sex,
        **more,
    }
