"""Step 2 of the cycle: guidance for persons, referrals to institutions, and the classified gaps to the board."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

import gateway
from gateway.cli.demo.clients import Caller
from gateway.cli.demo.demand import DISTRICT, Families
from gateway.cli.demo.prepare import BOARD, MEMBER_OF_BOARD
from gateway.cli.demo.story import WHY, Story, gap, refer
from gateway.clock import local_day, utc_now
from gateway.referrals.states import TERMINAL
from gateway.referrals.tables import referral
from gateway.standards.fhir.service import FHIR_JSON

REFERRALS = 60
_TASK_DAYS = 3


@dataclass(frozen=True, slots=True)
class Gap:
    """A person to refer to a service that is not known to be reached."""

    person_id: UUID
    service: str
    institution: str


@dataclass(frozen=True, slots=True)
class Open:
    """The referrals of the families that any capable service may claim, by what becomes of them."""

    attended: str
    linked: str
    split: str


async def guide(caller: Caller, families: Families, story: Story) -> None:
    """Ask which services there are: for a description of nobody, and for a person who has no cédula."""
    described = {"age": 34, "marks": ["pregnant", "poverty"], "needs": ["food-security"]}
    told = await caller.done("/api/v1/guidance", {"description": described, "district": DISTRICT})
    story.orientation["described"] = len(told["services"])
    subject = {"system": "local", "value": families.newborn}
    told = await caller.done("/api/v1/guidance", {"subject": subject, **WHY})
    story.orientation["personal"] = len(told["services"])


async def choose(connection: AsyncConnection, gaps: list[Gap]) -> list[Gap]:
    """Choose sixty gaps without an open referral, over all institutions and services; some are left for another day."""
    query = select(referral.c.person_id, referral.c.service).where(referral.c.state.not_in(TERMINAL))
    waiting = {(row.person_id, row.service) for row in await connection.execute(query)}
    queues: dict[str, list[Gap]] = defaultdict(list)
    for each in gaps:
        if (each.person_id, each.service) not in waiting:
            queues[each.institution].append(each)
    chosen = [each for queue in queues.values() for each in queue[: min((len(queue) + 1) // 2, REFERRALS // 3)]]
    rest = [each for queue in queues.values() if len(queue) > REFERRALS for each in queue[REFERRALS // 3 :]]
    return chosen + rest[: REFERRALS - len(chosen)]


async def refer_gaps(caller: Caller, gaps: list[Gap], story: Story, progress: Callable[[], None]) -> None:
    """Send one referral per gap, eight at a time."""
    limit = asyncio.Semaphore(8)

    async def send(each: Gap) -> None:
        async with limit:
            body, key = gap(each.person_id, each.service)
            answer = await caller.post("/api/v1/referrals", body, key=key)
        if answer.status_code == 201:
            story.acknowledged[UUID(answer.json()["id"])] = each.institution
        else:
            story.refused += 1
        progress()

    await asyncio.gather(*(send(each) for each in gaps))


async def open_to_all(caller: Caller, families: Families, story: Story) -> Open:
    """Refer three persons without choosing a recipient: any of the services named may claim them."""
    asked = (
        (("siis", families.grandmother), ["health-control", "universal-pension"]),
        (("siis", families.mother), ["prenatal-control"]),
        (("local", families.newborn), ["growth-control", "vaccination"]),
    )
    made = [await refer(caller, who, story, open=True, services=services) for who, services in asked]
    story.by_hand.update(UUID(each) for each in made)
    story.orientation["open"] = len(made)
    return Open(*made)


async def priority_track(calling: dict[str, Caller], families: Families, story: Story) -> None:
    """Refer a household by the priority track, and let the board of its place see it, and open a case of both."""
    asked = ((families.child, "abrazo"), (families.mother, "tekopora"))
    first, second = [
        await refer(calling["demo-utgs"], ("siis", who), story, service=service, priority="priority_track")
        for who, service in asked
    ]
    story.orientation["priority_track"] = len(asked)
    system, member = calling["demo-mds-tekopora"], MEMBER_OF_BOARD
    seen = await system.read(f"/api/v1/boards/{BOARD}/referrals?limit=200", operator=member)
    story.orientation["board_copies"] = len({row["id"] for row in seen["referrals"]} & {first, second})
    gaps = (await system.read(f"/api/v1/boards/{BOARD}/gaps", operator=member))["gaps"]
    # What is too few to be told is None, and left out.
    story.orientation["board_gaps"] = sum((row["lacking"] or 0) + (row["unknown"] or 0) for row in gaps)
    opened = await system.done("/api/v1/cases", {"referral": first}, operator=member)
    visit = {"institution": "MINNA", "due_on": (local_day(utc_now()) + timedelta(days=_TASK_DAYS)).isoformat()}
    for step in (
        {"step": "add_referral", "referral": second},
        {"step": "add_task", "text": "Visitar a la familia en su casa", **visit},
        {"step": "add_barrier", "barrier": "distance", "referral": first},
    ):
        await system.done(f"/api/v1/cases/{opened['id']}/steps", step, operator=member)
    story.orientation["cases"] = 1


async def report(calling: dict[str, Caller], story: Story) -> None:
    """Let each institution fetch the nominal report of the referrals to its own services, of today."""
    today = local_day(utc_now()).isoformat()
    for client in ("demo-mds-tekopora", "demo-mspbs-usf", "demo-minna"):
        told = await calling[client].read(f"/api/v1/reports/referrals?since={today}&limit=200")
        story.orientation["reported"] += len(told["referrals"])


async def send_messages(caller: Caller, folder: Path, story: Story) -> None:
    """Send the ministry of health's messages as they are, in the order of the process."""
    for name in ("Inicio", "Referencia", "Revisar"):
        body = (folder / f"Bundle-EjemploBundle{name}.json").read_bytes()
        answer = await caller.post("/api/v1/referrals", body, media_type=FHIR_JSON)
        answer.raise_for_status()
        story.acknowledged[UUID(answer.json()["id"])] = "MSPBS"
        story.fhir += 1


def message_folder() -> Path | None:
    """Return the folder of the Chilean messages, from ``SIIS_SAMPLES`` or beside the checkout, or None."""
    beside = Path(gateway.__file__).resolve().parents[2] / "shared" / "samples"
    samples = Path(os.environ.get("SIIS_SAMPLES", beside))
    folder = samples / "referral" / "cl-minsal-tei"
    return folder if folder.is_dir() else None
