"""A search of the log finds exactly what a look at every entry finds, whatever is asked and however it is paged."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from audit_examples import EPOCHS, in_the_year, integrate
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import search as searching
from audit.models import Entry
from audit.search import Criteria, Cursor, read_cursor, search
from audit.service import AuditLog
from audit.terms import term, user_term
from tests.integration.audit_database import AuditDatabase, fresh_audit_database

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTIES, PURPOSES = ("MDS", "MSPBS", "MEC", "UTGS"), ("service-provision", "public-benefit")
BASES, DATASETS = ("official-authority", "consent"), ("identity", "household", "service:abrazo")
REASONS = ("objection", "compartment")
TYPES = ("disclosure.released", "disclosure.denied", "referral.created", "log.searched")
REFERRALS = [str(uuid4()) for _ in range(5)]
START = datetime(2025, 12, 20, tzinfo=UTC)
Fits = Callable[[Entry], bool]


@dataclass
class Filled:
    """A log of two years with what was written to it, in the order of its numbers, the newest first."""

    db: AuditDatabase
    log: AuditLog
    key: bytes
    subjects: list[UUID]
    pseudonyms: dict[UUID, UUID] = field(default_factory=dict)
    entries: list[tuple[Cursor, Entry]] = field(default_factory=list)

    async def write(self, entries: list[Entry], year: int) -> None:
        by_id = {entry.id: entry for entry in entries}
        for receipt, entry in zip(await self.log.append_many(entries), entries, strict=True):
            if receipt.pseudonym is not None and entry.subject is not None:
                self.pseudonyms[entry.subject] = receipt.pseudonym
        await integrate(self.db.app, year=year)
        async with self.db.app.connect() as conn:
            rows = await conn.exec_driver_sql("SELECT log, index, entry_id FROM audit.sequence")
            known = {place for place, _entry in self.entries}
            new = [
                (Cursor(log, index), by_id.get(entry_id) or opening(entry_id, year))
                for log, index, entry_id in rows
                if (log, index) not in known
            ]
        self.entries = sorted([*self.entries, *new], key=lambda each: each[0], reverse=True)

    async def all_pages(self, criteria: Criteria, limit: int) -> list[UUID]:
        found: list[UUID] = []
        after: Cursor | None = None
        async with self.db.app.connect() as conn:
            while True:
                page = await search(conn, EPOCHS, criteria, after=after, limit=limit)
                assert len(page.entries) <= limit
                found += [entry.entry_id for entry in page.entries]
                if page.next is None:
                    return found
                # As a caller hands it back.
                after = read_cursor(str(page.next))

    def scan(self, fits: Fits) -> list[UUID]:
        return [entry.id for _place, entry in self.entries if fits(entry)]


def opening(entry_id: UUID, year: int) -> Entry:
    """Return what the log itself writes first in a new year."""
    return Entry(at=in_the_year(year)(), type="log.opened", outcome="done", policy_version="none", id=entry_id)


def random_entry(chance: random.Random, number: int, subjects: list[UUID]) -> Entry:
    groups: dict[str, dict[str, Any]] = {
        "actor": {"institution": chance.choice(PARTIES), "user": f"op-{chance.randrange(6)}"},
        "why": {"purpose": chance.choice(PURPOSES), "basis": chance.choice(BASES)},
        "what": {"holder": chance.choice(PARTIES), "dataset": chance.choice(DATASETS)},
    }
    if chance.random() < 0.05:
        groups["what"]["withheld"] = {"surnames": chance.choice(REASONS)}
    if chance.random() < 0.05:
        groups["exchange"] = {"referral": chance.choice(REFERRALS), "recipient": chance.choice(PARTIES)}
    late = timedelta(days=9) if chance.random() < 0.02 else timedelta()
    return Entry(
        at=START + timedelta(minutes=10 * number) - late,
        type=chance.choice(TYPES),
        outcome=chance.choice(("permit", "deny", "done")),
        policy_version="1",
        subject=chance.choice([None, *subjects]),
        groups=groups,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled() -> AsyncIterator[Filled]:
    chance = random.Random(5)
    subjects = [uuid4() for _ in range(12)]
    async with fresh_audit_database() as db:
        log = AuditLog(db.app, EPOCHS, "gateway-1")
        made = Filled(db, log, await log.search_key(), subjects)
        await made.write([random_entry(chance, number, subjects) for number in range(700)], 2025)
        # Three full blocks and a bit, taken in as they come; some entries are told of long after they happened.
        for start in range(700, 1500, 160):
            await made.write([random_entry(chance, number, subjects) for number in range(start, start + 160)], 2026)
        yield made
        await log.close()


def parties(entry: Entry) -> set[Any]:
    actor, what, exchange = (entry.groups.get(name, {}) for name in ("actor", "what", "exchange"))
    return {actor.get("institution"), what.get("holder"), exchange.get("recipient")}


def reasons(entry: Entry) -> set[str]:
    return set(entry.groups.get("what", {}).get("withheld", {}).values())


def part(group: str, name: str, value: str) -> Fits:
    return lambda entry: entry.groups.get(group, {}).get(name) == value


# Each criterion as a search knows it, and what it means of an entry.
def criterion(filled: Filled, name: str, value: Any) -> tuple[Criteria, Fits]:
    terms = frozenset({term(name, value)}) if isinstance(value, str) else frozenset[str]()
    match name:
        case "party":
            return Criteria(terms=terms), lambda entry: value in parties(entry)
        case "user":
            institution, user = value
            wanted = frozenset({user_term(filled.key, institution, user)})
            return Criteria(
                terms=wanted
            ), lambda entry: part("actor", "institution", institution)(entry) and part("actor", "user", user)(entry)
        case "purpose" | "basis":
            return Criteria(terms=terms), part("why", name, value)
        case "dataset":
            return Criteria(terms=terms), part("what", name, value)
        case "referral":
            return Criteria(terms=terms), part("exchange", name, value)
        case "withheld":
            return Criteria(
                terms=terms
            ), lambda entry: value in entry.groups.get("what", {}).get("withheld", {}).values()
        case "outcome":
            return Criteria(terms=terms), lambda entry: entry.outcome == value
        case "type":
            return Criteria(terms=terms), lambda entry: entry.type == value
        case "subject":
            return Criteria(pseudonym=filled.pseudonyms[value]), lambda entry: entry.subject == value
        case "since":
            return Criteria(since=value), lambda entry: entry.at >= value
        case "until":
            return Criteria(until=value), lambda entry: entry.at < value
    raise ValueError(name)


VALUES: dict[str, list[Any]] = {
    "party": [*PARTIES, "MINNA"],
    "user": [("MDS", "op-1"), ("MEC", "op-5"), (None, "op-1")],
    "purpose": [*PURPOSES],
    "basis": [*BASES],
    "dataset": [*DATASETS],
    "referral": [*REFERRALS],
    "withheld": [*REASONS],
    "outcome": ["permit", "deny", "failed"],
    "type": [*TYPES, "breach.opened"],
    "subject": [0, 3, 7],
    "since": [START + timedelta(days=days) for days in (0, 3, 5, 9)],
    "until": [START + timedelta(days=days) for days in (1, 5, 6, 20)],
}


def combined(filled: Filled, asked: dict[str, Any]) -> tuple[Criteria, Fits]:
    made = []
    for name, value in asked.items():
        made.append(criterion(filled, name, filled.subjects[value] if name == "subject" else value))
    criteria = Criteria(
        terms=frozenset[str]().union(*(each.terms for each, _fits in made)),
        pseudonym=next((each.pseudonym for each, _fits in made if each.pseudonym), None),
        since=next((each.since for each, _fits in made if each.since), None),
        until=next((each.until for each, _fits in made if each.until), None),
    )
    return criteria, lambda entry: all(fits(entry) for _criteria, fits in made)


@pytest.mark.parametrize("name", VALUES)
async def test_each_criterion_alone_finds_what_a_look_at_every_entry_finds(filled: Filled, name: str) -> None:
    for value in VALUES[name]:
        criteria, fits = combined(filled, {name: value})
        assert await filled.all_pages(criteria, 50) == filled.scan(fits), value


async def test_without_criteria_everything_is_found_newest_number_first(filled: Filled) -> None:
    assert await filled.all_pages(Criteria(), 200) == [entry.id for _place, entry in filled.entries]
    assert {place.log for place, _entry in filled.entries} == {2025, 2026}


@settings(deadline=None, max_examples=40)
@given(
    asked=st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()}),
    limit=st.sampled_from([5, 50]),
    blocks=st.sampled_from([1, 2, 64]),
)
async def test_criteria_combine_however_small_the_pages_and_the_part_looked_at(
    filled: Filled, asked: dict[str, Any], limit: int, blocks: int
) -> None:
    criteria, fits = combined(filled, asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "BLOCKS", blocks)
        assert await filled.all_pages(criteria, limit) == filled.scan(fits)


async def test_blocks_that_can_hold_no_hit_are_not_looked_at(filled: Filled) -> None:
    # Each of the two logs has one block that still grows and must be looked at; one more is all there is left for.
    early = min(entry.at for _place, entry in filled.entries) + timedelta(minutes=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "BLOCKS", 3)
        async with filled.db.app.connect() as conn:
            none = await search(conn, EPOCHS, Criteria(terms=frozenset({"type=breach.opened"})), limit=5)
            first = await search(conn, EPOCHS, Criteria(until=early), limit=50)
            everything = await search(conn, EPOCHS, Criteria(terms=frozenset({"party=MDS"})), limit=1000)
    assert (none.entries, none.next) == ([], None)
    assert [entry.entry_id for entry in first.entries] == filled.scan(lambda entry: entry.at < early) != []
    assert everything.next is not None


async def test_pages_stay_whole_while_others_write_and_what_waits_is_not_shown() -> None:
    chance = random.Random(1)
    async with fresh_audit_database() as db:
        log = AuditLog(db.app, EPOCHS, "gateway-1")
        made = Filled(db, log, await log.search_key(), [uuid4()])
        await made.write([random_entry(chance, number, made.subjects) for number in range(300)], 2026)
        before = [entry.id for _place, entry in made.entries]
        found: list[UUID] = []
        after: Cursor | None = None
        for number in range(300, 310):
            async with db.app.connect() as conn:
                page = await search(conn, EPOCHS, Criteria(), after=after, limit=30)
            found += [entry.entry_id for entry in page.entries]
            after = page.next
            if number % 2:
                await made.write([random_entry(chance, number, made.subjects)], 2026)
            else:
                await log.append(random_entry(chance, number, made.subjects))
        assert found == before
        assert after is not None
        async with db.app.connect() as conn:
            assert await search(conn, EPOCHS, Criteria(), after=after, limit=30) == searching.Page([], None)
        await log.close()


async def test_an_erased_person_is_found_without_detail() -> None:
    chance = random.Random(2)
    async with fresh_audit_database() as db:
        log = AuditLog(db.app, EPOCHS, "gateway-1")
        made = Filled(db, log, await log.search_key(), [uuid4(), uuid4()])
        await made.write([random_entry(chance, number, made.subjects) for number in range(40)], 2026)
        gone, pseudonym = made.subjects[0], made.pseudonyms[made.subjects[0]]
        async with db.admin.begin() as conn:
            await conn.exec_driver_sql("UPDATE audit.subject_key SET wrapped_key = NULL WHERE subject = %s", (gone,))
        async with db.app.connect() as conn:
            page = await search(conn, EPOCHS, Criteria(pseudonym=pseudonym), limit=50)
            everything = await search(conn, EPOCHS, Criteria(), limit=50)
        assert [entry.entry_id for entry in page.entries] == made.scan(lambda entry: entry.subject == gone)
        assert {entry.detail is None for entry in page.entries} == {True}
        whole = {entry.entry_id for entry in everything.entries if entry.detail is not None}
        assert whole == set(made.scan(lambda entry: entry.subject != gone))
        await log.close()


@pytest.mark.parametrize(
    "given",
    ["", "x", "MjAyNi4x=", "MjAyNi4x\n", "MjAyNg", "LTEuMQ", "MjAyNi4tMQ", "MDIwMjYuMQ", "OTk5OTkuMQ", "ñ", "A" * 64],
)
async def test_what_is_no_cursor_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        read_cursor(given)
