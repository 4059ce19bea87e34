"""Breaches on a real database: whom the log says they concern, who gets the list, and the 72 hours to tell them."""

from __future__ import annotations

import csv
import io
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from rights_office import OPERATOR, START, Office, command
from sqlalchemy import insert

from audit.affected import Scope, affected
from consent import tables as consent_tables
from consent.models import Caller
from gateway import errors, evidence
from gateway.rights.models import NewBreach
from schemas.ids import uuid7

DAY = timedelta(days=1)
STOLEN = NewBreach(
    kind="stolen-credentials",
    what="Se robaron las claves del sistema.",
    since=START - DAY,
    known_at=START,
    until=START + DAY,
)


_cedulas = iter(range(1_000_000, 2_000_000))
# Each test has a month of its own in the log.
_months = iter(range(1, 100))


@pytest.fixture
def month() -> timedelta:
    return timedelta(days=40 * next(_months))


async def persons(office: Office, count: int) -> list[UUID]:
    return [await office.person(str(next(_cedulas))) for _number in range(count)]


async def found(office: Office, scope: Scope) -> list[UUID | None]:
    async with (
        office.context.database.connection() as connection,
        aclosing(affected(connection, office.context.epochs, scope)) as drawn,
    ):
        return [each async for each in drawn]


async def opened(office: Office, officer: Caller, **changes: Any) -> UUID:
    done = await office.breaches.change(officer, office.breaches.opening(replace(STOLEN, **changes)), command())
    return UUID(done.answer["breach"])


async def drawn(office: Office, officer: Caller, breach: UUID) -> tuple[int, int]:
    done = await office.breaches.change(officer, office.breaches.drawing(breach))
    return done.answer["affected"], done.answer["erased"]


async def exported(office: Office, officer: Caller, breach: UUID) -> list[list[str]]:
    lines, _receipt = await office.breaches.export(officer, breach)
    text = b"".join([line async for line in lines]).decode()
    return list(csv.reader(io.StringIO(text, newline="")))


# Whom the log names


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({}, {"plain", "other client", "other dataset", "holder", "for another", "referral"}),
        ({"client": "mds-1"}, {"plain", "other dataset", "holder"}),
        ({"institution": "MDS"}, {"plain", "other dataset", "holder", "for another"}),
        ({"institution": "MSPBS"}, {"referral"}),
        ({"institution": "IPS"}, {"other dataset"}),
        ({"datasets": frozenset({"insurance"})}, {"other dataset"}),
        ({"datasets": frozenset({"identity"}), "client": "mds-1"}, {"plain", "holder"}),
        ({"client": "nobody"}, set()),
    ],
)
async def test_the_list_names_whom_something_in_scope_was_exchanged_about_and_nobody_else(
    office: Office, month: timedelta, scope: dict[str, Any], expected: set[str]
) -> None:
    at = START + month
    names = {
        "plain": {},
        "other client": {"client": "mec-1", "institution": "MEC"},
        "other dataset": {"dataset": "insurance", "holder": "IPS"},
        "holder": {"kind": "status.released", "outcome": "permit_redacted"},
        "denied": {"kind": "disclosure.denied", "outcome": "deny"},
        "unanswered": {"kind": "disclosure.unanswered", "outcome": "failed"},
        "only asked": {"kind": "disclosure.intent"},
        "before": {"at": at - timedelta(microseconds=1)},
        "after": {"at": at + DAY},
    }
    people: dict[UUID | None, str] = {}
    for name, changes in names.items():
        [person] = await persons(office, 1)
        people[person] = name
        await office.exchanged(person, **{"at": at, **changes})
    for name, groups in {
        "for another": {"actor": {"client": "mitic-1", "institution": "MITIC", "on_behalf_of": "MDS"}},
        "referral": {"exchange": {"recipient": "MSPBS"}},
    }.items():
        [person] = await persons(office, 1)
        people[person] = name
        entry = evidence.entry("referral.transmitted", "done", at=at, policy_version="v", subject=person, **groups)
        await office.context.audit.append(entry)
    assert sorted(people[each] for each in await found(office, Scope(since=at, until=at + DAY, **scope))) == sorted(
        expected
    )


async def test_everybody_is_named_once_however_many_entries_there_are(office: Office, month: timedelta) -> None:
    at, people = START + month, [uuid7() for _number in range(450)]
    entries = [
        evidence.entry(
            "disclosure.released",
            "permit",
            at=at,
            policy_version="v",
            subject=person,
            actor={"client": "mds-1" if number else "mec-1", "institution": "MDS"},
        )
        # Three entries each, of which the last two are in scope: groups of rows end in the middle of a person.
        for number in range(3)
        for person in people
    ]
    await office.context.audit.append_many(entries)
    drawn = await found(office, Scope(since=at, until=at + DAY, client="mds-1"))
    assert len(drawn) == len(people)
    assert set(drawn) == set(people)


async def test_who_was_erased_is_counted_without_a_name(office: Office, month: timedelta) -> None:
    at, (gone, here) = START + month, await persons(office, 2)
    for person in (gone, gone, here):
        await office.exchanged(person, at=at)
    office.erase(gone)
    assert sorted(await found(office, Scope(since=at, until=at + DAY)), key=str) == sorted([None, here], key=str)
    office.at = at
    officer = await office.officer("MDS")
    breach = await opened(office, officer, since=at, known_at=at, until=at + DAY)
    assert await drawn(office, officer, breach) == (1, 1)


# Whose breach it is


async def test_an_officers_list_holds_only_persons_of_the_institutions_own_exchanges(
    office: Office, month: timedelta
) -> None:
    office.at = at = START + month
    mine, theirs = await persons(office, 2)
    await office.exchanged(mine, at=at)
    await office.exchanged(theirs, at=at, client="mec-1", institution="MEC", holder="MSPBS")
    officer = await office.officer("MDS")
    # What an officer says of the party does not count.
    breach = await opened(office, officer, since=at, known_at=at, until=at + DAY, party="MSPBS")
    assert await drawn(office, officer, breach) == (1, 0)
    assert await office.rows("SELECT person_id FROM siis.breach_person WHERE breach_id = %s", breach) == [(mine,)]
    said = await office.governance.change_here(
        office.breaches.opening(replace(STOLEN, since=at, known_at=at, until=at + DAY))
    )
    everybody = await office.governance.change_here(office.breaches.drawing(UUID(said["breach"])))
    assert (said["institution"], said["party"], everybody["affected"]) == ("UTGS", None, 2)


async def test_another_institution_cannot_tell_a_breach_from_none(office: Office, month: timedelta) -> None:
    office.at = at = START + month
    breach = await opened(office, await office.officer("MDS"), since=at, known_at=at, until=None)
    other = await office.officer("MEC")
    for attempt in (
        office.breaches.read(other, breach),
        office.breaches.export(other, breach),
        office.breaches.change(other, office.breaches.drawing(breach)),
        office.breaches.change(other, office.breaches.telling(breach, "agency", None)),
        office.breaches.read(other, uuid7()),
    ):
        with pytest.raises(errors.NotFound):
            await attempt
    assert breach not in {each.id for each in await office.breaches.page(other, after=None, limit=200)}
    for attempt in (office.breaches.read(OPERATOR, breach), office.breaches.page(OPERATOR, after=None, limit=5)):
        with pytest.raises(errors.Denied):
            await attempt


# The list


async def test_the_export_names_persons_after_its_entry_and_leaves_protected_cases_out(
    office: Office, month: timedelta
) -> None:
    office.at = at = START + month
    cedulas = [str(next(_cedulas)) for _number in range(3)]
    plain = await office.person(cedulas[0], given_names="=HYPERLINK(1)", surnames='Ficticia, "Ña"')
    sealed, stateless = await office.person(cedulas[1]), await office.person(cedulas[2], identifiers=())
    barring = await office.person(str(next(_cedulas)))
    for person in (plain, sealed, stateless, barring):
        await office.exchanged(person, at=at)
    async with office.context.database.transaction() as connection:
        for person, kind, target in (
            (sealed, "sealed", ""),
            (barring, "aggressor", "MDS"),
            (plain, "aggressor", "MEC"),
        ):
            row = {"subject": person, "kind": kind, "target": target, "since": at}
            await connection.execute(insert(consent_tables.protective_flag), row)
    officer = await office.officer("MDS")
    breach = await opened(office, officer, since=at, known_at=at, until=at + DAY)
    with pytest.raises(errors.Conflict, match="breach-out-of-order"):
        await office.breaches.export(officer, breach)
    assert await drawn(office, officer, breach) == (4, 0)
    header, *rows = await exported(office, officer, breach)
    assert header == ["system", "identifier", "given_names", "surnames"]
    assert sorted(rows) == sorted(
        [
            ["cedula", cedulas[0], "'=HYPERLINK(1)", 'Ficticia, "Ña"'],
            ["siis", str(stateless), "Ña Eme", "Ficticia"],
        ]
    )
    [entry] = await office.entries("breach.exported", 1)
    assert entry.detail is not None
    assert entry.detail["what"] == {"breach": str(breach), "persons": 2, "protected": 2}
    assert entry.detail["actor"]["user"] == officer.user


async def test_drawing_again_adds_who_was_found_since_and_reading_the_log_is_an_entry(
    office: Office, month: timedelta
) -> None:
    office.at = at = START + month
    first, second = await persons(office, 2)
    await office.exchanged(first, at=at)
    officer = await office.officer("MDS")
    breach = await opened(office, officer, since=at, known_at=at, until=None)
    office.at = at + timedelta(hours=1)
    assert await drawn(office, officer, breach) == (1, 0)
    await office.exchanged(second, at=office.at)
    office.at += timedelta(hours=1)
    assert await drawn(office, officer, breach) == (2, 0)
    [read] = await office.entries("log.read", 1)
    assert read.detail is not None
    assert read.detail["what"]["breach"] == str(breach)
    assert read.detail["actor"]["user"] == officer.user


# The clock


async def test_a_breach_is_told_to_the_agency_and_to_people_before_it_is_closed(
    office: Office, month: timedelta
) -> None:
    office.at = at = START + month
    await office.exchanged((await persons(office, 1))[0], at=at)
    officer = await office.officer("MDS")
    breach = await opened(office, officer, since=at, known_at=at, until=at + DAY)
    shown = await office.breaches.read(officer, breach)
    assert shown.due_at == at + timedelta(hours=72)
    assert shown.what == STOLEN.what

    def do(step: str) -> Any:
        work = {
            "agency": office.breaches.telling(breach, "agency", None),
            "people": office.breaches.telling(breach, "people", None),
            "draw": office.breaches.drawing(breach),
            "close": office.breaches.closing(breach, "Se cambiaron las claves."),
        }[step]
        return office.breaches.change(officer, work)

    for step in ("people", "close"):
        with pytest.raises(errors.Conflict, match="breach-out-of-order"):
            await do(step)
    await do("draw")
    told = await do("agency")
    assert told.answer["late"] is False
    for step in ("agency", "close"):
        with pytest.raises(errors.Conflict, match="breach-out-of-order"):
            await do(step)
    office.at = at + timedelta(hours=72, seconds=1)
    assert (await do("people")).answer["late"] is True
    await do("close")
    shown = await office.breaches.read(officer, breach)
    assert (shown.closed_at, shown.measures) == (office.at, "Se cambiaron las claves.")
    for step in ("draw", "close"):
        with pytest.raises(errors.Conflict, match="breach-out-of-order"):
            await do(step)
    assert len(await exported(office, officer, breach)) == 2


async def test_a_breach_that_concerned_nobody_needs_no_notice_to_people(office: Office, month: timedelta) -> None:
    office.at = at = START + month
    officer = await office.officer("MDS")
    breach = await opened(office, officer, since=at, known_at=at, until=at + DAY, client="nobody")
    assert await drawn(office, officer, breach) == (0, 0)
    await office.breaches.change(officer, office.breaches.telling(breach, "agency", None))
    await office.breaches.change(officer, office.breaches.closing(breach, "Nada salió."))
    assert (await office.breaches.read(officer, breach)).closed_at == at


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"kind": "bad-luck"}, "unknown-code", "/kind"),
        ({"datasets": frozenset({"stars"})}, "unknown-code", "/datasets"),
        ({"known_at": START + timedelta(seconds=1)}, "breach-times", "/known_at"),
        ({"since": START + timedelta(seconds=1)}, "breach-times", "/known_at"),
        ({"until": START - DAY}, "breach-times", "/until"),
        ({"party": "NASA"}, "unknown-code", "/institution"),
    ],
)
async def test_a_breach_that_cannot_be_is_not_opened(
    office: Office, changes: dict[str, Any], code: str, pointer: str
) -> None:
    with pytest.raises(errors.BadRequest, match=code) as refused:
        await office.governance.change_here(office.breaches.opening(replace(STOLEN, **changes)))
    assert refused.value.pointer == pointer


async def test_nobody_was_told_before_it_was_known_or_will_be_later(office: Office, month: timedelta) -> None:
    office.at = at = START + month
    officer = await office.officer("MDS")
    breach = await opened(office, officer, since=at - DAY, known_at=at - timedelta(hours=1), until=at)
    for moment in (at - timedelta(hours=2), at + timedelta(seconds=1)):
        with pytest.raises(errors.BadRequest, match="breach-times"):
            await office.breaches.change(officer, office.breaches.telling(breach, "agency", moment))


async def test_what_happened_is_stored_encrypted(office: Office, month: timedelta) -> None:
    office.at = at = START + month
    breach = await opened(office, await office.officer("MDS"), since=at, known_at=at, until=None)
    stored = await office.rows("SELECT b::text FROM siis.breach b WHERE id = %s", breach)
    [entry] = await office.entries("breach.opened", 1)
    for place in (str(stored), str(entry.detail)):
        assert "robaron" not in place
        assert b"robaron".hex() not in place
