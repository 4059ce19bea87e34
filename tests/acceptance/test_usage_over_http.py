"""Who used a person's data, over HTTP and on the command line: for the person, a guardian, a portal, in all shapes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from adapters.simulator.population import SimPerson
from gateway.cli.context import governance_of
from gateway.clock import utc_now
from gateway.governance.people import Named
from gateway.governance.protection import FlagChange, NewMandate, Protection
from gateway.identity import issuers
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, asking, entries, newcomer, problem
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import appoint, call
from tests.house import House, until
from tests.integration import outside_issuer

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATH, TRACKER, REGISTRIES = "/api/v1/usage", "/data-tracker", "/digital-registries/data"


@dataclass
class Citizens:
    """Persons who come with tokens of their own, by an issuer that the house believes."""

    house: House
    issuer: outside_issuer.OutsideIssuer

    async def call(
        self, person: SimPerson | str, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        cedula = person if isinstance(person, str) else person.cedula
        token = self.issuer.sign(utc_now(), jti=str(uuid7()), scope="usage.read", documento={"numero": cedula})
        given = {"Authorization": f"Bearer {token}", **headers}
        return await self.house.http.request(method, self.house.issuer.url + path, json=body, headers=given)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def citizens(house: House) -> AsyncIterator[Citizens]:
    with outside_issuer.serve() as issuer:
        told = outside_issuer.citizens(issuer) | {"scopes": ["usage.read"]}
        async with house.context() as context, context.database.transaction() as connection:
            registration = issuers.Registration.model_validate(told)
            await issuers.add_issuer(connection, registration, own=house.issuer.url, now=utc_now())
        made = Citizens(house, issuer)

        async def believed() -> bool:
            return (await made.call(people(house)[0], "GET", PATH)).status_code == 200

        await until(believed)
        yield made


@pytest.fixture(scope="module")
def siis(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", house.settings.data_dir)
    yield made
    made.end()


def people(house: House) -> list[SimPerson]:
    """Adults whom no other test of the folder asks about."""
    return adults(house)[-60:-40]


def child_of(house: House, which: int) -> SimPerson:
    young = datetime.now(UTC).year - 15
    return [each for each in house.people if each.cedula and not each.deceased_on and each.birth_date.year > young][
        -1 - which
    ]


async def asked_for(house: House, person: SimPerson, **changes: Any) -> str:
    """Let the MDS ask the gateway for a person's data, and return the entry of the receipt."""
    answer = await house.callers["demo-mds"].post("/api/v1/disclosures", asking(person, **changes))
    return str(answer.json()["receipt"]["entry_id"])


async def protect(house: House, work: str, *arguments: Any, **named: Any) -> None:
    async with house.context() as context:
        await getattr(Protection(governance_of(context), context.vault), work)(None, *arguments, **named)


async def mandate(house: House, child: SimPerson, parent: SimPerson) -> None:
    new = NewMandate(
        subject=Named("cedula", str(child.cedula)),
        representative=Named("cedula", str(parent.cedula)),
        kind="parent",
        proof_reference="acta 7",
    )
    await protect(house, "add_representative", new)


async def test_a_person_sees_what_was_released_and_what_was_refused_and_can_fetch_the_proof(
    house: House, citizens: Citizens
) -> None:
    mine, another = people(house)[0:2]
    released = await asked_for(house, mine)
    await asked_for(house, another)
    denied = await asked_for(house, mine, purpose="official-statistics")

    async def proven() -> bool:
        lines = (await citizens.call(mine, "GET", PATH)).json()["usage"]
        return all(line["log"]["proven"] for line in lines if line["id"] in (released, denied))

    await until(proven)
    answer = await citizens.call(mine, "GET", f"{PATH}?limit=200")
    told = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    by_others = [line for line in told["usage"] if line["who"]["kind"] != "you"]
    assert [line["id"] for line in by_others] == [denied, released]
    no, yes = by_others
    assert (no["permitted"], yes["permitted"]) == (False, True)
    assert yes["text"] == "Recibió datos suyos"
    assert [field["code"] for field in yes["data"]["fields"]] == ["given_names"]
    assert str(mine.cedula) not in answer.text
    assert "operadora" not in answer.text


async def test_pages_go_on_where_the_last_one_ended(house: House, citizens: Citizens) -> None:
    mine = people(house)[2]
    made = [await asked_for(house, mine) for _ in range(3)]
    until_now = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    seen, after = [], ""
    while True:
        page = (await citizens.call(mine, "GET", f"{PATH}?limit=2&until={until_now.replace('+', '%2B')}{after}")).json()
        seen += [line["id"] for line in page["usage"] if line["who"]["kind"] != "you"]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == made[::-1]


async def test_a_guardian_sees_the_childs_and_a_blocked_one_exactly_what_is_told_of_nobody(
    house: House, citizens: Citizens
) -> None:
    child, (mother, father) = child_of(house, 0), people(house)[3:5]
    await mandate(house, child, mother)
    await mandate(house, child, father)
    used = await asked_for(house, child)
    body = {"subject": {"system": "cedula", "value": child.cedula}}
    for parent in (mother, father):
        lines = (await citizens.call(parent, "POST", PATH, body)).json()["usage"]
        assert used in [line["id"] for line in lines]
    barred = FlagChange(
        subject=Named("cedula", str(child.cedula)), kind="aggressor", person=Named("cedula", str(father.cedula))
    )
    await protect(house, "flag", barred)
    since = uuid7()
    answers = [
        await citizens.call(father, "POST", PATH, {"subject": {"system": "cedula", "value": value}})
        for value in (child.cedula, "7999999")
    ]
    problem(answers[0], 404, "not-found", secrets=[str(child.cedula)])
    same = [
        (each.status_code, each.content, [pair for pair in each.headers.raw if pair[0] != b"date"]) for each in answers
    ]
    assert same[0] == same[1]
    assert len(await entries(house, "usage.denied", since)) == 2
    # Somebody whom the store does not know, with a token of their own, is told the same.
    stranger = await citizens.call("7999998", "GET", PATH)
    assert (stranger.status_code, stranger.content) == (404, answers[0].content)
    shown = (await citizens.call(mother, "POST", PATH, body)).json()
    assert "usage.denied" not in [line["type"] for line in shown["usage"]]
    assert used not in [line["id"] for line in shown["usage"]]
    [reading] = [entry for entry in await entries(house, "usage.read", since) if entry["what"]["represented"]]
    assert reading["what"]["hidden"]["protected"] >= 1
    assert shown.keys() == (await citizens.call(mother, "GET", PATH)).json().keys()


async def test_a_portal_needs_its_scope_and_an_attendant_their_role(house: House) -> None:
    mine = people(house)[5]
    used = await asked_for(house, mine)
    body = {"subject": {"system": "cedula", "value": mine.cedula}}
    portal, system = (
        await newcomer(house, "MITIC", "usage.read", "usage.portal"),
        await newcomer(house, "MITIC", "usage.read"),
    )

    async def post(caller: Any, **more: Any) -> httpx.Response:
        return await call(house, caller, "POST", "usage", body, **more)

    shown = await post(portal)
    assert used in [line["id"] for line in shown.json()["usage"]]
    assert (await post(system)).status_code == 403
    user = f"mostrador-{uuid7()}"
    refused = await post(system, operator=user, role="attendant")
    assert (refused.status_code, refused.json()["reasons"][0]["code"]) == (403, "role")
    await appoint(house, "MITIC", user, "attendant")

    async def known() -> bool:
        return (await post(system, operator=user, role="attendant")).status_code == 200

    await until(known)
    nobody = await call(house, portal, "POST", "usage", {"subject": {"system": "cedula", "value": "7999997"}})
    problem(nobody, 404, "not-found")


@pytest.mark.parametrize(
    ("query", "code", "pointer"),
    [
        ("since=ayer", "bad-period", "/since"),
        ("until=2026-11-22T00:00:00", "bad-period", "/until"),
        ("limit=0", "bad-page", "/limit"),
        ("after=x", "bad-page", "/after"),
    ],
)
async def test_a_query_that_cannot_be_read_says_where(
    house: House, citizens: Citizens, query: str, code: str, pointer: str
) -> None:
    problem(await citizens.call(people(house)[0], "GET", f"{PATH}?{query}"), 422, code, pointer=pointer)


async def test_the_data_tracker_of_estonia_gets_its_three_answers(house: House, citizens: Citizens) -> None:
    mine = people(house)[6]
    await asked_for(house, mine)
    own = (await citizens.call(mine, "GET", f"{TRACKER}/findUsage")).json()
    assert own["totalUsages"] == 1
    [usage] = own["usages"]
    assert usage.keys() == {"logtime", "action", "receiverCode", "receiverName", "receiverSystem"}
    assert usage["receiverCode"] == "MDS"
    assert datetime.fromisoformat(usage["logtime"]) <= datetime.now(UTC)
    period = (await citizens.call(mine, "GET", f"{TRACKER}/usagePeriod")).json()
    assert datetime.fromisoformat(period["periodStart"]) <= datetime.fromisoformat(usage["logtime"])
    assert (await citizens.call(mine, "GET", f"{TRACKER}/heartbeat")).json() == {"status": "OK"}

    portal = await newcomer(house, "MITIC", "usage.read", "usage.portal")
    person = (await citizens.call(mine, "GET", PATH)).json()["person"]

    async def find(code: str | None, **headers: str) -> httpx.Response:
        query = {} if code is None else {"userCode": code}
        bearer = {"Authorization": f"Bearer {portal.token}", **headers}
        return await house.http.get(f"{house.issuer.url}{TRACKER}/findUsage", params=query, headers=bearer)

    who = {"X-Road-UserId": f"PY{mine.cedula}"}
    assert [each["receiverCode"] for each in (await find(None, **who)).json()["usages"]] == ["MDS"]
    # The portal's own look was one too: a portal could look without anybody before it.
    assert [each["receiverCode"] for each in (await find(person, **who)).json()["usages"]] == ["MITIC", "MDS"]
    problem(await find(str(mine.cedula), **who), 400, "bad-identifier", pointer="/userCode")
    problem(await find(None), 400, "bad-identifier", pointer="/X-Road-UserId")
    stranger = {"X-Road-UserId": f"PY{people(house)[7].cedula}"}
    problem(await find(person, **stranger), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "user", "database", "name"),
    [
        ("MyPersonalDataUsage/1.0", "userID", "DatabaseID", "ReaderInstitutionID"),
        ("myPersonalDataUsage", "userId", "databaseId", "readerInstitutionId"),
        ("mypersonalDataUsage", "userId", "databaseId", "readerInstitutionId"),
    ],
)
async def test_govstack_gets_its_records_at_every_spelling(
    house: House, citizens: Citizens, path: str, user: str, database: str, name: str
) -> None:
    mine, another = people(house)[8:10]
    await asked_for(house, mine)
    ids = [str(UUID((await citizens.call(each, "GET", PATH)).json()["person"])) for each in (mine, another)]
    here = f"{REGISTRIES}/{path}"
    records = (await citizens.call(mine, "GET", f"{here}?{user}={ids[0]}&{database}=identity")).json()
    assert {record[name] for record in records} == {"MDS"}
    bad = await citizens.call(mine, "GET", f"{here}?{user}={mine.cedula}&{database}=identity")
    problem(bad, 400, "bad-identifier", pointer=f"/{user}")
    none = await citizens.call(mine, "GET", f"{here}?{user}={ids[0]}&{database}=none")
    problem(none, 400, "unknown-code", pointer=f"/{database}")
    problem(await citizens.call(mine, "GET", f"{here}?{user}={ids[1]}&{database}=SIIS"), 404, "not-found")


async def test_whoever_attends_a_person_without_a_portal_has_a_command(house: House, siis: Siis) -> None:
    mine, since = people(house)[10], uuid7()
    used = await asked_for(house, mine)
    await asked_for(house, mine, fields=["sex"])
    told = (await run(siis, "usage", "show", str(mine.cedula), "--json")).json()
    assert told["usage"][1]["id"] == used
    [reading] = await entries(house, "usage.read", since)
    assert reading["actor"]["channel"] == "command-line"
    table = await run(siis, "usage", "show", str(mine.cedula))
    assert table.code == 0
    assert "Social" in table.out
    assert "Nombres" in table.out
    assert (await run(siis, "usage", "show", "7999996")).code == 1
    assert (await run(siis, "usage", "show", "no es")).code == 2
