"""Emergency accesses on a real PostgreSQL: opened with everything that goes with them, ended, reviewed, counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from integration.governed import AT, MACHINE, hold, migrated, new_institution, opened
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.keys import Epochs
from audit.models import LoggedEntry
from audit.search import recent
from audit.service import AuditLog
from consent import emergency
from consent.agreements import demonstration_agreements
from consent.decision import decide
from consent.errors import EmergencyEnded, EmergencyRefused, NotInForce
from consent.models import FETCH, Actor, Assignment, Caller, Decision, EmergencyClaim, Request, SubjectFacts
from consent.policy import build_policy
from consent.roles import EMERGENCY, OFFICER, read_assignments
from gateway import errors
from gateway.database import Database
from gateway.governance import notices
from gateway.governance.emergencies import EmergencyWatch, open_emergency
from gateway.governance.notices import Notice, Reader
from schemas.errors import UnknownCode
from schemas.ids import uuid7

EPOCHS = Epochs(1, {1: bytes(range(32))})
CLAIM = EmergencyClaim(reason="danger-to-life", incident="911-4471")
FIELDS = ("last_control_on", "establishment")


@pytest.fixture(scope="module")
def url(folders: Callable[[str], Path]) -> Iterator[str]:
    with migrated(folders("emergencies")) as address:
        yield address


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with opened(url) as made:
        yield made


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[AsyncConnection]:
    async with database.transaction() as made:
        yield made


@pytest.fixture
async def audit(database: Database) -> AsyncIterator[AuditLog]:
    log = AuditLog(database.engine, EPOCHS, "test")
    await log.start()
    yield log
    await log.close()


@pytest.fixture
def here() -> str:
    return new_institution()


async def break_glass(conn: AsyncConnection, institution: str, **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "institution": institution,
        "user": "beto",
        "client": "app",
        "subject": uuid7(),
        "holder": "MSPBS",
        "dataset": "health-controls",
        "fields": FIELDS,
        "claim": CLAIM,
        "at": AT,
    }
    return await emergency.open_glass(conn, **usual | changes)


# The glass


async def test_a_glass_is_opened_for_a_day_and_used_again_within_it(conn: AsyncConnection, here: str) -> None:
    subject = uuid7()
    first = await break_glass(conn, here, subject=subject)
    assert (first["event"], first["subject"], first["added"]) == ("breakglass.opened", str(subject), sorted(FIELDS))
    assert first["expires_at"] == (AT + timedelta(hours=24)).isoformat()
    again = await break_glass(conn, here, subject=subject, at=AT + timedelta(hours=23, minutes=59))
    assert (again["event"], again["id"], again["added"]) == ("breakglass.used", first["id"], [])
    assert again["expires_at"] == first["expires_at"]
    with pytest.raises(EmergencyEnded):
        await break_glass(conn, here, subject=subject, at=AT + timedelta(hours=24))


@pytest.mark.parametrize(
    "changes",
    [
        {"user": "caro"},
        {"subject": uuid7()},
        {"dataset": "vaccination"},
        {"claim": replace(CLAIM, incident="911-4472")},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_another_user_person_dataset_or_incident_is_another_glass(
    conn: AsyncConnection, here: str, changes: dict[str, Any]
) -> None:
    subject = uuid7()
    first = await break_glass(conn, here, subject=subject)
    second = await break_glass(conn, here, **{"subject": subject} | changes)
    assert (second["event"], second["id"] == first["id"]) == ("breakglass.opened", False)


async def test_two_requests_at_once_open_one_glass(database: Database, here: str) -> None:
    subject = uuid7()

    async def request() -> dict[str, Any]:
        async with database.transaction() as conn:
            return await break_glass(conn, here, subject=subject)

    said = await asyncio.gather(*(request() for _ in range(4)))
    assert sorted(each["event"] for each in said) == ["breakglass.opened", *["breakglass.used"] * 3]
    assert len({each["id"] for each in said}) == 1


async def test_its_reviewer_sees_every_field_it_reached(conn: AsyncConnection, here: str) -> None:
    subject = uuid7()
    await break_glass(conn, here, subject=subject, fields=FIELDS[:1])
    wider = await break_glass(conn, here, subject=subject, fields=FIELDS[1:])
    assert (wider["event"], wider["added"]) == ("breakglass.used", ["establishment"])
    [shown] = await emergency.list_emergencies(conn, institution=here)
    assert shown.fields == tuple(sorted(FIELDS))


async def test_a_reason_that_is_none_opens_nothing(conn: AsyncConnection, here: str) -> None:
    with pytest.raises(UnknownCode):
        await break_glass(conn, here, claim=replace(CLAIM, reason="priority-track"))
    assert await emergency.list_emergencies(conn, institution=here) == []


# The review


async def test_four_eyes_review_a_glass_once(conn: AsyncConnection, here: str) -> None:
    glass = UUID((await break_glass(conn, here))["id"])
    stranger = Actor(institution=new_institution(), user="ofi")
    for actor, which in ((stranger, glass), (Actor(institution=here, user="ofi"), uuid7())):
        with pytest.raises(NotInForce):
            await emergency.review(conn, actor, which, verdict="justified", at=AT)
    with pytest.raises(EmergencyRefused) as refused:
        await emergency.review(conn, Actor(institution=here, user="beto"), glass, verdict="justified", at=AT)
    assert refused.value.reason == "own-emergency"
    said = await emergency.review(conn, Actor(institution=here, user="ofi"), glass, verdict="justified", at=AT)
    assert (said["event"], said["verdict"], said["role_revoked"]) == ("breakglass.reviewed", "justified", None)
    with pytest.raises(EmergencyRefused) as refused:
        await emergency.review(conn, MACHINE, glass, verdict="not-justified", at=AT)
    assert refused.value.reason == "emergency-reviewed"
    [shown] = await emergency.list_emergencies(conn, institution=here)
    assert (shown.verdict, shown.reviewed_by, shown.reviewed_at) == ("justified", f"{here}/ofi", AT)


@pytest.mark.parametrize(("verdict", "kept"), [("justified", True), ("not-justified", False)])
async def test_a_verdict_against_it_takes_the_role_and_the_glass_at_once(
    conn: AsyncConnection, here: str, verdict: emergency.Verdict, kept: bool
) -> None:
    subject = uuid7()
    await hold(conn, here, "beto", EMERGENCY)
    await hold(conn, here, "beto", "administrator")
    glass = UUID((await break_glass(conn, here, subject=subject, fields=FIELDS[:1]))["id"])
    said = await emergency.review(conn, Actor(institution=here, user="ofi"), glass, verdict=verdict, at=AT)
    assert (said["role_revoked"] is None) is kept
    roles = [each.role for each in (await read_assignments(conn))[here, "beto"]]
    assert roles == (["emergency", "administrator"] if kept else ["administrator"])
    if kept:
        assert (await break_glass(conn, here, subject=subject, fields=FIELDS[:1]))["event"] == "breakglass.used"
    else:
        with pytest.raises(EmergencyEnded):
            await break_glass(conn, here, subject=subject, fields=FIELDS[:1])
    # What the reviewer did not see is not covered by the verdict.
    with pytest.raises(EmergencyEnded):
        await break_glass(conn, here, subject=subject, fields=FIELDS)


async def test_the_oldest_that_waits_counts_until_it_is_reviewed(conn: AsyncConnection, here: str) -> None:
    first = UUID((await break_glass(conn, here))["id"])
    later = AT + timedelta(hours=5)
    second = UUID((await break_glass(conn, here, at=later))["id"])
    await break_glass(conn, here, user="caro", at=later)
    assert {key: since for key, since in (await emergency.unreviewed_since(conn)).items() if key[0] == here} == {
        (here, "beto"): AT,
        (here, "caro"): later,
    }
    assert (await emergency.waiting_for_review(conn))[here] == (3, AT)
    officer = Actor(institution=here, user="ofi")
    await emergency.review(conn, officer, first, verdict="justified", at=later)
    assert (await emergency.unreviewed_since(conn))[here, "beto"] == later
    await emergency.review(conn, officer, second, verdict="not-justified", at=later)
    assert (here, "beto") not in await emergency.unreviewed_since(conn)


async def test_each_user_is_counted_over_seven_days(conn: AsyncConnection, here: str) -> None:
    for hours in (0, 1, 24 * 7, 24 * 7 + 1):
        await break_glass(conn, here, at=AT - timedelta(hours=hours))
    await break_glass(conn, here, user="caro")
    await break_glass(conn, new_institution())
    assert await emergency.opened_in_a_week(conn, institution=here, at=AT) == {(here, "beto"): 2, (here, "caro"): 1}


async def test_a_list_is_one_institutions_and_comes_part_by_part(conn: AsyncConnection, here: str) -> None:
    await break_glass(conn, new_institution())
    ids = [UUID((await break_glass(conn, here))["id"]) for _number in range(5)]
    seen, after = [], None
    while part := await emergency.list_emergencies(conn, institution=here, after=after, limit=2):
        seen += [each.id for each in part]
        after = part[-1].id
    assert seen == ids


# With everything that goes with it

POLICY = build_policy(
    demonstration_agreements(),
    assignments={("MINNA", "beto"): (Assignment(EMERGENCY, None),)},
    compartments={("MINNA", EMERGENCY): frozenset({"health"})},
)


def asked(**changes: Any) -> Request:
    usual = Request(
        action=FETCH,
        caller=Caller(
            client_id="minna-app",
            institution="MINNA",
            user="beto",
            user_verified=True,
            roles=frozenset({"operator", EMERGENCY}),
            assurance=2,
            authenticated_at=AT - timedelta(minutes=1),
        ),
        holder="MSPBS",
        dataset="health-controls",
        fields=FIELDS,
        purpose="service-provision",
        basis="consent",
        at=AT,
        emergency=CLAIM,
    )
    return replace(usual, **changes)


def decided(request: Request, facts: SubjectFacts) -> Decision:
    decision = decide(request, facts, POLICY)
    assert decision.permit is not None
    assert decision.emergency
    return decision


def person(**changes: Any) -> SubjectFacts:
    return SubjectFacts(subject=uuid7(), birth_date=date(1990, 5, 5), **changes)


async def carry_out(database: Database, audit: AuditLog, request: Request, facts: SubjectFacts) -> LoggedEntry:
    """Do what the exchange does, and return the entry it left."""
    async with database.transaction() as conn:
        receipt = await open_emergency(conn, audit, request, decided(request, facts), facts, None)
        assert (await recent(conn, EPOCHS, 1))[0].entry_id == receipt.entry_id
    async with database.connection() as conn:
        return (await recent(conn, EPOCHS, 1))[0]


async def shown(database: Database, facts: SubjectFacts, reader: Reader, hours: int = 0) -> list[Notice]:
    async with database.connection() as conn:
        found = await notices.list_for(conn, reader, at=AT + timedelta(hours=hours), limit=200)
    return [each for each in found if each.subject == facts.subject]


def officer(institution: str) -> Reader:
    return Reader(institution, frozenset({OFFICER}), None)


def themself(facts: SubjectFacts) -> Reader:
    return Reader("MITIC", frozenset({"citizen"}), facts.subject)


async def test_officers_of_both_sides_and_the_person_are_told_with_the_entry(
    database: Database, audit: AuditLog
) -> None:
    facts = person()
    before = REGISTRY.get_sample_value("siis_emergencies_opened_total", {"institution": "MINNA"}) or 0
    entry = await carry_out(database, audit, asked(), facts)
    assert entry.envelope["type"] == "breakglass.opened"
    assert entry.detail is not None
    claimed = entry.detail["why"]["emergency"]
    assert (claimed["reason"], claimed["incident"]) == ("danger-to-life", "911-4471")
    assert entry.detail["what"]["subject_notice"] == "now"
    for reader in (officer("MINNA"), officer("MSPBS"), themself(facts)):
        [told] = await shown(database, facts, reader)
        assert (told.kind, told.origin, told.entry_id) == ("breakglass", "MINNA", entry.entry_id)
        assert str(told.reference) == entry.detail["exchange"]["emergency"]
    for reader in (officer("MDS"), Reader("MINNA", frozenset({"operator"}), None), themself(person())):
        assert await shown(database, facts, reader) == []
    after = REGISTRY.get_sample_value("siis_emergencies_opened_total", {"institution": "MINNA"})
    assert after == before + 1


@pytest.mark.parametrize(
    ("facts", "reason", "told", "hours"),
    [
        (person(), "danger-to-life", "now", 0),
        (person(), "disaster", "now", 0),
        (person(), "violence-in-progress", "delayed", 72),
        (person(), "child-in-danger", "delayed", 72),
        (person(barred=frozenset({str(uuid7())})), "danger-to-life", "suppressed", None),
        (person(deceased=True), "danger-to-life", "suppressed", None),
    ],
)
async def test_the_person_is_told_when_that_puts_nobody_in_danger(
    database: Database, audit: AuditLog, facts: SubjectFacts, reason: str, told: str, hours: int | None
) -> None:
    entry = await carry_out(database, audit, asked(emergency=replace(CLAIM, reason=reason)), facts)
    assert entry.detail is not None
    assert entry.detail["what"]["subject_notice"] == told
    assert len(await shown(database, facts, officer("MINNA"))) == 1
    if hours is None:
        assert await shown(database, facts, themself(facts), 24 * 365) == []
        return
    if hours:
        assert await shown(database, facts, themself(facts), hours - 1) == []
    assert len(await shown(database, facts, themself(facts), hours)) == 1


async def test_a_further_use_is_an_entry_and_told_again_only_when_it_reaches_more(
    database: Database, audit: AuditLog
) -> None:
    facts = person()
    narrow = asked(fields=FIELDS[:1])
    await carry_out(database, audit, narrow, facts)
    entry = await carry_out(database, audit, replace(narrow, at=AT + timedelta(minutes=5)), facts)
    assert entry.envelope["type"] == "breakglass.used"
    assert len(await shown(database, facts, officer("MINNA"), 1)) == 1
    await carry_out(database, audit, asked(at=AT + timedelta(minutes=6)), facts)
    assert len(await shown(database, facts, officer("MINNA"), 1)) == 2


async def test_nothing_is_opened_or_told_without_its_entry(database: Database, audit: AuditLog) -> None:
    facts = person()
    request = asked()

    async def rolled_back() -> None:
        async with database.transaction() as conn:
            await open_emergency(conn, audit, request, decided(request, facts), facts, None)
            raise errors.NotFound("not-found")

    with pytest.raises(errors.NotFound):
        await rolled_back()
    async with database.connection() as conn:
        found = await emergency.list_emergencies(conn, institution="MINNA", limit=200)
    assert facts.subject not in {each.subject for each in found}
    assert await shown(database, facts, officer("MINNA")) == []


@pytest.mark.parametrize("missing", ["claim", "user", "subject", "emergency"])
async def test_no_glass_is_opened_on_half_a_decision(database: Database, audit: AuditLog, missing: str) -> None:
    facts, request = person(), asked()
    decision = decided(request, facts)
    if missing == "claim":
        request = replace(request, emergency=None)
    elif missing == "user":
        request = replace(request, caller=replace(request.caller, user=None))
    elif missing == "subject":
        facts = SubjectFacts(subject=None)
    else:
        decision = replace(decision, emergency=False)
    async with database.transaction() as conn:
        with pytest.raises(TypeError):
            await open_emergency(conn, audit, request, decision, facts, None)


async def test_a_notice_is_seen_by_its_reader_alone_and_the_first_time_counts(
    database: Database, audit: AuditLog
) -> None:
    facts = person()
    await carry_out(database, audit, asked(), facts)
    [told] = await shown(database, facts, officer("MSPBS"))
    assert told.seen_at is None
    async with database.transaction() as conn:
        for reader, which in (
            (officer("MINNA"), told.id),
            (themself(facts), told.id),
            (Reader("MSPBS", frozenset(), None), told.id),
            (officer("MSPBS"), uuid7()),
        ):
            with pytest.raises(errors.NotFound):
                await notices.mark_seen(conn, reader, which, at=AT)
        for minutes in (5, 9):
            said = await notices.mark_seen(conn, officer("MSPBS"), told.id, at=AT + timedelta(minutes=minutes))
    assert (said["event"], said["seen_at"]) == ("notice.seen", (AT + timedelta(minutes=5)).isoformat())


async def test_what_waits_for_review_is_shown_to_prometheus_until_it_is_reviewed(database: Database, here: str) -> None:
    watch = EmergencyWatch(database)
    async with database.transaction() as conn:
        glass = UUID((await break_glass(conn, here))["id"])
    await watch.look()
    label = {"institution": here}
    assert REGISTRY.get_sample_value("siis_emergencies_unreviewed", label) == 1
    oldest = REGISTRY.get_sample_value("siis_emergencies_oldest_unreviewed_timestamp_seconds", label)
    assert oldest == AT.timestamp()
    async with database.transaction() as conn:
        await emergency.review(conn, MACHINE, glass, verdict="justified", at=AT)
    await watch.look()
    assert REGISTRY.get_sample_value("siis_emergencies_unreviewed", label) is None


async def test_the_watch_ends_when_it_is_told_to(database: Database) -> None:
    stop = asyncio.Event()
    watching = asyncio.create_task(EmergencyWatch(database).run(stop))
    stop.set()
    await asyncio.wait_for(watching, 30)
