"""What stands out in a log of a real database: each rule at its threshold and just below, for whom, never a name."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from rights_office import MACHINE, Office
from sqlalchemy import insert

from audit.models import Entry, Outcome
from consent.models import Caller
from consent.roles import grant_role
from gateway import errors, evidence
from gateway.dossier.anomalies import Anomalies, Finding, Report
from gateway.registry.tables import household
from schemas.codes import code_list
from schemas.ids import uuid7

RULES = code_list("anomalies")
WEEK = timedelta(days=7)
HOUR = timedelta(hours=1)


# Each test has a fortnight of its own in the log, from a Tuesday on, 10:00 on a clock in Asunción (UTC−3).
_weeks = iter(range(0, 400, 2))
_cedulas = (str(number) for number in range(3_000_000, 4_000_000))


@pytest.fixture
def start() -> datetime:
    return datetime(2031, 1, 7, 13, 0, tzinfo=UTC) + next(_weeks) * WEEK


def report(office: Office) -> Anomalies:
    context = office.context
    return Anomalies(governance=office.governance, audit=context.audit, vault=context.vault, epochs=context.epochs)


async def found(office: Office, start: datetime, institution: str | None = None) -> Report:
    return await report(office).report(start - HOUR * 24, start + WEEK, institution, {"user": "uid:0"})


async def of(office: Office, rule: str, start: datetime, institution: str | None = None) -> list[Finding]:
    return [each for each in (await found(office, start, institution)).findings if each.rule == rule]


def deed(at: datetime, user: str | None = "ana", subject: UUID | None = None, **changes: Any) -> Entry:
    """An innocent look-up: by day, with a case number, permitted."""
    told: dict[str, Any] = {
        "kind": "disclosure.released",
        "outcome": "permit",
        "institution": "MDS",
        "roles": ["operator"],
        "case": "EXP-1",
        "emergency": None,
        "exchange": {"outcome": "Found"},
        **changes,
    }
    outcome: Outcome = told["outcome"]
    actor = {"client": "mds-1", "institution": told["institution"], "user": user, "roles": told["roles"]}
    return evidence.entry(
        told["kind"],
        outcome,
        at=at,
        policy_version="v1",
        subject=subject,
        actor=actor,
        why={"purpose": "service-provision", "case": told["case"], "emergency": told["emergency"]},
        what={"holder": "PN-IDENT", "dataset": "identity"},
        exchange=told["exchange"],
    )


async def write(office: Office, deeds: list[Entry]) -> None:
    await office.context.audit.append_many(deeds)


async def test_look_ups_without_a_case_are_found_from_the_threshold_on(office: Office, start: datetime) -> None:
    least = RULES["no-case"]["at_least"]
    await write(office, [deed(start, "ana", uuid7(), case=None) for _number in range(least)])
    await write(office, [deed(start, "beto", uuid7(), case=None) for _number in range(least - 1)])
    await write(office, [deed(start, "beto", uuid7(), case=None, emergency={"reason": "x"}), deed(start, "beto")])
    [finding] = await of(office, "no-case", start)
    assert (finding.institution, finding.user, finding.client, finding.count) == ("MDS", "ana", None, least)
    assert len(set(finding.entries)) == least


@pytest.mark.parametrize(
    ("moved", "outside"),
    [
        (timedelta(0), False),
        (timedelta(hours=8, minutes=59), False),
        (timedelta(hours=9), True),
        (timedelta(hours=-4), False),
        (timedelta(hours=-4, seconds=-1), True),
        (timedelta(days=4), True),
    ],
    ids=["morning", "18:59", "19:00", "06:00", "05:59:59", "saturday"],
)
async def test_the_hours_of_the_office_are_those_of_paraguay(
    office: Office, start: datetime, moved: timedelta, outside: bool
) -> None:
    least = RULES["out-of-hours"]["at_least"]
    await write(office, [deed(start + moved, "ana", uuid7()) for _number in range(least)])
    # One less is nothing yet, and systems work by night.
    await write(office, [deed(start + moved, "beto", uuid7()) for _number in range(least - 1)])
    await write(office, [deed(start + moved, None, uuid7()) for _number in range(least)])
    assert [each.user for each in await of(office, "out-of-hours", start)] == (["ana"] if outside else [])


async def test_a_holiday_of_paraguay_is_outside_office_hours(office: Office) -> None:
    # Friday 15 August 2031 (the founding of Asunción), and the day before it.
    holiday = datetime(2031, 8, 15, 13, 0, tzinfo=UTC)
    least = RULES["out-of-hours"]["at_least"]
    await write(office, [deed(holiday, "feriado", uuid7()) for _number in range(least)])
    await write(office, [deed(holiday - 24 * HOUR, "jueves", uuid7()) for _number in range(least)])
    users = {each.user for each in await of(office, "out-of-hours", holiday)}
    assert "feriado" in users
    assert "jueves" not in users


async def test_one_person_looked_up_by_many_users_is_found_without_a_name(office: Office, start: datetime) -> None:
    least = RULES["one-by-many"]["at_least"]
    watched, usual = await office.person(next(_cedulas)), await office.person(next(_cedulas))
    await write(office, [deed(start, f"user-{number}", watched) for number in range(least)])
    await write(office, [deed(start, f"user-{number % (least - 1)}", usual) for number in range(3 * least)])
    [finding] = await of(office, "one-by-many", start)
    assert (finding.count, finding.institution, finding.user) == (least, "MDS", None)
    [[pseudonym]] = await office.rows("SELECT pseudonym FROM audit.subject_key WHERE subject = %s", watched)
    assert finding.pseudonym == pseudonym
    assert str(watched) not in json.dumps(dataclasses.asdict(finding), default=str)


async def test_many_persons_are_many_beside_the_median_of_the_same_roles(office: Office, start: datetime) -> None:
    rule = RULES["many-by-one"]
    least, times = rule["at_least"], rule["median"]
    few = least // times
    for user, persons in (("ana", few), ("beto", few), ("carla", few), ("mira", least)):
        await write(office, [deed(start, user, uuid7()) for _number in range(persons)])
    # The same number in another role, where all have as many; and one person asked about often.
    for user in ("dora", "elsa", "fede"):
        await write(office, [deed(start, user, uuid7(), roles=["supervisor"]) for _number in range(least)])
    same = uuid7()
    await write(office, [deed(start, "gabi", same) for _number in range(least)])
    [finding] = await of(office, "many-by-one", start)
    assert (finding.user, finding.count, finding.usual) == ("mira", least, few)
    assert len(finding.entries) == 20


async def at_home(office: Office, *cedulas: str) -> list[UUID]:
    """Register a household."""
    home = uuid7()
    async with office.context.database.transaction() as connection:
        await connection.execute(insert(household).values(id=home))
    return [await office.person(cedula, household_id=home) for cedula in cedulas]


async def test_people_in_a_colleagues_home_and_ones_own_record_are_found(office: Office, start: datetime) -> None:
    own, child = next(_cedulas), next(_cedulas)
    colleague, relative = await at_home(office, own, child)
    stranger = await office.person(next(_cedulas))
    # The colleague looks at somebody else, at themselves, and is looked at; the child is looked at by another.
    await write(office, [deed(start, own, stranger), deed(start, own, colleague)])
    await write(office, [deed(start, "ana", relative), deed(start, "ana", stranger), deed(start, "ana", colleague)])
    # At another institution nobody of that home works.
    await write(office, [deed(start, "beto", relative, institution="MTESS")])
    told = await found(office, start)
    by_rule = {(each.rule, each.institution, each.user, each.count) for each in told.findings}
    assert by_rule == {("own-record", "MDS", own, 1), ("colleagues-home", "MDS", "ana", 1)}


async def test_a_colleague_who_only_holds_a_role_counts_as_one(office: Office, start: datetime) -> None:
    own = next(_cedulas)
    _colleague, relative = await at_home(office, own, next(_cedulas))
    await write(office, [deed(start, "ana", relative)])
    assert await of(office, "colleagues-home", start) == []
    async with office.context.database.transaction() as connection:
        await grant_role(
            connection, MACHINE, institution="MDS", user=own, role="auditor", valid_to=None, at=start - WEEK
        )
    [finding] = await of(office, "colleagues-home", start)
    assert finding.user == "ana"


async def test_emergencies_of_a_user_are_counted_together(office: Office, start: datetime) -> None:
    least = RULES["break-glass"]["at_least"]
    kinds = ["breakglass.opened", *["breakglass.used"] * (least - 1)]
    await write(office, [deed(start, "ana", uuid7(), kind=kind, case=None) for kind in kinds])
    await write(office, [deed(start, "beto", uuid7(), kind=kind, case=None) for kind in kinds[1:]])
    told = await found(office, start)
    assert [(each.rule, each.user, each.count) for each in told.findings] == [("break-glass", "ana", least)]


async def test_refused_and_not_found_look_ups_of_a_user_are_guessing(office: Office, start: datetime) -> None:
    least = RULES["refused"]["at_least"]
    denied = {"kind": "disclosure.denied", "outcome": "deny", "exchange": {}}
    missed = {"kind": "disclosure.unanswered", "outcome": "failed", "exchange": {"outcome": "NotFound"}}
    silent = {"kind": "disclosure.unanswered", "outcome": "failed", "exchange": {"outcome": "Unavailable"}}
    await write(office, [deed(start, "ana", None, **denied) for _number in range(least - 1)])
    await write(office, [deed(start, "beto", None, **denied) for _number in range(least - 1)])
    await write(office, [deed(start, "ana", uuid7(), **missed), deed(start, "beto", uuid7(), **silent)])
    [finding] = await of(office, "refused", start)
    assert (finding.user, finding.count) == ("ana", least)


async def test_an_auditor_sees_their_own_institution_and_the_coordinators_all(office: Office, start: datetime) -> None:
    least = RULES["no-case"]["at_least"]
    for institution in ("MDS", "MTESS"):
        entries = [deed(start, f"u-{institution}", uuid7(), case=None, institution=institution) for _n in range(least)]
        await write(office, entries)
    period = (start - 24 * HOUR, start + WEEK)
    mds, utgs = await auditor(office, "MDS"), await auditor(office, "UTGS")
    anomalies = report(office)
    own = await anomalies.read(mds, *period, None)
    assert {each.institution for each in own.findings} == {"MDS"}
    assert {each.institution for each in (await anomalies.read(utgs, *period, None)).findings} == {"MDS", "MTESS"}
    assert {each.institution for each in (await anomalies.read(utgs, *period, "MTESS")).findings} == {"MTESS"}
    with pytest.raises(errors.NotFound):
        await anomalies.read(mds, *period, "MTESS")
    with pytest.raises(errors.Denied):
        await anomalies.read(dataclasses.replace(mds, user="nobody", roles=frozenset({"operator"})), *period, None)
    with pytest.raises(errors.BadRequest):
        await anomalies.read(mds, start, start, None)
    with pytest.raises(errors.BadRequest):
        await anomalies.read(utgs, *period, "NADIE")
    newest = (await office.entries("log.anomalies_read", 1))[0]
    assert newest.detail is not None
    assert newest.detail["actor"]["institution"] == "UTGS"
    assert newest.detail["what"]["institution"] == "MTESS"


async def test_an_auditor_is_not_told_how_much_was_erased_elsewhere(office: Office, start: datetime) -> None:
    people = {institution: await office.person(next(_cedulas)) for institution in ("MSPBS", "MTESS")}
    for institution, person in people.items():
        await write(office, [deed(start, "ana", person, institution=institution)])
        office.erase(person)
    period = (start - 24 * HOUR, start + WEEK)
    anomalies = report(office)
    assert (await found(office, start)).unreadable == 2
    assert (await anomalies.read(await auditor(office, "MSPBS"), *period, None)).unreadable == 1
    assert (await anomalies.read(await auditor(office, "MEC"), *period, None)).unreadable == 0


async def auditor(office: Office, institution: str) -> Caller:
    user = f"aud.{institution.lower()}"
    async with office.context.database.transaction() as connection:
        await grant_role(
            connection,
            MACHINE,
            institution=institution,
            user=user,
            role="auditor",
            valid_to=None,
            at=office.at - timedelta(days=1),
        )
        await office.policies.load(connection)
    return Caller(
        client_id=f"{institution.lower()}-1",
        institution=institution,
        user=user,
        user_verified=True,
        roles=frozenset({"auditor"}),
        assurance=2,
    )


async def test_the_reading_is_in_the_log_although_nothing_could_be_read(office: Office, start: datetime) -> None:
    person = await office.person(next(_cedulas))
    await write(office, [deed(start, "ana", person, case=None)])
    office.erase(person)
    before = {entry.entry_id for entry in await office.entries("log.anomalies_read")}
    told = await found(office, start)
    assert (told.looked_at, told.unreadable, told.findings) == (0, 1, ())
    assert len({entry.entry_id for entry in await office.entries("log.anomalies_read")} - before) == 1


async def test_only_the_largest_findings_of_a_rule_are_shown_and_the_rest_counted(
    office: Office, start: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.dossier.anomalies._SHOWN", 2)
    least = RULES["no-case"]["at_least"]
    for number in range(4):
        await write(office, [deed(start, f"user-{number}", uuid7(), case=None) for _n in range(least + number)])
    told = await found(office, start)
    assert [each.count for each in told.findings] == [least + 3, least + 2]
    assert told.more == {"no-case": 2}
