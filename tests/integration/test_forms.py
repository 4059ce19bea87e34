"""Forms on a real database: persons and households found or made, contradictions kept, nobody in two homes; files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from rights_office import MACHINE, OPERATOR, Office, command
from typer.testing import CliRunner

from adapters.simulator.population import SimHousehold, generate
from consent import people
from gateway import errors
from gateway.cli.form import app
from gateway.database import Database
from gateway.erasure.service import Erasures, Order
from gateway.governance.merges import Merges
from gateway.governance.people import Named
from gateway.intake.forms import Forms
from gateway.intake.forms_facts import FactReports
from gateway.registry import service as registry
from gateway.registry.local_ids import new_local_id
from gateway.registry.models import PersonRef
from gateway.registry.observations import Told, Unit, observed
from gateway.settings import Settings

PLACE = {"department": "05", "district": "0521", "locality": "San Miguel"}
_cedulas = iter(range(6_100_001, 6_900_000))


def cedula() -> str:
    return str(next(_cedulas))


def member(number: str | None = None, **changes: Any) -> dict[str, Any]:
    found = {"given_names": "Ña Ficha", "surnames": "Ficticia", "birth_date": "1990-05-01", "sex": "F", **changes}
    return found | ({"identifier": {"system": "cedula", "value": number}} if number else {})


def form(*members: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"kind": "full", "observed_on": "2026-11-20", "place": PLACE, "members": list(members), **changes}


async def record(office: Office, message: dict[str, Any], institution: str = "UTGS") -> dict[str, Any]:
    desk = Forms(office.governance, office.context.vault)
    return (await desk.record(None, message, institution=institution)).answer


async def wrong(office: Office, message: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(errors.Invalid) as refused:
        await record(office, message)
    return {each.pointer: each.rule for each in refused.value.mistakes}


async def who(office: Office, person: str) -> PersonRef:
    async with office.context.database.connection() as connection:
        found = await registry.find_person(connection, office.context.vault, "siis", person)
    assert found is not None
    return found


async def told_of(office: Office, person: str) -> dict[str, Told]:
    async with office.context.database.connection() as connection:
        return await observed(connection, Unit("person", UUID(person)))


def ids(answer: dict[str, Any]) -> list[str]:
    return [each["id"] for each in answer["persons"]]


async def test_a_form_registers_who_is_new_and_everything_it_says_with_source_date_and_instrument(
    office: Office,
) -> None:
    number = cedula()
    child = member(birth_date="2023-02-01", relation="child", services={"vaccination": False})
    mother = member(number, relation="head", characteristics={"pregnant": True}, services={"prenatal-control": True})
    home = {"characteristics": {"poverty": True}, "services": {"tekopora": False}}
    answer = await record(office, form(mother, child, household=home, notes="Pasillo del fondo"))
    first, second = ids(answer)
    found = await who(office, first)
    assert (found.department, found.district, found.birth_date) == ("05", "0521", date(1990, 5, 1))
    assert found.attributes == {"pregnant": True, "relation": "head"}
    assert str(found.household_id) == answer["household"]
    [row] = await office.rows(
        "SELECT h.attributes, h.district, c.name FROM siis.household AS h JOIN siis.community AS c "
        "ON c.id = h.community_id WHERE h.id = %s",
        found.household_id,
    )
    assert row == ({"poverty": True}, "0521", "San Miguel")
    facts = await office.rows(
        "SELECT person_id::text, household_id::text, service, protected, source, instrument, observed_on "
        "FROM siis.fact WHERE form_id = %s ORDER BY service",
        UUID(answer["form"]),
    )
    seen = ("UTGS", "fips", date(2026, 11, 20))
    assert facts == [
        (first, None, "prenatal-control", True, *seen),
        (None, answer["household"], "tekopora", False, *seen),
        (second, None, "vaccination", False, *seen),
    ]
    told = (await told_of(office, first))["pregnant"].counts
    assert (told.value, told.source, told.instrument, told.observed_on) == ("true", *seen)
    [entry] = await office.entries("form.recorded", 1)
    assert entry.detail is not None
    assert entry.detail["what"]["persons"] == [first, second]
    assert {"Ficha", number, "Pasillo"} & set(str(entry.detail).replace("'", " ").split()) == set()
    [(texts,)] = await office.rows("SELECT texts FROM siis.form WHERE id = %s", UUID(answer["form"]))
    assert "Pasillo" in office.context.vault.open("form.texts", UUID(answer["form"]), bytes(texts))
    computed = await office.rows("SELECT kind FROM siis.status WHERE unit = %s", UUID(second))
    assert computed == [("person",)]


async def test_without_a_cedula_a_person_gets_a_local_number_and_is_found_by_it(office: Office) -> None:
    answer = await record(office, form(member()))
    [shown] = answer["persons"]
    again = member() | {"identifier": {"system": "local", "value": shown["local_id"]}}
    later = await record(office, form(again, observed_on="2026-11-21"))
    assert later["persons"] == [shown]
    assert later["household"] == answer["household"]
    [(stored,)] = await office.rows(
        "SELECT answer::text FROM siis.idempotency WHERE answer ->> 'form' = %s UNION ALL SELECT '' LIMIT 1",
        answer["form"],
    )
    assert shown["local_id"] not in stored
    unknown = {"system": "local", "value": new_local_id()}
    assert await wrong(office, form(member() | {"identifier": unknown})) == {
        "/members/0/identifier/value": "unknown-person"
    }


async def test_what_contradicts_itself_stands_side_by_side_and_the_newest_counts(office: Office) -> None:
    number = cedula()
    said = [("2026-11-20", "1990-05-01", True), ("2026-10-01", "1985-05-01", False), ("2026-11-22", "1991-05-01", None)]
    for day, born, pregnant in said:
        marks = {} if pregnant is None else {"characteristics": {"pregnant": pregnant}}
        answer = await record(office, form(member(number, birth_date=born, **marks), observed_on=day))
    [person] = ids(answer)
    told = await told_of(office, person)
    assert told["birth_date"].counts.value == "1991-05-01"
    assert [other.value for other in told["birth_date"].others] == ["1990-05-01", "1985-05-01"]
    assert (told["pregnant"].counts.value, told["pregnant"].contradicted) == ("true", True)
    found = await who(office, person)
    assert (found.birth_date, found.attributes["pregnant"]) == (date(1991, 5, 1), True)


async def test_nobody_comes_to_be_in_two_households_without_having_moved(office: Office) -> None:
    ana, ben, eva = cedula(), cedula(), cedula()
    first = await record(office, form(member(ana), member(ben)))
    # A part of a household with somebody new may be another one, or the same: whoever sends it says which.
    assert await wrong(office, form(member(ana), member(eva))) == {"/members/0": "member-elsewhere"}
    assert await office.rows("SELECT 1 FROM siis.form WHERE household_id = %s", UUID(first["household"])) == [(1,)]
    same = await record(office, form(member(ana), member(eva), household={"id": first["household"]}))
    assert same["household"] == first["household"]
    # All who live there: the same household seen again, without anybody saying so.
    again = await record(office, form(member(ana), member(ben), member(eva), member()))
    assert (again["household"], again["registered"]) == (first["household"], 1)
    moved = await record(office, form(member(eva, moved=True), member(), observed_on="2026-11-21"))
    assert moved["household"] != first["household"]
    assert str((await who(office, ids(moved)[0])).household_id) == moved["household"]
    assert await wrong(office, form(member(ben), household={"id": moved["household"]})) == {
        "/members/0": "member-elsewhere"
    }
    nowhere = {"id": "01999999-0000-7000-8000-000000000000"}
    assert (await wrong(office, form(member(), household=nowhere)))["/household/id"] == "unknown-household"


async def test_one_community_has_one_row_whatever_its_spelling_and_its_priorities(office: Office) -> None:
    place = {"department": "10", "district": "1001", "locality": "Área Uno"}
    message = {
        "kind": "community",
        "observed_on": "2026-11-20",
        "place": place,
        "priorities": ["vaccination", "abrazo"],
    }
    one = await record(office, message)
    other = await record(office, message | {"place": place | {"locality": " area  UNO"}, "priorities": ["abrazo"]})
    assert (one["community"], one["household"], one["persons"]) == (other["community"], None, [])
    [row] = await office.rows("SELECT name, attributes FROM siis.community WHERE id = %s", UUID(one["community"]))
    assert row == ("Área Uno", {"priorities": "abrazo"})


async def test_a_form_of_a_number_is_taken_once(office: Office) -> None:
    message = form(member(), number="F-77")
    first = await record(office, message)
    with pytest.raises(errors.Conflict, match="form-known") as refused:
        await record(office, message)
    assert refused.value.told == {"form": first["form"]}
    assert (await record(office, message, "MINNA"))["form"] != first["form"]


async def test_a_command_is_done_once_and_only_for_a_role_that_may(office: Office) -> None:
    desk, number = Forms(office.governance, office.context.vault), cedula()
    key, message = command("f-1"), form(member(number))
    done = await desk.record(OPERATOR, message, institution="MTESS", command=key)
    again = await desk.record(OPERATOR, message, institution="MTESS", command=key)
    assert (again.replayed, again.answer) == (True, done.answer)
    with pytest.raises(errors.Denied):
        await desk.record(replace(OPERATOR, roles=frozenset({"auditor"})), message, institution="MTESS")
    assert MACHINE.institution is None


# Persons of whom the sender may not know


async def protect(office: Office, person: str, kind: str) -> None:
    target = "MTESS" if kind == "aggressor" else ""
    async with office.context.database.transaction() as connection:
        await people.set_flag(connection, UUID(person), kind, target=target, at=office.at, reference="r")


async def protected(office: Office, kind: str) -> tuple[str, str, str]:
    """Return the cédula and number of a mother whom MTESS may not know of, and the cédula of the son she lives with."""
    mother, son = cedula(), cedula()
    [person, _son] = ids(await record(office, form(member(mother), member(son, birth_date="2012-01-01"))))
    await protect(office, person, kind)
    return mother, person, son


async def sent(office: Office, message: dict[str, Any], numbers: dict[str, str]) -> Any:
    """Send a form as MTESS; return what it learns, ids by the order in which they came up."""
    desk = Forms(office.governance, office.context.vault)
    try:
        answer = (await desk.record(OPERATOR, message, institution="MTESS")).answer
    except errors.Invalid as refused:
        return [(each.pointer, each.rule) for each in refused.mistakes]
    except errors.NotFound:
        return "not-found"
    for found in (answer["form"], answer["household"], *ids(answer)):
        numbers.setdefault(found, f"#{len(numbers)}")
    del answer["receipt"]
    for each in answer["persons"]:
        each["local_id"] = "local_id" in each
    text = json.dumps(answer)
    for number, name in numbers.items():
        text = text.replace(number, name)
    return json.loads(text)


@pytest.mark.parametrize("kind", ["sealed", "court-order", "aggressor"])
async def test_no_answer_to_a_form_tells_a_protected_person_from_somebody_unknown(office: Office, kind: str) -> None:
    mother, person, son = await protected(office, kind)
    number, stored = cedula(), await rows_about(office, person)
    told: dict[str, list[Any]] = {}
    for who, child in ((mother, son), (number, (await protected(office, kind))[2])):
        local, numbers, named = f"local-{who}", dict[str, str](), {"identifier": {"system": "cedula", "value": who}}
        first = form(member(who, characteristics={"pregnant": True}), member(), number=local)
        told[who] = [
            await sent(office, form(named), numbers),
            await sent(office, form(member(who), member(child)), numbers),
            await sent(office, first, numbers),
            await sent(office, form(named | {"moved": True}), numbers),
            await sent(office, form(member(child, moved=True), named, observed_on="2026-11-21"), numbers),
            await sent(office, form(member(who, moved=True), member(child, moved=True)), numbers),
        ]
    assert told[mother] == told[number]
    assert [isinstance(each, dict) for each in told[mother]] == [False, False, True, True, True, True]
    # Of the protected person nothing was changed, and what was said of them stands elsewhere.
    assert await rows_about(office, person) == stored
    assert (await who_is(office, mother)).id == UUID(person)


async def rows_about(office: Office, person: str) -> list[Any]:
    found = []
    for query in (
        "SELECT * FROM siis.person WHERE id = %s",
        "SELECT * FROM siis.person_identifier WHERE person_id = %s ORDER BY id",
        "SELECT * FROM siis.observation WHERE person_id = %s ORDER BY id",
        "SELECT * FROM siis.fact WHERE person_id = %s ORDER BY id",
        "SELECT * FROM siis.status WHERE unit = %s",
    ):
        found.append(await office.rows(query, UUID(person)))
    return found


async def who_is(office: Office, number: str) -> PersonRef:
    async with office.context.database.connection() as connection:
        found = await registry.find_person(connection, office.context.vault, "cedula", number)
    assert found is not None
    return found


async def test_who_stands_in_is_told_to_whoever_decides_and_becomes_the_person_by_being_merged(office: Office) -> None:
    mother, person, _son = await protected(office, "sealed")
    desk = Forms(office.governance, office.context.vault)
    said = form(member(mother, characteristics={"disability": True}, services={"prenatal-control": True}))
    answer = (await desk.record(OPERATOR, said, institution="MTESS")).answer
    [other] = ids(answer)
    merges = Merges(office.governance, office.context.vault, audit=office.context.audit)
    mine = [row for row in (await merges.stand_ins(None)).shown if row["person"] == person]
    assert [(row["stand_in"], row["form"]) for row in mine] == [(other, answer["form"])]
    assert len(await office.entries("person.stand_ins_read", 1)) == 1
    assert "disability" not in await told_of(office, person)
    await merges.merge(None, Named("cedula", mother), Named("siis", other), reason="same-document")
    assert (await who_is(office, mother)).attributes["disability"] is True
    assert person not in {row["person"] for row in (await merges.stand_ins(None)).shown}
    # Still protected: what comes next stands in anew, and reaches nobody unless it is merged as well.
    [later] = ids((await desk.record(OPERATOR, form(member(mother)), institution="MTESS")).answer)
    assert later not in (person, other)


async def test_an_institution_reports_on_its_own_services_alone(office: Office) -> None:
    number = cedula()
    [person] = ids(await record(office, form(member(number), household={"characteristics": {"poverty": True}})))
    desk = FactReports(office.governance, office.context.vault)
    mds = replace(OPERATOR, institution="MDS", client_id="mds-1")
    subject = {"system": "cedula", "value": number}

    async def report(caller: Any, service: str, day: str = "2026-12-01", value: str = number) -> dict[str, Any]:
        facts = [{"service": service, "received": True, "observed_on": day}]
        message = {"subject": subject | {"value": value}, "facts": facts}
        return (await desk.report(caller, message, institution="MDS")).answer

    assert (await report(mds, "tekopora"))["facts"] == 1
    [row] = await office.rows(
        "SELECT household_id, protected, source, instrument FROM siis.fact WHERE service = 'tekopora' "
        "AND household_id = (SELECT household_id FROM siis.person WHERE id = %s)",
        UUID(person),
    )
    assert row[1:] == (True, "MDS", "institution-report")
    status = await office.rows("SELECT services -> 'tekopora' ->> 'status' FROM siis.status WHERE unit = %s", row[0])
    assert status == [("protected",)]
    for service, rule in (("vaccination", "foreign-service"), ("flights", "unknown-service")):
        with pytest.raises(errors.Invalid) as refused:
            await report(mds, service)
        [mistake] = refused.value.mistakes
        assert (mistake.pointer, mistake.rule) == ("/facts/0/service", rule)
        assert "vaccination" not in mistake.allowed
        assert "tekopora" in mistake.allowed
    with pytest.raises(errors.Invalid):
        await report(mds, "tekopora", "2027-02-29")
    with pytest.raises(errors.NotFound):
        await report(mds, "tekopora", value=cedula())
    [entry] = await office.entries("fact.reported", 1)
    assert entry.envelope["subject"] is not None


async def test_a_simulated_district_comes_in_by_forms_and_comes_again_without_a_second_person(office: Office) -> None:
    homes = list(generate(120, 41))
    local: dict[int, str] = {}

    def asked(home: SimHousehold, day: str) -> dict[str, Any]:
        members = []
        for each in home.members:
            found: dict[str, Any] = {
                "given_names": each.given_names,
                "surnames": each.surnames,
                "birth_date": each.birth_date.isoformat(),
                "sex": each.sex,
                "characteristics": {"pregnant": each.pregnant, "disability": each.disability != "none"},
            }
            if each.deceased_on is not None:
                found["deceased_on"] = each.deceased_on.isoformat()
            if each.cedula is not None:
                found["identifier"] = {"system": "cedula", "value": each.cedula}
            elif each.number in local:
                found["identifier"] = {"system": "local", "value": local[each.number]}
            members.append(found)
        place = {"department": home.department, "district": home.district, "locality": home.locality}
        return form(*members, place=place, observed_on=day, household={"characteristics": {"poverty": home.poverty}})

    first = {}
    for home in homes:
        answer = await record(office, asked(home, "2026-11-22"))
        first[home.number] = (answer["household"], ids(answer))
        assert answer["registered"] == len(home.members)
        for each, shown in zip(home.members, answer["persons"], strict=True):
            assert ("local_id" in shown) == (each.cedula is None)
            local |= {each.number: shown["local_id"]} if each.cedula is None else {}
    for home in homes:
        answer = await record(office, asked(home, "2026-11-23"))
        assert answer["registered"] == 0
        assert ids(answer) == first[home.number][1]
        assert answer["household"] == first[home.number][0]


# Files

HEAD = "number,kind,observed_on,department,district,locality,identifier,given_names,surnames,birth_date,moved,services"


def rejected(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def test_of_a_file_the_good_forms_go_in_and_the_bad_rows_are_named_without_their_values(
    settings: Settings, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIIS_DATA_DIR", str(settings.data_dir))
    folder, run = folders("files"), CliRunner().invoke
    folder.mkdir(exist_ok=True)
    file, ana = folder / "fichas.csv", cedula()
    place, names = "2026-11-20,05,0521,Yhovy", "Ñuflo,Zzyzx"
    lines = [
        f"A1,full,{place},{ana},{names},1990-05-01,,vaccination=si",
        f"A1,,,,,,{cedula()},{names},2020-05-01,,",
        f"A2,full,2026-02-30,05,0521,Yhovy,,{names},,,",
        f"A3,full,2026-11-20,05,64,Yhovy,,{names},,,",
        f"A3,,,,,,,{names},,,",
        f"A4,full,{place},{ana},{names},,,",
        f"A5,full,{place},,{names},,,flights=si",
        f"A6,full,{place},,{names},,,vaccination",
        f"A1,,,,,,,{names},,,",
        f"A7,full,{place},,,,,,",
        f",full,{place},,{names},,,",
        "A8,full",
        f"A9,full,{place},,{names},,,growth-control=no",
        f"B1,community,{place},,,,,,",
    ]
    file.write_text("\n".join((HEAD, *lines)) + "\n", encoding="utf-8")
    done = run(app, ["import", str(file), "--institution", "MDS", "--json"])
    assert done.exit_code == 1, done.output
    assert '"taken": 2, "known": 0, "rejected": 11' in done.output
    out = file.with_name("fichas.rejects.csv")
    found = sorted(((row[0], row[1]) for row in rejected(out)), key=lambda row: int(row[0]))
    assert found == [
        *(("3", "observed_on"), ("4", "district"), ("5", ""), ("6", ""), ("7", "services"), ("8", "services")),
        *(
            ("9", "number"),
            ("10", "given_names"),
            ("10", "surnames"),
            ("11", "number"),
            ("12", ""),
            ("14", "priorities"),
        ),
    ]
    text = out.read_text(encoding="utf-8")
    assert "autoridad tributaria" in text
    for value in ("Zzyzx", "Ñuflo", ana, "Yhovy"):
        assert value not in text
    again = run(app, ["import", str(file), "--institution", "MDS", "--json"])
    assert '"taken": 0, "known": 2' in again.output
    shown = run(app, ["show", ana])
    assert (shown.exit_code, "Ficha de Protección" in shown.output) == (0, True)


def test_a_file_that_is_no_table_of_forms_is_refused_as_a_whole(
    settings: Settings, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIIS_DATA_DIR", str(settings.data_dir))
    folder, run = folders("other"), CliRunner().invoke
    folder.mkdir(exist_ok=True)
    file = folder / "otra.csv"
    file.write_text("uno;dos\n1;2\n", encoding="utf-8")
    done = run(app, ["import", str(file), "--institution", "MDS"])
    assert (done.exit_code, "columna department" in done.stderr) == (2, True), done.stderr
    stranger = run(app, ["facts", str(file), "--institution", "ACME"])
    assert stranger.exit_code == 2


def test_reports_come_as_a_file_too(
    settings: Settings, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIIS_DATA_DIR", str(settings.data_dir))
    folder, run, ana = folders("reports"), CliRunner().invoke, cedula()
    folder.mkdir(exist_ok=True)
    forms, reports = folder / "f.csv", folder / "r.csv"
    forms.write_text(f"{HEAD}\nR1,full,2026-11-20,05,0521,Yhovy,{ana},A,B,,,\n", encoding="utf-8")
    assert run(app, ["import", str(forms), "--institution", "MSPBS"]).exit_code == 0
    assert not (folder / "f.rejects.csv").exists()
    rows = [f"{ana};vaccination;si;2026-11-21", f"{ana};tekopora;si;2026-11-21", f"{ana};vaccination;quizás;2026-11-21"]
    rows.append(f"{cedula()};vaccination;no;2026-11-21")
    reports.write_text("\n".join(("identifier;service;received;observed_on", *rows)), encoding="utf-8")
    done = run(app, ["facts", str(reports), "--institution", "MSPBS", "--json"])
    assert '"taken": 1, "known": 0, "rejected": 3' in done.output
    assert [row[:2] for row in rejected(folder / "r.rejects.csv")] == [
        ["2", "service"],
        ["3", "received"],
        ["4", "identifier"],
    ]


# Erasure


async def test_of_an_erased_person_no_observation_number_or_text_of_a_form_is_left(
    office: Office, owner: Database
) -> None:
    number = cedula()
    answer = await record(office, form(member(number), number=f"E-{number}", notes="Al lado del almacén"))
    order = Order(ground="court-order", norm="Constitución, art. 135", ordered_by="Juzgado 3", reference="A.I. 1")
    erasures = Erasures(owner=owner, audit=office.context.audit, vault=office.context.vault, now=lambda: office.at)
    await erasures.erase(Named("cedula", number), order)
    assert await office.rows("SELECT id FROM siis.observation WHERE form_id = %s", UUID(answer["form"])) == []
    [row] = await office.rows("SELECT number, texts FROM siis.form WHERE id = %s", UUID(answer["form"]))
    assert row == (None, None)


async def test_with_a_protected_person_goes_who_stands_in_for_them(office: Office, owner: Database) -> None:
    mother, _person, _son = await protected(office, "sealed")
    desk = Forms(office.governance, office.context.vault)
    [other] = ids((await desk.record(OPERATOR, form(member(mother)), institution="MTESS")).answer)
    order = Order(ground="court-order", norm="Constitución, art. 135", ordered_by="Juzgado 3", reference="A.I. 1")
    erasures = Erasures(owner=owner, audit=office.context.audit, vault=office.context.vault, now=lambda: office.at)
    await erasures.erase(Named("cedula", mother), order)
    assert await office.rows("SELECT names FROM siis.person WHERE id = %s", UUID(other)) == [(None,)]
    assert await office.rows("SELECT 1 FROM siis.stand_in WHERE person_id = %s", UUID(other)) == []
