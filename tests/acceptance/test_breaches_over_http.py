"""A breach over HTTP and on the command line: opened, its persons drawn from the log, told, closed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from adapters.simulator.population import SimPerson
from gateway.clock import utc_now
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults
from tests.acceptance.command_line import Siis, run
from tests.acceptance.desk import Desk, open_desk
from tests.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATH = "breaches"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def desks(house: House) -> dict[str, Desk]:
    return {name: await open_desk(house, name) for name in ("MDS", "MEC")}


@pytest.fixture(scope="module")
def siis(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", house.settings.data_dir)
    yield made
    made.end()


async def asked_about(house: House, number: int) -> SimPerson:
    """Let MDS ask for somebody's identity."""
    person = adults(house)[number]
    body = {
        "subject": {"system": "cedula", "value": person.cedula},
        "dataset": "identity",
        "fields": ["given_names"],
        "purpose": "service-access-determination",
        "basis": "official-authority",
    }
    answer = await house.callers["demo-mds"].post("/api/v1/disclosures", body)
    assert answer.status_code == 200, answer.text
    return person


def report(since: datetime, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "stolen-credentials",
        "what": "Se robó la clave del sistema.",
        "since": since.isoformat(),
        "known_at": since.isoformat(),
        "client": "demo-mds",
        **changes,
    }


async def test_an_officer_opens_a_breach_and_tells_exactly_those_the_log_names(
    house: House, desks: dict[str, Desk]
) -> None:
    mds = desks["MDS"]
    await asked_about(house, 93)
    since = utc_now()
    people = [await asked_about(house, number) for number in (94, 95)]
    opened = await mds.call("POST", PATH, report(since), key="breach-1")
    assert opened.status_code == 201, opened.text
    told = opened.json()
    assert datetime.fromisoformat(told["due_at"]) - since == timedelta(hours=72)
    assert (await mds.call("POST", PATH, report(since), key="breach-1")).json() == told
    here = f"{PATH}/{told['breach']}"
    early = await mds.call("POST", f"{here}/notified", {"whom": "people"})
    assert (early.status_code, early.json()["type"]) == (409, "urn:siis:problem:breach-out-of-order")
    assert (await mds.call("GET", f"{here}/affected")).status_code == 409
    assert (await mds.call("POST", f"{here}/affected")).json()["affected"] == 2
    answer = await mds.call("GET", f"{here}/affected")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert {row["identifier"] for row in rows} == {person.cedula for person in people}
    for whom in ("agency", "people"):
        assert (await mds.call("POST", f"{here}/notified", {"whom": whom})).json()["late"] is False
    assert (await mds.call("POST", f"{here}/close", {"measures": "Clave cambiada."})).status_code == 200
    shown = (await mds.call("GET", here)).json()
    assert (shown["what"], shown["measures"]) == ("Se robó la clave del sistema.", "Clave cambiada.")
    [listed] = [
        each for each in (await mds.call("GET", f"{PATH}?limit=200")).json()["breaches"] if each["id"] == told["breach"]
    ]
    assert "what" not in listed


async def test_another_institution_cannot_tell_a_breach_from_none(desks: dict[str, Desk]) -> None:
    opened = (await desks["MDS"].call("POST", PATH, report(utc_now()), key=str(uuid7()))).json()
    for name in ("", "/affected"):
        real = await desks["MEC"].call("GET", f"{PATH}/{opened['breach']}{name}")
        none = await desks["MEC"].call("GET", f"{PATH}/{uuid7()}{name}")
        assert real.status_code == none.status_code == 404
        answers = [{k: v for k, v in answer.json().items() if k != "receipt"} for answer in (real, none)]
        assert answers[0] == answers[1]
    denied = await desks["MDS"].call("GET", f"{PATH}/{opened['breach']}", role="operator")
    assert denied.status_code == 403


@pytest.mark.parametrize(
    ("changes", "status", "problem"),
    [
        ({"kind": "bad-luck"}, 422, "unknown-code"),
        ({"known_at": "2999-01-01T00:00:00Z"}, 422, "breach-times"),
        ({"known_at": "2026-01-01T00:00:00"}, 400, "invalid-message"),
        ({"party": "MEC"}, 400, "invalid-message"),
    ],
)
async def test_a_report_that_is_none_gets_what_to_do(
    desks: dict[str, Desk], changes: dict[str, Any], status: int, problem: str
) -> None:
    answer = await desks["MDS"].call("POST", PATH, report(utc_now(), **changes), key=str(uuid7()))
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:siis:problem:{problem}")


async def test_the_command_line_keeps_the_clock_and_writes_the_list(house: House, siis: Siis, tmp_path: Path) -> None:
    since = utc_now()
    person = await asked_about(house, 6)
    what, target = tmp_path / "que.txt", tmp_path / "lista.csv"
    what.write_text("Alguien entró al servidor.", encoding="utf-8")
    times = ("--since", since.isoformat(), "--known-at", since.isoformat())
    told = (
        await run(
            siis, "breach", "open", "unauthorised-access", "--what", what, *times, "--client", "demo-mds", "--json"
        )
    ).json()
    assert (told["institution"], told["party"]) == ("UTGS", None)
    shown = await run(siis, "breach", "show", told["breach"])
    assert "quedan 71 horas" in shown.out
    assert "Alguien entró al servidor." in shown.out
    assert (await run(siis, "breach", "export", told["breach"], target)).code == 1
    assert not target.exists()
    assert (await run(siis, "breach", "affected", told["breach"], "--json")).json()["affected"] == 1
    assert (await run(siis, "breach", "export", told["breach"], target)).code == 0
    assert target.stat().st_mode & 0o777 == 0o600
    assert str(person.cedula) in target.read_text(encoding="utf-8")
    assert (await run(siis, "breach", "export", told["breach"], target)).code == 2
    for whom in ("agency", "people"):
        assert (await run(siis, "breach", "notified", told["breach"], whom)).code == 0
    assert "avisada en plazo" in (await run(siis, "breach", "show", told["breach"])).out
    assert (await run(siis, "breach", "close", told["breach"], "--measures", what)).code == 0
    listed = (await run(siis, "breach", "list", "--institution", "UTGS", "--json")).json()
    assert told["breach"] in {each["id"] for each in listed}
    late = ("--since", "2026-01-01T00:00", "--known-at", "2026-01-02T00:00")
    old = (await run(siis, "breach", "open", "loss", "--what", what, *late, "--json")).json()
    assert old["since"] == "2026-01-01T00:00:00-03:00"
    assert "VENCIDA" in (await run(siis, "breach", "show", old["breach"])).out
    assert (await run(siis, "breach", "open", "loss", "--what", what, "--since", "ayer", "--known-at", "hoy")).code == 2
