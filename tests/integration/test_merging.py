"""Persons found to be one and parted again, on a real database: nothing is lost, and each is as they were."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from psycopg import errors as refusals
from rights_office import START, Office, citizen, open_office
from sqlalchemy import select, text
from sqlalchemy.exc import ProgrammingError
from status_world import noon

from consent import people, restrictions
from gateway import errors
from gateway.catalogue.service import services as catalogue_services
from gateway.clock import local_day
from gateway.database import Database
from gateway.erasure.service import Erasures, Order
from gateway.governance.merges import Merges
from gateway.governance.people import Named
from gateway.governance.protection import FlagChange, NewMandate, Protection
from gateway.governance.usage import Asked, Usage
from gateway.referrals.releases import people_of
from gateway.registry import mass, recompute
from gateway.registry import service as registry
from gateway.registry.facts import subject_facts
from gateway.registry.local_ids import LOCAL, new_local_id
from gateway.registry.lookup import SubjectLookup
from gateway.registry.observations import Origin, Unit, observe, observed
from gateway.registry.status import compute, status_on
from gateway.registry.tables import person
from gateway.registry.units import read_facts, read_units
from gateway.settings import Settings

_cedulas = iter(range(5_100_001, 5_900_000))
BORN = date(1990, 5, 1)


class Pair:
    """Two records: one with a cédula, one with a number of ours; ``survivor`` and ``absorbed`` name them."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.desk = Merges(office.governance, office.context.vault, audit=office.context.audit)
        self.protection = Protection(office.governance, office.context.vault)
        self.survivor, self.absorbed = Named("cedula", str(next(_cedulas))), Named(LOCAL, new_local_id())

    async def registered(self, survivor: dict[str, Any] | None = None, **absorbed: Any) -> Pair:
        self.one = await self.office.person(self.survivor.value, **{"birth_date": BORN, "sex": "F", **(survivor or {})})
        values = {"birth_date": BORN, "sex": "F", "identifiers": (tuple(self.absorbed),), **absorbed}
        self.other = await self.office.person("", **values)
        return self

    async def merge(self, **changes: Any) -> dict[str, Any]:
        done = await self.desk.merge(None, self.survivor, self.absorbed, **{"reason": "double-form", **changes})
        return done.answer

    async def unmerge(self) -> dict[str, Any]:
        return (await self.desk.unmerge(None, self.absorbed, reason="other-person")).answer

    async def found(self, named: Named) -> UUID | None:
        async with self.office.context.database.connection() as connection:
            who = await registry.find_person(connection, self.office.context.vault, *named)
        return None if who is None else who.id

    async def row(self, of: UUID) -> dict[str, Any]:
        async with self.office.context.database.connection() as connection:
            [found] = (await connection.execute(select(person).where(person.c.id == of))).mappings()
        return dict(found)

    async def facts(self, of: UUID) -> Any:
        async with self.office.context.database.connection() as connection:
            [who] = (await people_of(connection, self.office.context.vault, [of])).values()
            return await subject_facts(connection, who.ref)

    async def fact(self, of: UUID, service: str, protected: bool, day: date) -> None:
        async with self.office.context.database.transaction() as connection:
            services = await catalogue_services(connection)
            origin = Origin(source="MSPBS", instrument="institution-report", observed_on=day)
            await registry.record_facts(connection, {Unit("person", of): {service: protected}}, origin, noon(day))
            await recompute.arrived(connection, services, persons=[of], at=noon(day), because="arrival")

    async def saw(self, of: UUID, day: date, **values: str) -> None:
        async with self.office.context.database.transaction() as connection:
            origin = Origin(source="UTGS", instrument="fips", observed_on=day)
            await observe(connection, {Unit("person", of): values}, origin, noon(day))


@pytest.fixture
def pair(office: Office) -> Pair:
    office.at = START
    return Pair(office)


# Who is found


async def test_every_identifier_of_both_leads_to_the_survivor_until_they_are_parted(pair: Pair) -> None:
    await pair.registered(given_names="Ña Otra")
    context = pair.office.context
    by_id = [Named("siis", str(each)) for each in (pair.one, pair.other)]
    before = [await pair.found(each) for each in (pair.survivor, pair.absorbed, *by_id)]
    await pair.merge()
    subjects = SubjectLookup(context.database, context.vault)
    try:
        for named in (pair.survivor, pair.absorbed, *by_id):
            assert await pair.found(named) == pair.one
            who, facts = await subjects.find(*named)
            assert who is not None
            assert (who.id, facts.subject) == (pair.one, pair.one)
        assert await subjects.other_identifier(pair.one, LOCAL) == pair.absorbed.value
    finally:
        await subjects.close()
    async with context.database.connection() as connection:
        many = await registry.find_persons(connection, context.vault, LOCAL, {pair.absorbed.value})
        assert many[pair.absorbed.value].id == pair.one
        for each in (pair.one, pair.other):
            details = await registry.person_details(connection, context.vault, each)
            assert details is not None
            told = (details.ref.id, details.given_names, details.identifiers)
            assert told == (pair.one, "Ña Eme", (tuple(pair.survivor), tuple(pair.absorbed)))
        # Of a referral that was made for the other.
        released = (await people_of(connection, context.vault, [pair.other]))[pair.other]
        assert (released.ref.id, released.identifiers) == (pair.one, details.identifiers)
    shown = (await pair.desk.show(None, pair.absorbed)).shown
    assert (shown["id"], shown["absorbed"], len(shown["history"])) == (str(pair.one), [str(pair.other)], 1)
    await pair.unmerge()
    assert [await pair.found(each) for each in (pair.survivor, pair.absorbed, *by_id)] == before
    history = (await pair.desk.show(None, pair.absorbed)).shown["history"]
    assert [(each["absorbed"], each["undoes"]) for each in history] == [
        (str(pair.other), None),
        (str(pair.other), history[0]["id"]),
    ]


async def test_the_history_can_be_added_to_and_nothing_else(pair: Pair) -> None:
    await pair.registered()
    await pair.merge()
    for statement in ("UPDATE siis.person_merge SET reason = 'x'", "DELETE FROM siis.person_merge"):
        with pytest.raises(ProgrammingError) as refused:
            async with pair.office.context.database.transaction() as connection:
                await connection.execute(text(statement))
        assert isinstance(refused.value.orig, refusals.InsufficientPrivilege)


# What is known


async def test_the_survivors_row_is_what_counts_of_both_and_is_restored(pair: Pair) -> None:
    await pair.registered({"sex": None, "attributes": {"indigenous": False}}, department="11", district="1101")
    await pair.saw(pair.one, date(2027, 1, 10), disability="true")
    await pair.saw(pair.other, date(2027, 1, 5), disability="false", pregnant="true")
    before = [await pair.row(each) for each in (pair.one, pair.other)]
    await pair.merge()
    merged = await pair.row(pair.one)
    assert merged["attributes"] == {"indigenous": False, "disability": True, "pregnant": True}
    assert (merged["sex"], merged["district"]) == ("F", "1101")
    async with pair.office.context.database.connection() as connection:
        told = await observed(connection, Unit("person", pair.one))
    assert (told["disability"].contradicted, told["pregnant"].counts.value) == (True, "true")
    await pair.unmerge()
    assert [await pair.row(each) for each in (pair.one, pair.other)] == before


async def test_what_arrives_meanwhile_stays_with_the_survivor(pair: Pair) -> None:
    await pair.registered()
    await pair.merge()
    # Whoever looked the other up before they were merged writes under that id; it counts for the survivor.
    await pair.saw(pair.other, date(2027, 2, 1), pregnant="true")
    await pair.saw(pair.one, date(2027, 2, 2), disability="true")
    assert (await pair.row(pair.one))["attributes"] == {"pregnant": True, "disability": True}
    await pair.unmerge()
    told = [(await pair.row(each))["attributes"] for each in (pair.one, pair.other)]
    assert told == [{"disability": True}, {"pregnant": True}]


async def test_persons_are_parted_in_any_order(pair: Pair) -> None:
    await pair.registered({"sex": None}, attributes={"pregnant": True})
    third = Pair(pair.office)
    third.survivor = pair.survivor
    third.other = await pair.office.person("", identifiers=(tuple(third.absorbed),), birth_date=BORN, sex="M")
    before = await pair.row(pair.one)
    await pair.protection.flag(None, FlagChange(subject=pair.absorbed, kind="export-ban"))
    await pair.merge()
    await third.merge(confirmed=True)
    both = await pair.row(pair.one)
    assert (both["sex"], both["attributes"]) == ("F", {"pregnant": True})
    await pair.unmerge()
    left = await pair.row(pair.one)
    assert (left["sex"], left["attributes"]) == ("M", {})
    assert not (await pair.facts(pair.one)).export_ban
    assert not (await pair.facts(third.other)).export_ban
    assert (await pair.facts(pair.other)).export_ban
    await third.unmerge()
    assert await pair.row(pair.one) == before


# Protection status


@given(seed=st.integers(0, 2**32))
@effort(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_status_of_any_past_day_is_what_was_computed_on_it_through_merging_and_parting(
    settings: Settings, seed: int
) -> None:
    asyncio.run(_histories(settings, Random(seed)))


async def _histories(settings: Settings, random: Random) -> None:
    async with open_office(settings) as office:
        pair = await Pair(office).registered({"birth_date": None}, birth_date=date(1950, 1, 1))
        days = [date(2027, 1, 1) + timedelta(days=number) for number in range(9)]
        together = random.randrange(1, 7)
        apart = random.randrange(together + 1, 9)
        computed: dict[tuple[UUID, date], Any] = {}
        for number, day in enumerate(days):
            office.at = noon(day)
            touched = set()
            if number in (together, apart):
                await (pair.merge() if number == together else pair.unmerge())
                touched = {pair.one, pair.other}
            for of in (pair.one, pair.other):
                if random.random() < 0.7:
                    # Whoever looked them up before writes under the other's id even now.
                    service = random.choice(["universal-pension", "health-control", "specialised-consultation"])
                    await pair.fact(of, service, random.random() < 0.6, day)
                    touched |= {pair.one, of} if together <= number < apart else {of}
            async with office.context.database.transaction() as connection:
                services = await catalogue_services(connection)
                units = await read_units(connection, [pair.one, pair.other], [], [])
                facts = await read_facts(connection, units)
                for unit in units:
                    if unit.id in touched:
                        [[digest]] = await office.rows("SELECT digest FROM siis.status WHERE unit = %s", unit.id)
                        assert digest == compute(unit, services, facts.get(unit.id, ()), day).row["digest"]
                    computed[unit.id, day] = await status_on(connection, unit.id, day)
        assert len(set(map(str, computed.values()))) > 2
        async with office.context.database.connection() as connection:
            for (unit_id, day), past in computed.items():
                assert await status_on(connection, unit_id, day) == past


async def test_parting_restores_both_statuses_and_everybody_at_once_answers_the_same(
    pair: Pair, folders: Callable[[str], Any], owner: Database
) -> None:
    old = date(1950, 1, 1)
    await pair.registered({"birth_date": None}, birth_date=old)
    today = local_day(START)
    await pair.fact(pair.one, "health-control", True, today - timedelta(days=3))
    await pair.fact(pair.other, "universal-pension", True, today - timedelta(days=2))
    ids = (pair.one, pair.other)

    async def told() -> list[dict[str, str]]:
        async with pair.office.context.database.connection() as connection:
            found = [await status_on(connection, each, today) for each in ids]
        return [{item.service: item.status for item in each.status.services} for each in found if each is not None]

    before = await told()
    assert "universal-pension" not in before[0]
    await pair.merge()
    survivor, absorbed = await told()
    assert (survivor["universal-pension"], absorbed) == ("protected", {})
    digests = "SELECT unit, digest FROM siis.status WHERE unit = ANY(%s) ORDER BY unit"
    stored = await pair.office.rows(digests, list(ids))
    async with pair.office.context.database.connection() as connection:
        services = await catalogue_services(connection)
    url = owner.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    mass.classify_all(url, services, folder=folders("mass"), at=START, because="round")
    assert await pair.office.rows(digests, list(ids)) == stored
    await pair.unmerge()
    assert await told() == before


# What protects and what permits


async def test_what_protects_adds_up_and_what_permits_does_not(pair: Pair) -> None:
    await pair.registered()
    context = pair.office.context
    long, short = date(2029, 1, 1), date(2028, 1, 1)
    async with context.database.transaction() as connection:
        for of, until in ((pair.one, short), (pair.other, long)):
            await restrictions.restrict(
                connection, of, norm="Ley 7593/2025", reference="A.I. 1", until=until, at=START, holder="MSPBS"
            )
        await people.set_flag(connection, pair.other, "sealed", at=START)
        await people.set_flag(connection, pair.other, "aggressor", at=START, target="MDS")
        await people.set_flag(connection, pair.one, "export-ban", at=START)
        victim = await pair.office.person(str(next(_cedulas)), birth_date=BORN)
        await people.set_flag(connection, victim, "aggressor", at=START, target=str(pair.other))
    before = [await pair.facts(each) for each in (pair.one, pair.other, victim)]
    async with context.database.transaction() as connection:
        representative = await pair.office.person(str(next(_cedulas)), birth_date=BORN)
        await people.add_representation(
            connection,
            subject=pair.other,
            representative=representative,
            kind="proxy",
            proof_reference="Acta 1",
            recorded_by="UTGS/x",
            birth_date=BORN,
            at=START,
        )
    pair.office.at = START + timedelta(hours=1)
    await pair.merge()
    for each in (pair.one, pair.other):
        facts = await pair.facts(each)
        assert (facts.sealed, facts.export_ban, facts.barred) == (True, True, {"MDS"})
        assert [found.until for found in facts.restrictions] == [long]
        assert facts.representations == ()
    assert (await pair.facts(victim)).barred == {str(pair.one), str(pair.other)}
    pair.office.at = START + timedelta(hours=2)
    await pair.unmerge()
    after = [await pair.facts(each) for each in (pair.one, pair.other, victim)]
    assert [replace(each, representations=()) for each in after] == before
    assert len(after[1].representations) == 1


async def test_a_protection_set_meanwhile_stays_with_both_and_one_that_is_lifted_is_lifted_for_both(
    pair: Pair,
) -> None:
    await pair.registered()
    change = FlagChange(subject=pair.absorbed, kind="export-ban")
    await pair.protection.flag(None, change)
    await pair.protection.object(None, pair.absorbed, "fraud-prevention")
    pair.office.at = START + timedelta(hours=1)
    await pair.merge()
    assert (await pair.facts(pair.one)).objections == {"fraud-prevention"}
    await pair.protection.flag(None, replace(change, kind="sealed"))
    assert (await pair.protection.flag(None, change, lift=True)).answer["changed"]
    await pair.protection.object(None, pair.survivor, "fraud-prevention", withdraw=True)
    await pair.unmerge()
    for each in (pair.one, pair.other):
        facts = await pair.facts(each)
        assert (facts.sealed, facts.export_ban, facts.objections) == (True, False, frozenset())


# Who may be one


@pytest.mark.parametrize(
    ("survivor", "absorbed", "code"),
    [
        ({}, {"birth_date": date(1991, 5, 1)}, "not-confirmed"),
        ({}, {"sex": "M"}, "not-confirmed"),
        ({}, {"identifiers": (("cedula", "4999999"),)}, "different-persons"),
    ],
)
async def test_persons_who_disagree_are_not_merged_unless_it_is_confirmed(
    pair: Pair, survivor: dict[str, Any], absorbed: dict[str, Any], code: str
) -> None:
    await pair.registered(survivor, **absorbed)
    if "identifiers" in absorbed:
        pair.absorbed = Named("cedula", "4999999")
    with pytest.raises(errors.Conflict) as refused:
        await pair.merge()
    assert refused.value.code == code
    if code == "not-confirmed":
        await pair.merge(confirmed=True)
        assert await pair.found(pair.absorbed) == pair.one
    else:
        with pytest.raises(errors.Conflict):
            await pair.merge(confirmed=True)
        assert await pair.found(pair.absorbed) == pair.other


@pytest.mark.parametrize("how", ["mandate", "aggressor"])
async def test_nobody_is_merged_with_who_acts_for_them_or_is_kept_from_them(pair: Pair, how: str) -> None:
    await pair.registered()
    if how == "mandate":
        new = NewMandate(subject=pair.absorbed, representative=pair.survivor, kind="proxy", proof_reference="Acta 1")
        await pair.protection.add_representative(None, new)
    else:
        await pair.protection.flag(None, FlagChange(subject=pair.absorbed, kind="aggressor", person=pair.survivor))
    with pytest.raises(errors.Conflict) as refused:
        await pair.merge()
    assert refused.value.code == "different-persons"


async def test_there_is_never_a_chain(pair: Pair) -> None:
    await pair.registered()
    third = await Pair(pair.office).registered()
    await pair.merge()
    for survivor, absorbed, code in (
        (pair.survivor, pair.absorbed, "same-person"),
        (third.survivor, pair.absorbed, "absorbed-survives"),
        (third.absorbed, pair.survivor, "absorbed-survives"),
    ):
        with pytest.raises(errors.Conflict) as refused:
            await pair.desk.merge(None, survivor, absorbed, reason="double-form")
        assert refused.value.code == code
    # Into somebody found to be another: into that one.
    await pair.desk.merge(None, pair.absorbed, third.absorbed, reason="double-form")
    assert (await pair.row(third.other))["merged_into"] == pair.one
    with pytest.raises(errors.Conflict) as refused:
        await pair.desk.unmerge(None, third.survivor, reason="other-person")
    assert refused.value.code == "not-merged"


# The log, and the end


async def test_each_of_both_finds_who_used_their_data_under_the_survivor_and_by_themselves(pair: Pair) -> None:
    await pair.registered()
    context = pair.office.context
    usage = Usage(pair.office.governance, context.vault, audit=context.audit, epochs=context.epochs)

    async def told(of: UUID) -> list[str]:
        page = await usage.read(citizen(of), None, Asked(limit=50))
        return sorted(row.use.type for row in page.rows)

    await pair.office.exchanged(pair.one)
    await pair.office.exchanged(pair.other, kind="status.released")
    await pair.merge()
    shown = await told(pair.one)
    assert shown == ["disclosure.released", "person.merged", "person.merged", "status.released"]
    await pair.unmerge()
    assert await told(pair.other) == ["person.merged", "person.unmerged", "status.released"]


async def test_erasing_one_erases_both(pair: Pair, owner: Database) -> None:
    await pair.registered()
    await pair.office.exchanged(pair.other)
    await pair.merge()
    context = pair.office.context
    erasures = Erasures(owner=owner, audit=context.audit, vault=context.vault, now=lambda: pair.office.at)
    order = Order(ground="court-order", norm="Constitución, art. 135", ordered_by="Juzgado 3", reference="A.I. 1")
    await erasures.erase(pair.absorbed, order)
    for each in (pair.one, pair.other):
        row = await pair.row(each)
        assert (row["names"], row["merged_into"], row["birth_date"]) == (None, None, None)
    keys = "SELECT count(*) FROM audit.subject_key WHERE subject = ANY(%s) AND wrapped_key IS NOT NULL"
    both = [pair.one, pair.other]
    assert await pair.office.rows(keys, both) == [(0,)]
    left = "SELECT count(*) FROM siis.person_merge WHERE survivor = ANY(%s) OR absorbed = ANY(%s)"
    assert await pair.office.rows(left, both, both) == [(0,)]
    assert await pair.found(pair.survivor) is None
