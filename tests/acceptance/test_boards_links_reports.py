"""The priority track, signed links and nominal reports over HTTP and on the command line, by offices and boards."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from adapters.simulator.population import SimPerson
from consent import agreements
from gateway.cli.demo.clients import Caller
from gateway.clock import local_day, utc_now
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, newcomer, problem, referring
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import appoint, call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
SCOPES = ("referrals.create", "referrals.read", "referrals.reply", "reports.read", "boards.manage", "links.manage")
# Its offices have no system, so nobody else answers these referrals meanwhile.
SERVICE = "early-stimulation"
JEFA = {"operator": "jefa", "role": "supervisor"}


@pytest.fixture(scope="module")
def siis(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", house.settings.data_dir)
    yield made
    made.end()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def systems(house: House) -> dict[str, Caller]:
    """Systems of three institutions, and an agreement over a service that no system of the recipient takes."""
    known = {each.code: each for each in agreements.demonstration_agreements()}["DEMO-UTGS-MSPBS-REFERRAL"]
    datasets = {f"service:{SERVICE}": known.datasets["service:health-control"]}
    async with house.context() as context, context.database.transaction() as connection:
        new = replace(known, code=f"OFICINAS-{uuid7()}", datasets=datasets)
        await agreements.put_agreement(connection, new, at=utc_now())
    found = {name: await newcomer(house, name, *SCOPES) for name in ("UTGS", "MSPBS", "MTESS")}

    async def agreed() -> bool:
        answer = await found["UTGS"].post("/api/v1/referrals", referring(person(house), SERVICE), key=str(uuid7()))
        return answer.status_code == 201

    await until(agreed)
    return found


_turns = iter(range(120, 200))


def person(house: House) -> SimPerson:
    return adults(house)[next(_turns)]


async def referred(systems: dict[str, Caller], who: SimPerson, **changes: Any) -> str:
    answer = await systems["UTGS"].post("/api/v1/referrals", referring(who, SERVICE, **changes), key=str(uuid7()))
    assert answer.status_code == 201, answer.text
    number: str = answer.json()["id"]
    return number


# Links


async def page(house: House, url: str, form: dict[str, str] | None = None) -> httpx.Response:
    """Open a link as a browser does, without a token of any kind."""
    if form is None:
        return await house.http.get(url)
    return await house.http.post(url, data=form)


def fields(answer: httpx.Response, act: str) -> dict[str, str]:
    """Return what the form of an act would send as it stands."""
    [form] = [part for part in answer.text.split("<form")[1:] if f'value="{act}"' in part]
    found = re.findall(r'<input [^>]*name="([a-z]+)"[^>]*?value="([^"]*)"', form)
    return {name: unescape(value) for name, value in found}


async def linked(house: House, systems: dict[str, Caller], who: SimPerson, **asked: Any) -> tuple[str, dict[str, Any]]:
    referral = await referred(systems, who)
    answer = await call(house, systems["MSPBS"], "POST", f"referrals/{referral}/links", asked, **JEFA)
    assert answer.status_code == 201, answer.text
    return referral, answer.json()


async def test_an_office_without_a_system_accepts_and_reports_delivery_by_its_link(
    house: House, systems: dict[str, Caller]
) -> None:
    who = person(house)
    referral, given = await linked(house, systems, who)
    first = await page(house, given["url"])
    assert first.status_code == 200
    assert first.headers["referrer-policy"] == "no-referrer"
    assert first.headers["cache-control"] == "no-store"
    policy = first.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "<script" not in first.text
    assert who.surnames not in first.text
    wrong = await page(house, given["url"], {"paso": "abrir", "pin": "000000" if given["pin"] != "000000" else "1"})
    assert wrong.status_code == 403
    assert who.surnames not in wrong.text
    shown = await page(house, given["url"], {"paso": "abrir", "pin": given["pin"]})
    assert shown.status_code == 200
    assert who.surnames in unescape(shown.text)
    assert who.cedula in shown.text
    accepted = await page(house, given["url"], fields(shown, "accept"))
    assert accepted.status_code == 200, accepted.text
    outcome = fields(shown, "outcome") | {"resultado": "provided", "lugar": "Puesto 4", "comprobante": "acta 9"}
    outcome["mensaje"] = str(uuid7())
    assert (await page(house, given["url"], outcome)).status_code == 200
    assert (await page(house, given["url"], outcome)).status_code == 200
    events = (await call(house, systems["UTGS"], "GET", f"referrals/{referral}/events")).json()["events"]
    assert [each["type"] for each in events if each["type"] in ("accept", "outcome")] == ["accept", "outcome"]
    assert events[-1]["texts"] == {"place": "Puesto 4", "proof": "acta 9"}


async def test_every_link_that_opens_nothing_gets_the_same_answer(house: House, systems: dict[str, Caller]) -> None:
    _referral, given = await linked(house, systems, person(house))
    await call(house, systems["MSPBS"], "POST", f"links/{given['id']}/revoke", **JEFA)
    start, _slash, token = given["url"].rpartition("/")
    answers = [
        await page(house, address, form)
        for address in (given["url"], f"{start}/{token[::-1]}", f"{start}/x", f"{start}/{token}A")
        for form in (None, {"paso": "abrir", "pin": given["pin"]})
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"resultado": "not_provided"}, 422),
        ({"resultado": "provided", "dia": "2026-02-31"}, 422),
        ({"resultado": "provided", "dia": "2999-01-01"}, 422),
        ({"resultado": "regalado"}, 422),
        ({"resultado": "provided", "mensaje": ""}, 422),
        ({"resultado": "provided", "lugar": "x" * 17_000}, 400),
        ({"resultado": "provided", "lugar": "a\x00b"}, 400),
        ({"acto": "confirm_cancel"}, 404),
    ],
)
async def test_a_form_with_mistakes_changes_nothing(
    house: House, systems: dict[str, Caller], form: dict[str, str], status: int
) -> None:
    referral, given = await linked(house, systems, person(house))
    shown = await page(house, given["url"], {"paso": "abrir", "pin": given["pin"]})
    answer = await page(house, given["url"], fields(shown, "outcome") | form)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    events = (await call(house, systems["UTGS"], "GET", f"referrals/{referral}/events")).json()["events"]
    assert not {"outcome", "confirm_cancel"} & {each["type"] for each in events}


# Reports


async def test_a_report_is_a_page_or_a_table_and_its_parameters_are_checked(
    house: House, systems: dict[str, Caller], siis: Siis, tmp_path: Path
) -> None:
    who = person(house)
    referral = await referred(systems, who)
    today = local_day(utc_now())

    async def report(caller: str, query: str = "") -> httpx.Response:
        return await call(house, systems[caller], "GET", f"reports/referrals?since={today}{query}", **JEFA)

    told = await report("MSPBS", "&limit=200")
    assert told.status_code == 200, told.text
    [row] = [each for each in told.json()["referrals"] if each["id"] == referral]
    assert row["person"]["surnames"] == who.surnames
    assert (await report("MTESS")).json()["referrals"] == []
    table = await report("MSPBS", "&format=csv")
    assert table.headers["content-type"].startswith("text/csv")
    kept = {each["id"]: each for each in csv.DictReader(table.content.decode("utf-8-sig").splitlines())}
    assert kept[referral]["person_surnames"] == who.surnames
    assert (await report("MSPBS", "&format=xlsx")).content.startswith(b"PK")
    for query, code in (
        ("&state=lost", "unknown-code"),
        ("&department=18", "unknown-code"),
        ("&until=ayer", "bad-day"),
        ("&format=pdf", "unknown-code"),
        ("&sort=x", "unknown-parameter"),
    ):
        problem(await report("MSPBS", query), 422, code)
    refused = await call(house, systems["MSPBS"], "GET", "reports/referrals", operator="op", role="operator")
    assert refused.status_code == 403
    file = tmp_path / "informe.csv"
    done = await run(siis, "report", "referrals", "MSPBS", "--output", file, "--since", today.isoformat())
    assert done.code == 0, done.err
    assert referral in {each["id"] for each in csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines())}
    assert file.stat().st_mode & 0o777 == 0o600
    assert (await run(siis, "report", "referrals", "MSPBS", "--output", file)).code == 2
    link = (await run(siis, "link", "make", referral, "--json")).json()
    # The command was not told where this house is.
    address = f"{house.issuer.url}/enlace/{link['url'].rpartition('/')[2]}"
    assert (await page(house, address)).status_code == 200
    assert (await run(siis, "link", "revoke", link["id"])).code == 0
    assert (await page(house, address)).status_code == 404
    assert (await run(siis, "link", "list", referral)).code == 0


# Boards


async def test_a_board_and_its_case_over_http(house: House, systems: dict[str, Caller], siis: Siis) -> None:
    who = next(each for each in adults(house)[:60] if each.district)
    code = f"mesa-{uuid7().hex[-8:]}"
    place = ("--department", who.department, "--district", who.district, "--institution", "MTESS")
    added = await run(siis, "board", "add", code, "--name", "Mesa de prueba", *place, "--json")
    assert added.code == 0, added.err
    assert (await run(siis, "board", "add", code, "--name", "Otra", *place)).code == 1
    assert (await run(siis, "board", "seat", code, "vocal", "--institution", "MTESS")).code == 0
    assert code in (await run(siis, "board", "list")).out
    assert "vocal" in (await run(siis, "board", "members", code)).out
    await appoint(house, "MTESS", "vocal", "board-member")
    vocal = {"operator": "vocal", "role": "board-member"}
    mtess = systems["MTESS"]

    async def seated() -> bool:
        return (await call(house, mtess, "GET", f"boards/{code}/referrals", **vocal)).status_code == 200

    await until(seated)
    referral = await referred(systems, who, priority="priority_track")
    seen = (await call(house, mtess, "GET", f"boards/{code}/referrals?limit=200", **vocal)).json()
    [row] = [each for each in seen["referrals"] if each["id"] == referral]
    assert row["person"] is None
    assert [each["code"] for each in (await call(house, mtess, "GET", "boards", **vocal)).json()["boards"]] == [code]
    gaps = await call(house, mtess, "GET", f"boards/{code}/gaps", **vocal)
    assert gaps.status_code == 200, gaps.text
    opened = await call(house, mtess, "POST", "cases", {"referral": referral, "text": "Ña Eme"}, **vocal)
    assert opened.status_code == 201, opened.text
    here = f"cases/{opened.json()['id']}"
    due = (local_day(utc_now()) + timedelta(days=3)).isoformat()
    task = {"step": "add_task", "text": "Visitar", "institution": "MDS", "due_on": due}
    for step in (task, {"step": "add_barrier", "barrier": "distance"}, {"step": "note", "text": "Cruzar el río"}):
        answer = await call(house, mtess, "POST", f"{here}/steps", step, **vocal)
        assert answer.status_code == 201, answer.text
    shown = (await call(house, mtess, "GET", here, **vocal)).json()
    assert [each["what"] for each in shown["tasks"]] == ["Visitar"]
    assert [each["barrier"] for each in shown["barriers"]] == ["distance"]
    problem(await call(house, systems["MSPBS"], "GET", here, **JEFA), 404, "not-found")
    bad = {"step": "add_barrier", "barrier": "pereza"}
    refused = problem(await call(house, mtess, "POST", f"{here}/steps", bad, **vocal), 422, "unknown-code")
    assert "distance" in refused["allowed"]
    wrong = {"step": "note", "text": "x", "task": str(uuid7())}
    problem(await call(house, mtess, "POST", f"{here}/steps", wrong, **vocal), 400, "invalid-message")
    assert (await call(house, mtess, "GET", "cases", **vocal)).json()["cases"][-1]["board"] == code
    [seat] = (await run(siis, "board", "members", code, "--json")).json()
    assert (await run(siis, "board", "unseat", code, seat["id"])).code == 0
    problem(await call(house, mtess, "GET", f"boards/{code}/referrals", **vocal), 404, "not-found")
    assert (await run(siis, "board", "end", code)).code == 0
