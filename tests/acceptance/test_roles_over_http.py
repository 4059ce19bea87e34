"""Roles and compartments over HTTP and on the command line: the first administrator, who gives what, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.cli.demo.clients import Caller
from schemas.ids import uuid7
from tests.acceptance.bad_input import entries, newcomer
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import appoint, call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
# An institution that no other test of this folder gives roles in.
HERE, THERE = "MEC", "SNPP"
ADMINISTRATOR, OFFICER = "administrator", "data-protection-officer"
ASSIGNMENTS, COMPARTMENTS = "role-assignments", "compartments"


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", None)
    yield made
    made.end()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def at_house(siis: Siis, house: House) -> Siis:
    return siis.on(house.settings.data_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(house: House) -> Caller:
    return await newcomer(house, HERE, "roles.manage")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def staff(house: House, system: Caller) -> dict[str, dict[str, Any]]:
    """An administrator (ana) and an officer (ofi), known to the running gateway."""
    given = {user: await appoint(house, HERE, user, role) for user, role in (("ana", ADMINISTRATOR), ("ofi", OFFICER))}

    async def known() -> bool:
        answers = [
            await call(house, system, "GET", ASSIGNMENTS, operator=user, role=role)
            for user, role in (("ana", ADMINISTRATOR), ("ofi", OFFICER))
        ]
        return all(answer.status_code == 200 for answer in answers)

    await until(known)
    return given


def told(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:siis:problem:{code}"
    assert body["detail"]
    return body


async def test_the_machine_names_the_first_administrator_who_names_the_rest(
    house: House, at_house: Siis, system: Caller
) -> None:
    since = uuid7()
    named = await run(at_house, "role", "grant", "adela", ADMINISTRATOR, "--institution", HERE, "--json")
    assert named.code == 0, named.err
    grant = {"user": "oscar", "role": OFFICER}
    given: list[httpx.Response] = []

    async def granted() -> bool:
        answer = await call(house, system, "POST", ASSIGNMENTS, grant, operator="adela", role=ADMINISTRATOR, key="k-1")
        given.append(answer)
        return answer.status_code == 201

    await until(granted)
    first = given[-1].json()
    assert (first["user"], first["role"], first["institution"]) == ("oscar", OFFICER, HERE)
    again = await call(house, system, "POST", ASSIGNMENTS, grant, operator="adela", role=ADMINISTRATOR, key="k-1")
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first, "true")
    by_machine, by_adela = reversed(await entries(house, "role.granted", since))
    assert (by_machine["actor"]["channel"], by_machine["what"]["user"]) == ("command-line", "adela")
    assert (by_adela["actor"]["user"], by_adela["what"]["role"]) == ("adela", OFFICER)
    assert by_adela["id"] == first["receipt"]["entry_id"]
    listed = (await run(at_house, "role", "list", "--institution", HERE, "--json")).json()
    assert {"adela", "oscar"} <= {each["user"] for each in listed}
    assert "oscar" in (await run(at_house, "role", "list")).out
    ended = await run(at_house, "role", "revoke", first["id"])
    assert ended.code == 0, ended.err
    assert (await run(at_house, "role", "revoke", first["id"])).code == 1

    async def gone() -> bool:
        return (await call(house, system, "GET", COMPARTMENTS, operator="oscar", role=OFFICER)).status_code == 403

    await until(gone)


@pytest.mark.parametrize(
    ("user", "role", "grant", "status", "code"),
    [
        ("ana", ADMINISTRATOR, {"user": "ana", "role": OFFICER}, 409, "own-grant"),
        ("ana", ADMINISTRATOR, {"user": "ofi", "role": ADMINISTRATOR}, 409, "excluded-role"),
        ("ana", ADMINISTRATOR, {"user": "ofi", "role": OFFICER}, 409, "role-held"),
        ("ana", ADMINISTRATOR, {"user": "beto", "role": "emergency"}, 403, "denied"),
        ("ofi", OFFICER, {"user": "beto", "role": ADMINISTRATOR}, 403, "denied"),
        ("ana", "operator", {"user": "beto", "role": ADMINISTRATOR}, 403, "denied"),
        ("eva", ADMINISTRATOR, {"user": "beto", "role": ADMINISTRATOR}, 403, "denied"),
        (None, "operator", {"user": "beto", "role": ADMINISTRATOR}, 403, "denied"),
        ("ana", ADMINISTRATOR, {"user": "beto", "role": "king"}, 422, "unknown-code"),
        ("ana", ADMINISTRATOR, {"user": "beto", "role": "operator"}, 422, "role-not-granted"),
        ("ana", ADMINISTRATOR, {"user": "client:x", "role": OFFICER}, 422, "system-role"),
        ("ana", ADMINISTRATOR, {"user": "be to", "role": OFFICER}, 422, "bad-user"),
        (
            "ana",
            ADMINISTRATOR,
            {"user": "beto", "role": OFFICER, "valid_to": "2020-01-01T00:00:00Z"},
            422,
            "bad-validity",
        ),
        ("ana", ADMINISTRATOR, {"user": "beto", "role": OFFICER, "valid_to": "tomorrow"}, 400, "invalid-message"),
        ("ana", ADMINISTRATOR, {"user": "beto", "role": OFFICER, "institution": THERE}, 400, "invalid-message"),
        ("ana", ADMINISTRATOR, {"user": "beto"}, 400, "invalid-message"),
        ("ana", ADMINISTRATOR, [], 400, "invalid-message"),
    ],
)
async def test_a_grant_that_may_not_be_is_refused_changes_nothing_and_is_an_entry(
    house: House,
    system: Caller,
    staff: dict[str, dict[str, Any]],
    user: str | None,
    role: str,
    grant: Any,
    status: int,
    code: str,
) -> None:
    since = uuid7()
    answer = await call(house, system, "POST", ASSIGNMENTS, grant, operator=user, role=role)
    body = told(answer, status, code)
    assert await entries(house, "role.granted", since) == []
    [entry] = await entries(house, "governance.denied" if status == 403 else "request.refused", since)
    assert entry["id"] == body["receipt"]["entry_id"]
    if code == "unknown-code":
        assert OFFICER in body["allowed"]
        assert [error["pointer"] for error in body["errors"]] == ["/role"]


async def test_the_officer_opens_and_closes_compartments(
    house: House, system: Caller, staff: dict[str, dict[str, Any]]
) -> None:
    officer, what = {"operator": "ofi", "role": OFFICER}, {"role": "operator", "compartment": "health"}
    denied = await call(house, system, "POST", COMPARTMENTS, what, operator="ana", role=ADMINISTRATOR)
    told(denied, 403, "denied")
    given = await call(house, system, "POST", COMPARTMENTS, what, **officer)
    assert given.status_code == 201, given.text
    told(await call(house, system, "POST", COMPARTMENTS, what, **officer), 409, "compartment-held")
    for wrong, code in (("economic", "not-a-compartment"), ("gossip", "unknown-code")):
        body = told(
            await call(house, system, "POST", COMPARTMENTS, what | {"compartment": wrong}, **officer), 422, code
        )
        assert "health" in body["allowed"]
    listed = (await call(house, system, "GET", COMPARTMENTS, **officer)).json()[COMPARTMENTS]
    assert [(each["role"], each["compartment"]) for each in listed] == [("operator", "health")]
    closing = f"{COMPARTMENTS}/{given.json()['id']}/revoke"
    assert (await call(house, system, "POST", closing, **officer)).status_code == 200
    told(await call(house, system, "POST", closing, **officer), 404, "not-found")


async def test_another_institutions_roles_look_like_nothing(
    house: House, system: Caller, staff: dict[str, dict[str, Any]]
) -> None:
    theirs = await appoint(house, THERE, "eva", ADMINISTRATOR)
    mine = {"operator": "ana", "role": ADMINISTRATOR}
    listed = (await call(house, system, "GET", ASSIGNMENTS, **mine)).json()["role_assignments"]
    assert {each["institution"] for each in listed} == {HERE}
    answers = [
        await call(house, system, "POST", f"{ASSIGNMENTS}/{name}/revoke", **mine)
        for name in (theirs["id"], str(uuid7()), "1", theirs["id"].upper() + "x")
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}


async def test_a_list_comes_in_pages_without_totals(
    house: House, system: Caller, staff: dict[str, dict[str, Any]]
) -> None:
    mine = {"operator": "ana", "role": ADMINISTRATOR}
    whole = (await call(house, system, "GET", ASSIGNMENTS, **mine)).json()
    assert whole.keys() == {"role_assignments", "next"}
    users, following = [], ""
    while following is not None:
        part = (
            await call(house, system, "GET", f"{ASSIGNMENTS}?limit=1{following and f'&after={following}'}", **mine)
        ).json()
        users += [each["user"] for each in part["role_assignments"]]
        following = part["next"]
    assert users == [each["user"] for each in whole["role_assignments"]]
    for query in ("limit=0", "limit=201", "limit=-1", "limit=٣", "limit=", "after=1", "after="):
        told(await call(house, system, "GET", f"{ASSIGNMENTS}?{query}", **mine), 422, "bad-page")


async def test_a_token_without_the_scope_reaches_nothing(house: House, staff: dict[str, dict[str, Any]]) -> None:
    other = await newcomer(house, HERE, "producers.read")
    for method, path in (("GET", ASSIGNMENTS), ("POST", ASSIGNMENTS), ("GET", COMPARTMENTS), ("POST", COMPARTMENTS)):
        answer = await call(house, other, method, path, {}, operator="ana", role=ADMINISTRATOR)
        told(answer, 403, "unauthorised")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("role", "grant", "ana", "king", "--institution", HERE), 2, "administrator"),
        (("role", "grant", "ana", "operator", "--institution", HERE), 2, "otorga"),
        (("role", "grant", "ana", "auditor", "--institution", "NASA"), 2, "catálogo"),
        (("role", "grant", "a b", "auditor", "--institution", HERE), 2, "usuario"),
        (("role", "grant", "ana", "auditor", "--institution", HERE, "--days", "0"), 2, "--days"),
        (("role", "revoke", "nothing"), 2, "UUID"),
        (("role", "revoke", "01980000-0000-7000-8000-000000000001"), 1, "en vigor"),
        (("role", "compartment", "add", "operator", "gossip", "--institution", HERE), 2, "health"),
        (("role", "compartment", "add", "operator", "economic", "--institution", HERE), 2, "compartimento"),
        (("role", "compartment", "remove", "01980000-0000-7000-8000-000000000001"), 1, "en vigor"),
    ],
)
async def test_the_command_line_says_what_is_wrong_and_how_it_ended(
    at_house: Siis, arguments: tuple[str, ...], code: int, word: str
) -> None:
    ended = await run(at_house, *arguments)
    assert (ended.code, word in ended.err, "Traceback" in ended.err) == (code, True, False), ended.err


async def test_the_command_line_opens_and_closes_compartments(at_house: Siis) -> None:
    named = ("role", "compartment", "add", "supervisor", "disability", "--institution", HERE)
    given = (await run(at_house, *named, "--json")).json()
    assert (await run(at_house, *named)).code == 1
    listed = (await run(at_house, "role", "compartment", "list", "--institution", HERE, "--json")).json()
    assert given["id"] in {each["id"] for each in listed}
    assert "Supervisor" in (await run(at_house, "role", "compartment", "list")).out
    assert (await run(at_house, "role", "compartment", "remove", given["id"])).code == 0
