"""What institutions ask of persons in the demonstration: answered whole, in part, or denied for each kind of reason."""

from __future__ import annotations

import asyncio

import httpx

from gateway.cli.demo.clients import Caller
from gateway.cli.demo.story import Story


async def ask(callers: dict[str, Caller], people: tuple[list[str], str, str, str], story: Story) -> None:
    """Ask for forty disclosures: some whole, some with fields withheld, some denied for each kind of reason."""
    ordinary, agreed, withdrew, protected = people
    duty, consent = "official-authority", "consent"
    few = ["given_names", "surnames", "birth_date"]
    many = [*few, "sex", "nationality", "marital_status", "profession"]
    asked = [("demo-mds", cedula, few, "service-access-determination", duty) for cedula in ordinary[:14]]
    asked += [("demo-mtess", cedula, many, "service-access-determination", duty) for cedula in ordinary[:10]]
    asked += [("demo-mec", cedula, few, "service-provision", duty) for cedula in ordinary[:4]]
    asked += [("demo-mtess", cedula, few, "official-statistics", duty) for cedula in ordinary[:3]]
    asked += [("demo-snpp", agreed, ["given_names", "birth_date"], "service-provision", consent)] * 3
    asked += [("demo-snpp", withdrew, ["given_names"], "service-provision", consent)] * 2
    asked += [("demo-mds", protected, few, "service-access-determination", duty)] * 2
    asked += [("demo-mds", "99999999", few, "service-access-determination", duty)] * 2
    limit = asyncio.Semaphore(8)

    async def one(client: str, cedula: str, fields: list[str], purpose: str, basis: str) -> None:
        body = {
            "subject": {"system": "cedula", "value": cedula},
            "dataset": "identity",
            "fields": fields,
            "purpose": purpose,
            "basis": basis,
        }
        async with limit:
            answer = await callers[client].post("/api/v1/disclosures", body)
        _count(answer, story)

    await asyncio.gather(*(one(*item) for item in asked))


def _count(answer: httpx.Response, story: Story) -> None:
    if answer.status_code == 200:
        story.disclosures["trimmed" if answer.json()["withheld"] else "permitted"] += 1
        return
    problem = answer.json()
    if answer.status_code == 403:
        story.disclosures["denied"] += 1
        story.reasons.update(reason["code"] for reason in problem["reasons"])
    elif answer.status_code == 404:
        # Withdrawn consent, sealed case and unknown person look the same from outside: that is the point.
        story.disclosures["denied"] += 1
        story.reasons["not-found"] += 1
    else:
        story.disclosures["failed"] += 1
        story.reasons[problem["type"].rsplit(":", 1)[-1]] += 1
