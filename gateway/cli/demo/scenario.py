"""What happens in the demonstration: gaps are found and referred, data is asked for, answers come back."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

import gateway
from consent import people, records
from gateway import evidence
from gateway.catalogue import service as catalogue
from gateway.cli.context import Context
from gateway.cli.demo.clients import Caller
from gateway.cli.demo.processes import Institution
from gateway.clock import local_day, utc_now
from gateway.referrals.states import TERMINAL
from gateway.referrals.tables import referral, referral_event
from gateway.registry.classify import classify
from gateway.registry.tables import person, person_identifier
from gateway.standards.fhir.service import FHIR_JSON
from schemas.ids import uuid7

REFERRALS = 60
# How each institution of the demonstration is reached.
CHANNELS = {"MDS": "soap", "MSPBS": "rest", "MINNA": "file"}
_TROUBLE_S = 2.0
_CONSENTED = ("cedula", "given_names", "surnames")
_SETTLED_DELIVERY = ("withheld", "rejected", "dead")


@dataclass(slots=True)
class Story:
    """What was done so far, for the progress shown and for the summary."""

    acknowledged: dict[UUID, str] = field(default_factory=dict)
    refused: int = 0
    fhir: int = 0
    disclosures: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    status_before: dict[str, int] = field(default_factory=dict)
    status_after: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gap:
    """A person to refer to a service that is not known to be reached."""

    person_id: UUID
    service: str
    institution: str


async def count_status(connection: AsyncConnection) -> tuple[dict[str, int], list[Gap]]:
    """Classify everybody; return counts and the gaps that the three institutions of the demonstration can close."""
    services = await catalogue.services(connection)
    counts: Counter[str] = Counter()
    gaps: list[Gap] = []
    async for item in classify(connection, services, local_day(utc_now())):
        counts[f"{item.status.unit}s_concurrent"] += item.status.concurrent
        counts["gaps"] += len(item.status.gaps)
        counts["services_reached"] += len(item.status.services) - len(item.status.gaps)
        for service in item.status.gaps:
            if services[service].institution in CHANNELS:
                gaps.append(Gap(item.person_id, service, services[service].institution))
    return dict(counts), gaps


async def choose(connection: AsyncConnection, gaps: list[Gap]) -> list[Gap]:
    """Choose sixty gaps without an open referral, over all institutions and services; some are left for another day."""
    query = select(referral.c.person_id, referral.c.service).where(referral.c.state.not_in(TERMINAL))
    waiting = {(row.person_id, row.service) for row in await connection.execute(query)}
    queues: dict[str, list[Gap]] = defaultdict(list)
    for gap in gaps:
        if (gap.person_id, gap.service) not in waiting:
            queues[gap.institution].append(gap)
    chosen = [gap for queue in queues.values() for gap in queue[: min((len(queue) + 1) // 2, REFERRALS // 3)]]
    rest = [gap for queue in queues.values() if len(queue) > REFERRALS for gap in queue[REFERRALS // 3 :]]
    return chosen + rest[: REFERRALS - len(chosen)]


async def trouble(http: httpx.AsyncClient, institutions: dict[str, Institution]) -> None:
    """Let two institutions misbehave for a while: one is down and cuts answers, the other drops connections."""
    await _switch(http, institutions["mds"], {"fail_503": -1})
    await _switch(http, institutions["minna"], {"reset": 3})
    await _switch(http, institutions["mspbs"], {"duplicate": 2})
    await asyncio.sleep(_TROUBLE_S)
    await _switch(http, institutions["mds"], {"fail_503": 0, "after_effect_reset": 2})


async def _switch(http: httpx.AsyncClient, institution: Institution, values: dict[str, int]) -> None:
    answer = await http.post(f"{institution.control}/_control/switches", json=values)
    answer.raise_for_status()


async def refer(caller: Caller, gaps: list[Gap], story: Story, progress: Callable[[], None]) -> None:
    """Send one referral per gap, eight at a time."""
    limit = asyncio.Semaphore(8)

    async def send(gap: Gap) -> None:
        async with limit:
            body = {
                "subject": {"system": "siis", "value": str(gap.person_id)},
                "service": gap.service,
                "reason": {"code": "protection-gap"},
                "purpose": "service-access-determination",
                "basis": "official-authority",
            }
            answer = await caller.post("/api/v1/referrals", body, key=str(uuid7()))
        if answer.status_code == 201:
            story.acknowledged[UUID(answer.json()["id"])] = gap.institution
        else:
            story.refused += 1
        progress()

    await asyncio.gather(*(send(gap) for gap in gaps))


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


async def prepare_consents(context: Context) -> tuple[list[str], str, str, str]:
    """Record consents for two adults, one of them withdrawn, and seal a third person's case.

    Returns cédulas: of ordinary adults, of who consented, of who withdrew, of the sealed case.
    """
    today = utc_now()
    adult = local_day(today) - timedelta(days=365 * 19)
    query = (
        select(person.c.id, person.c.birth_date, person_identifier.c.id.label("row"), person_identifier.c.value)
        .join(person_identifier, person_identifier.c.person_id == person.c.id)
        .where(person_identifier.c.system == "cedula", person.c.birth_date < adult, person.c.deceased_on.is_(None))
        .order_by(person.c.id)
        .limit(30)
    )
    async with context.database.connection() as connection:
        rows = (await connection.execute(query)).all()
    cedulas = [context.vault.open("person_identifier.value", row.row, row.value) for row in rows]
    withdrew, protected = rows[1].id, rows[2].id
    async with context.database.transaction() as connection:
        details = [(row.id, await _consent(connection, row.id, row.birth_date)) for row in rows[:2]]
        given = details[1][1]["consent"]
        details.append((withdrew, await _withdrawn(connection, UUID(given))))
        details.append((protected, await people.set_flag(connection, protected, people.SEALED, at=today)))
        for subject, detail in details:
            told = {name: value for name, value in detail.items() if name not in ("event", "subject")}
            entry = evidence.entry(
                detail["event"],
                "done",
                at=utc_now(),
                policy_version="none",
                subject=subject,
                actor={"channel": "demonstration"},
                what=told,
            )
            await context.audit.stage(connection, entry)
    return cedulas[3:], cedulas[0], cedulas[1], cedulas[2]


async def _consent(connection: AsyncConnection, subject: UUID, birth_date: date) -> dict[str, Any]:
    new = records.NewConsent(
        agreement="DEMO-SNPP-IDENT",
        purposes=frozenset({"service-provision"}),
        fields=frozenset(_CONSENTED),
        text_version="demo-1",
        language="es",
        channel="in-person",
        proof_reference="demo",
    )
    return await records.record_consent(
        connection, subject, new, birth_date=birth_date, recorded_by="demonstration", at=utc_now()
    )


async def _withdrawn(connection: AsyncConnection, consent_id: UUID) -> dict[str, Any]:
    return await records.end_consent(connection, consent_id, step="withdraw", reason="person", at=utc_now())


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


async def progress_of(connection: AsyncConnection, ids: list[UUID]) -> dict[str, int]:
    """Count where the acknowledged referrals are; ``open`` is how many may still move by themselves."""
    rows = (
        await connection.execute(
            select(referral.c.id, referral.c.state, referral.c.delivery, referral.c.attempts).where(
                referral.c.id.in_(ids)
            )
        )
    ).all()
    settled = sum(row.state in TERMINAL or row.delivery in _SETTLED_DELIVERY for row in rows)
    events: dict[str, int] = dict(
        (
            await connection.execute(
                select(referral_event.c.type, func.count(referral_event.c.referral_id.distinct()))
                .where(referral_event.c.referral_id.in_(ids))
                .group_by(referral_event.c.type)
            )
        )
        .tuples()
        .all()
    )
    return {
        "acknowledged": len(ids),
        "stored": len(rows),
        "transmitted": sum(row.delivery == "transmitted" for row in rows),
        "retried": sum(row.attempts > 1 for row in rows),
        "accepted": events.get("accept", 0),
        "rejected": events.get("decline", 0),
        "counter_referred": events.get("outcome", 0) + events.get("decline", 0),
        "provided": events.get("outcome", 0),
        "dead_letters": sum(row.delivery in ("dead", "rejected") for row in rows),
        "withheld": sum(row.delivery == "withheld" for row in rows),
        "open": len(rows) - settled,
    }


async def delivered_by_channel(connection: AsyncConnection, ids: list[UUID]) -> dict[str, int]:
    """Count the transmitted referrals by how their recipient is reached."""
    rows = await connection.execute(
        select(referral.c.recipient, func.count())
        .where(referral.c.id.in_(ids), referral.c.delivery == "transmitted")
        .group_by(referral.c.recipient)
    )
    return {CHANNELS[recipient]: number for recipient, number in rows.tuples()}


async def lost(
    http: httpx.AsyncClient, connection: AsyncConnection, institutions: dict[str, Institution], story: Story
) -> int:
    """Count the obligations not kept: acknowledged ids that are not stored, or marked transmitted with no effect.

    The institutions' own ledgers are the oracle: a referral we say was transmitted must have had its effect once.
    """
    ids = list(story.acknowledged)
    rows = await connection.execute(select(referral.c.id, referral.c.delivery).where(referral.c.id.in_(ids)))
    stored = {row.id: row.delivery for row in rows}
    effects: Counter[str] = Counter()
    for name in ("mds", "mspbs", "minna"):
        answer = await http.get(f"{institutions[name].control}/_control/ledger")
        answer.raise_for_status()
        effects.update(answer.json()["received"])
    missing: int = sum(referral_id not in stored for referral_id in ids)
    wrong: int = sum(effects[str(key)] != 1 for key, delivery in stored.items() if delivery == "transmitted")
    undecided: int = sum(delivery == "pending" for delivery in stored.values())
    return missing + wrong + undecided
