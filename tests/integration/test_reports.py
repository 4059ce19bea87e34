"""Nominal reports on a real database: each institution its own referrals, each person an entry, some kept back."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID
from zipfile import ZipFile

import pytest
import pytest_asyncio
from python_calamine import CalamineWorkbook
from referral_desk import START, prepare
from territory import DEPARTMENT, DISTRICT, Territory, open_territory, someone

from gateway import embedded, errors
from gateway.api.reports import RECEIVED
from gateway.api.sheets import flat, sheet
from gateway.referrals.nominal import Filter
from gateway.reports.service import Reports
from gateway.settings import Settings, load_settings
from gateway.witnesses.quorum import Quorum, Standing

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALL = Filter(limit=1000)


@pytest.fixture(scope="module")
def prepared(folders: Callable[[str], Path]) -> Iterator[Settings]:
    chosen = load_settings(data_dir=folders("reports") / "data")
    prepare(chosen)
    yield chosen
    embedded.stop(chosen.data_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(prepared: Settings) -> AsyncIterator[Territory]:
    async with open_territory(prepared) as territory:
        yield territory


async def reported(
    place: Territory, institution: str, side: Literal["received", "sent"] = "received", asked: Filter = ALL
) -> dict[UUID, dict[str, Any]]:
    report = await place.reports.referrals(someone(institution), side, asked, form="json")
    return {UUID(row["id"]): row for row in report.rows}


async def test_each_institution_gets_the_referrals_to_its_own_services_and_those_it_sent(place: Territory) -> None:
    ours, theirs = await place.delivered(), await place.referral(service="tekopora")
    assert ours in (got := await reported(place, "MSPBS"))
    assert {row["recipient"] for row in got.values()} == {"MSPBS"}
    assert theirs in await reported(place, "MDS")
    assert await reported(place, "MEC") == {}
    assert await reported(place, "MDS", "sent") == {}
    sent = await reported(place, "UTGS", "sent")
    assert {ours, theirs} <= sent.keys()
    # Who sends learns nothing of a person that a decision did not release to it.
    assert not any({"person", "reason_text"} & row.keys() for row in sent.values())


async def test_a_recipient_sees_of_the_person_what_it_is_sent_and_everybody_in_it_finds_an_entry(
    place: Territory,
) -> None:
    person = await place.desk.person(identifiers=(("cedula", "4111222"),))
    referral = await place.delivered(person=person, reason_text="Le falta la segunda dosis")
    row = (await reported(place, "MSPBS"))[referral]
    assert row["person"]["surnames"] == "Ficticia"
    assert row["person"]["identifiers"] == [{"system": "cedula", "value": "4111222"}]
    assert row["reason_text"] == "Le falta la segunda dosis"
    told = [entry for entry in await place.entries("report.released", 300) if entry.detail is not None]
    [entry] = [each for each in told if each.detail["exchange"]["referral"] == str(referral)]  # type: ignore[index]
    assert entry.detail is not None
    assert entry.detail["actor"]["institution"] == "MSPBS"
    assert set(entry.detail["what"]["released"]) == set(row["person"])
    [subject] = await place.rows(
        "SELECT subject FROM audit.subject_key WHERE pseudonym = %s", entry.envelope["subject"]
    )
    assert subject == (person,)


@pytest.mark.parametrize("kind", ["sealed", "court-order", "aggressor"])
async def test_of_a_protected_person_a_report_names_nothing_and_what_was_never_sent_is_not_in_it(
    place: Territory, kind: str
) -> None:
    person, other = await place.desk.person(), await place.desk.person()
    known, unsent = await place.delivered(person=person), await place.referral(person=other)
    for each in (person, other):
        await place.protect(each, kind, "MSPBS" if kind == "aggressor" else "")
    got = await reported(place, "MSPBS")
    assert got[known]["person"] is None
    assert got[known]["reason_text"] is None
    assert unsent not in got
    assert len(await place.entries("report.withheld", 300)) >= 2


async def test_filters_narrow_and_pages_follow_each_other(place: Territory) -> None:
    place.desk.at = START + timedelta(days=40)
    accepted, untouched = await place.delivered(), await place.referral()
    day = (START + timedelta(days=40)).date()
    since = replace(ALL, since=day)
    assert (await reported(place, "MSPBS", asked=since)).keys() == {accepted, untouched}
    assert (await reported(place, "MSPBS", asked=replace(since, states=frozenset({"accepted"})))).keys() == {accepted}
    assert accepted in await reported(place, "MSPBS", asked=replace(since, department=DEPARTMENT, district=DISTRICT))
    assert not await reported(place, "MSPBS", asked=replace(since, district="1116"))
    assert not await reported(place, "MSPBS", asked=replace(since, until=day - timedelta(days=1), overdue=True))
    late = await reported(place, "MSPBS", asked=replace(ALL, overdue=True))
    assert late
    assert {accepted, untouched}.isdisjoint(late)
    whole, part, found = await reported(place, "MSPBS"), replace(ALL, limit=2), list[str]()
    while True:
        report = await place.reports.referrals(someone("MSPBS"), "received", part, form="json")
        found += [row["id"] for row in report.rows]
        if report.next is None:
            break
        part = replace(part, after=report.next)
    assert found == [str(each) for each in whole]


async def test_an_operator_makes_no_report_and_nobody_does_without_witnesses(place: Territory) -> None:
    with pytest.raises(errors.Denied):
        await place.reports.referrals(someone("MSPBS", "operator"), "received", ALL, form="json")
    quorum = Quorum()
    quorum.learn(Standing("missing"), START - timedelta(days=1))
    runtime = place.runtime
    stopped = Reports(
        governance=place.governance, vault=runtime.vault, audit=runtime.audit, policies=runtime.policies, quorum=quorum
    )
    with pytest.raises(errors.EvidenceStopped):
        await stopped.referrals(someone("MSPBS"), "received", ALL, form="json")


async def test_no_cell_of_a_table_is_run_by_the_program_that_opens_it(place: Territory) -> None:
    hostile = '=HYPERLINK("http://x","y")'
    person = await place.desk.person(given_names=hostile, surnames="@SUM(1)\x07", identifiers=(("hc", "-1+1"),))
    referral = await place.delivered(person=person, reason_text="\t=1+1")
    rows = [flat((await reported(place, "MSPBS"))[referral])]
    written = await sheet("csv", "referencias", RECEIVED, rows, headers={})
    [header, row] = csv.reader(io.StringIO(bytes(written.body).decode("utf-8-sig")))
    assert tuple(header) == RECEIVED
    cells = dict(zip(header, row, strict=True))
    assert cells["person_given_names"] == "'" + hostile
    assert cells["person_surnames"] == "'@SUM(1) "
    assert cells["person_identifiers"] == "hc:-1+1"
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in row)
    content = bytes((await sheet("xlsx", "referencias", RECEIVED, rows, headers={})).body)
    [_columns, shown] = CalamineWorkbook.from_filelike(io.BytesIO(content)).get_sheet_by_index(0).to_python()
    assert shown[RECEIVED.index("person_given_names")] == hostile
    with ZipFile(io.BytesIO(content)) as book:
        page = book.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in page
    assert page.count(' t="s"') == 2 * len(RECEIVED)
