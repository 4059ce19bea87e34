"""The funnel: every number of a small world by hand, row by row what the events say, and nobody sees another's."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from funnel_world import World, naive
from rights_office import Office

from audit.models import LoggedEntry
from consent import agreements
from consent.models import Caller, parse_agreement
from consent.volume import Volume
from gateway import embedded, errors
from gateway.catalogue.service import services
from gateway.referrals import states
from gateway.registry.achievements import Published
from gateway.registry.query import PersonQuery
from gateway.registry.recompute import arrived
from gateway.statistics.counting import count
from gateway.statistics.models import Funnel, Scope
from gateway.statistics.service import Statistics
from gateway.statistics.trajectory import Trajectories
from schemas.ids import uuid7

DAY0 = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SYSTEM = frozenset({"system"})


def day(number: float) -> datetime:
    return DAY0 + timedelta(days=number)


@pytest.fixture
def office(office: Office) -> Office:
    """Empty what is counted: whole counts are compared."""
    server = embedded.start(office.context.settings.data_dir)
    with psycopg.connect(server.url(embedded.SUPERUSER)) as connection:
        connection.execute("TRUNCATE siis.referral, siis.referral_event, siis.status, siis.statistics_snapshot CASCADE")
    return office


@pytest.fixture
def world(office: Office) -> World:
    return World(office.context)


@pytest.fixture
def statistics(office: Office) -> Statistics:
    context = office.context
    published = Published(context.database)
    return Statistics(governance=office.governance, audit=context.audit, policies=office.policies, published=published)


def of(institution: str, *roles: str) -> Caller:
    return Caller(client_id=f"{institution.lower()}-1", institution=institution, roles=frozenset(roles) or SYSTEM)


async def entries(office: Office, kind: str, since: UUID) -> list[LoggedEntry]:
    return [entry for entry in await office.entries(kind, 100) if entry.entry_id > since]


async def counted(office: Office, scope: Scope | None = None, party: str | None = None) -> Funnel:
    async with office.context.database.connection() as connection:
        return await count(connection, scope or Scope(), party=party, at=office.at)


async def small_world(world: World) -> None:
    """Seven referrals, each falling out elsewhere; times are chosen so that medians can be said by heart."""
    waiting = {"department": "11", "district": "1116", "category": "age-60-plus", "population": ["women", "older"]}
    repeated = await world.person()
    # Of the first: gap on the 20th of February, 10 days before; received after 1 day, accepted 2 later, given 4 later.
    delivered = await world.refer(day(0), person=repeated, gap_since=date(2026, 2, 20), **waiting)
    await world.move(delivered, "send", day(1))
    await world.move(delivered, "accept", day(3))
    await world.move(delivered, "schedule", day(3))
    await world.move(delivered, "no_show", day(4))
    await world.move(delivered, "reschedule", day(4))
    await world.move(delivered, "outcome", day(7), outcome="provided")
    rejected = await world.refer(day(0), channel="file", requester="MDS")
    await world.move(rejected, "send", day(2))
    await world.move(rejected, "decline", day(3), reason="no-capacity")
    refused = await world.refer(day(1), service="universal-pension", recipient="MDS")
    await world.move(refused, "send", day(2))
    await world.move(refused, "accept", day(3))
    await world.move(refused, "outcome", day(5), outcome="not_provided", reason="not-eligible")
    await world.refer(day(1), person=repeated, delivery_reason=None)
    received = await world.refer(day(2), department="11", district="1101")
    await world.move(received, "send", day(9))
    partly = await world.refer(day(2))
    await world.move(partly, "send", day(3))
    await world.move(partly, "accept", day(4))
    await world.move(partly, "outcome", day(6), outcome="partly_provided")
    claimed = await world.refer(day(3), state="open", recipient="UTGS")
    await world.move(claimed, "claim", day(4))


def reached(found: Funnel) -> list[int]:
    return [step.reached for step in found.steps]


async def test_a_small_world_is_counted_as_by_hand(office: Office, world: World) -> None:
    await small_world(world)
    found = await counted(office)
    # Made 7; the second of the repeated pair was never sent; one waits to be accepted and one was rejected before.
    assert reached(found)[:5] == [7, 7, 6, 4, 2]
    endings = {step.code: step.endings for step in found.steps}
    assert endings["referred"] == {"waiting": 1}
    assert endings["received"] == {"rejected": 1, "waiting": 1}
    assert endings["accepted"] == {"not_provided": 1, "waiting": 1}
    spans = {span.code: (span.referrals, span.median, span.p90) for span in found.spans}
    days = 86_400.0
    assert spans["gap_to_referral"] == (1, 10 * days, 10 * days)
    # 1, 2, 1, 7, 1 and, claimed, 1 day: half of six is the third of 1 1 1 1 2 7, nine tenths the sixth.
    assert spans["referral_to_receipt"] == (6, days, 7 * days)
    # 2, 1, 1 and, received by claiming, 0 days.
    assert spans["receipt_to_acceptance"] == (4, days, 2 * days)
    assert spans["acceptance_to_delivery"] == (2, 2 * days, 4 * days)
    assert spans["referral_to_delivery"] == (2, 4 * days, 7 * days)
    assert found.reasons == {("not_provided", "not-eligible"): 1, ("rejected", "no-capacity"): 1}
    assert found.doors == {("api", "UTGS"): 6, ("file", "MDS"): 1}
    assert (found.no_shows, found.reopened, found.repeated) == ((1, 1), (0, 0), (1, 1))


@pytest.mark.parametrize(
    ("scope", "made"),
    [
        ({"department": "11"}, 2),
        ({"district": "1116"}, 1),
        ({"service": "universal-pension"}, 1),
        ({"requester": "MDS"}, 1),
        ({"recipient": "MDS"}, 1),
        ({"population": "older"}, 1),
        ({"category": "age-60-plus"}, 1),
        ({"since": date(2026, 3, 4)}, 3),
        ({"until": date(2026, 3, 3)}, 2),
        ({"since": date(2026, 3, 3), "until": date(2026, 3, 4)}, 2),
        ({"department": "11", "service": "universal-pension"}, 0),
    ],
)
async def test_each_member_of_a_scope_narrows_it(
    office: Office, world: World, scope: dict[str, Any], made: int
) -> None:
    await small_world(world)
    assert reached(await counted(office, Scope(**scope)))[1] == made


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_rows_tell_what_the_events_tell(office: Office, world: World, seed: int) -> None:
    chance = random.Random(seed)
    people = [await world.person() for _number in range(12)]
    for _number in range(40):
        at = day(chance.uniform(0, 30))
        state = chance.choice(["created", "created", "created", "open"])
        gap = None if chance.random() < 0.3 else (at - timedelta(days=chance.uniform(-3, 40))).date()
        made = await world.refer(
            at,
            person=chance.choice(people),
            service=chance.choice(["health-control", "universal-pension"]),
            requester=chance.choice(["UTGS", "MDS"]),
            channel=chance.choice(["api", "fhir"]),
            gap_since=gap,
            state=state,
        )
        for _step in range(chance.randrange(9)):
            events = states.legal(state)
            if not events:
                break
            event = chance.choice(events)
            at += timedelta(hours=chance.uniform(0, 90))
            outcome = chance.choice(["provided", "partly_provided", "not_provided"]) if event == "outcome" else None
            reason = "no-capacity" if event == "decline" or outcome == "not_provided" else None
            state = await world.move(made, event, at, outcome=outcome, reason=reason)
    found = await counted(office)
    async with office.context.database.connection() as connection:
        told = await naive(connection)
    assert Counter({(s.code, e): n for s in found.steps for e, n in s.endings.items()}) == told["places"]
    for span in found.spans:
        referrals, median, p90 = told["times"][span.code]
        assert (span.referrals, span.median, span.p90) == (referrals, pytest.approx(median), pytest.approx(p90))
    assert (found.reasons, found.doors) == (told["reasons"], told["doors"])
    assert (found.no_shows, found.reopened) == (told["no_shows"], told["reopened"])
    assert found.repeated == told["repeated"]


async def test_an_institution_sees_the_referrals_to_and_from_it_alone(
    office: Office, world: World, statistics: Statistics
) -> None:
    start = uuid7()
    await small_world(world)
    found = {}
    for institution in ("UTGS", "MSPBS", "MDS", "MEC"):
        answer, _receipt = await statistics.funnel(of(institution), Scope(), form="json")
        found[institution] = answer["steps"][1]["reached"]
        # Naming another institution opens nothing of it.
        foreign, _receipt = await statistics.funnel(of(institution), Scope(recipient="MSPBS"), form="json")
        assert foreign["steps"][1]["reached"] == {"UTGS": 5, "MSPBS": 5, "MDS": 1, "MEC": 0}[institution]
    assert found == {"UTGS": 7, "MSPBS": 5, "MDS": 2, "MEC": 0}
    noted = await entries(office, "statistics.read", start)
    assert {entry.detail["actor"]["institution"] for entry in noted if entry.detail} == set(found)


async def test_an_analyst_sees_no_small_count(world: World, statistics: Statistics) -> None:
    await small_world(world)
    answer, _receipt = await statistics.funnel(of("UTGS", "analyst"), Scope(), form="json")
    steps = {step["step"]: step["reached"] for step in answer["steps"]}
    assert steps["delivered"] is None
    assert (answer["hidden_below"], answer["rounded_to"]) == (5, 5)
    # Seven were made; who sees them as they are gets seven.
    assert steps["referred"] == 5
    assert answer["reasons"] == [
        {"ending": "not_provided", "reason": "not-eligible", "referrals": None},
        {"ending": "rejected", "reason": "no-capacity", "referrals": None},
    ]


@pytest.mark.parametrize(
    ("scope", "pointer"),
    [
        ({"since": date(2026, 3, 2)}, "/since"),
        ({"since": date(2026, 3, 1), "until": date(2026, 3, 31)}, "/until"),
        ({"since": date(2026, 3, 1), "until": date(2026, 4, 1)}, None),
        ({}, None),
    ],
)
async def test_who_sees_no_persons_asks_for_whole_months(
    statistics: Statistics, scope: dict[str, date], pointer: str | None
) -> None:
    analyst, asked = of("UTGS", "analyst"), Scope(**scope)
    for place, ask in (
        ("", statistics.funnel(analyst, asked, form="json")),
        ("", statistics.take(analyst, "baseline", asked)),
        ("/second", statistics.compare_scopes(analyst, Scope(), asked)),
    ):
        if pointer is None:
            await ask
            continue
        with pytest.raises(errors.BadRequest) as refused:
            await ask
        assert (refused.value.code, refused.value.pointer) == ("bad-period", place + pointer)
    # Who may see the persons may ask for a day.
    await statistics.funnel(of("UTGS"), asked, form="json")


async def test_without_the_role_nothing_is_counted_and_the_refusal_is_kept(
    office: Office, statistics: Statistics
) -> None:
    start = uuid7()
    with pytest.raises(errors.Denied):
        await statistics.funnel(of("MDS", "operator"), Scope(), form="json")
    assert await entries(office, "statistics.read", start) == []
    assert len(await entries(office, "governance.denied", start)) == 1


@pytest.mark.parametrize(
    ("scope", "pointer"),
    [
        ({"department": "18"}, "/department"),
        ({"department": "10", "district": "1116"}, "/district"),
        ({"service": "no-such"}, "/service"),
        ({"population": "men"}, "/population"),
        ({"since": date(2026, 3, 2), "until": date(2026, 3, 2)}, "/until"),
    ],
)
async def test_what_there_is_not_is_refused_with_its_place(
    statistics: Statistics, scope: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(errors.BadRequest) as refused:
        await statistics.funnel(None, Scope(**scope), form="json")
    assert refused.value.pointer == pointer


async def test_a_follow_up_is_compared_with_its_baseline(world: World, statistics: Statistics) -> None:
    first = await world.refer(day(0))
    await world.refer(day(0))
    before = (await statistics.take(of("UTGS"), "baseline", Scope())).answer["id"]
    await world.move(first, "send", day(1))
    after = (await statistics.take(of("UTGS"), "follow_up", Scope())).answer["id"]
    told, _receipt = await statistics.compare_snapshots(of("UTGS"), UUID(before), UUID(after))
    received = next(step for step in told["steps"] if step["step"] == "received")
    assert received["of_previous"] == {
        "first": {"n": 0, "of": 2, "percent": 0.0},
        "second": {"n": 1, "of": 2, "percent": 50.0},
        "points": 50.0,
    }
    assert [each["kind"] for each in await statistics.snapshots(of("UTGS"), after=None, limit=9)] == [
        "baseline",
        "follow_up",
    ]
    # The coordinator's are not MDS's to list, to read or to compare.
    assert await statistics.snapshots(of("MDS"), after=None, limit=9) == []
    for call in (
        statistics.snapshot(of("MDS"), UUID(before)),
        statistics.compare_snapshots(of("MDS"), UUID(before), UUID(after)),
    ):
        with pytest.raises(errors.NotFound):
            await call


async def test_a_way_through_the_network_is_a_disclosure(office: Office, world: World) -> None:
    person = await world.person("4123456")
    one = await world.refer(day(0), person=person, requester="MDS")
    await world.move(one, "send", day(1))
    two = await world.refer(day(2), person=person, requester="UTGS")
    context = office.context
    trajectories = Trajectories(
        database=context.database,
        vault=context.vault,
        audit=context.audit,
        policies=office.policies,
        volume=Volume(context.database.engine, office.policies, lambda: office.at),
        now=lambda: office.at,
    )
    asked = PersonQuery(system="cedula", identifier="4123456", purpose="service-provision", basis="official-authority")
    answer, receipt = await trajectories.query(of("UTGS"), asked)
    assert [(step["referral"], step["type"]) for step in answer["steps"]] == [
        (str(one.id), "create"),
        (str(one.id), "send"),
        (str(two.id), "create"),
    ]
    [entry] = await office.entries("trajectory.released")
    assert entry.entry_id == receipt.entry_id
    # Under one, a recipient sees what it was sent, and of the rest not that it is there.
    known = {each.code: each for each in agreements.demonstration_agreements()}
    document = known["DEMO-UTGS-MSPBS-REFERRAL"].document() | {
        "code": "WAY",
        "status": "active",
        "requester": "MSPBS",
        "holder": "UTGS",
        "datasets": {"trajectory": ["steps"]},
        "purposes": ["service-provision"],
        "labels": ["economic"],
        "roles": ["system"],
        "valid_from": (office.at - timedelta(days=9)).isoformat(),
        "valid_to": None,
    }
    async with context.database.transaction() as connection:
        await agreements.put_agreement(connection, parse_agreement(document), at=office.at)
        await office.policies.load(connection)
    answer, _receipt = await trajectories.query(of("MSPBS"), asked)
    assert {step["referral"] for step in answer["steps"]} == {str(one.id)}
    # Without an agreement nothing is shown, and that is an entry as well.
    with pytest.raises(errors.Denied):
        await trajectories.query(of("MDS"), asked)
    assert len(await office.entries("trajectory.denied")) == 1


async def test_gaps_that_nobody_referred_are_counted_when_asked_for(
    office: Office, world: World, statistics: Statistics
) -> None:
    born = date(1950, 1, 1)
    lacking = [await office.person(str(5_000_000 + n), birth_date=born, department="11") for n in range(3)]
    async with office.context.database.transaction() as connection:
        known = await services(connection)
        await arrived(connection, known, persons=lacking, at=DAY0, because="test")
    health = Scope(department="11", service="health-control", gaps=True)
    before, _receipt = await statistics.funnel(None, health, form="json")
    assert before["unreferred"] == {"health-control": 3}
    assert (before["steps"][0]["reached"], before["steps"][1]["reached"]) == (3, 0)
    await world.refer(day(0), person=lacking[0], department="11")
    after, _receipt = await statistics.funnel(None, health, form="json")
    assert after["unreferred"] == {"health-control": 2}
    assert (after["steps"][0]["reached"], after["steps"][1]["reached"]) == (3, 1)
    # Of gaps of few persons whom it has nothing to do with an institution learns nothing, and of others' services none.
    told, _receipt = await statistics.funnel(of("MSPBS"), health, form="json")
    assert (told["unreferred"], told["steps"][0]["reached"]) == ({"health-control": None}, None)
    assert (await statistics.funnel(of("MDS"), health, form="json"))[0]["unreferred"] == {}
