"""Emergency accesses over HTTP and on the command line: who is told, who reviews, and what a verdict does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from consent.decision import decide
from consent.models import FETCH, EmergencyClaim, Request, SubjectFacts
from consent.models import Caller as Asking
from consent.policy import PolicyStore
from gateway.cli.demo.clients import Caller
from gateway.governance.emergencies import open_emergency
from schemas.ids import uuid7
from tests.acceptance.bad_input import entries, newcomer
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import appoint, call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
HERE, HOLDER, STRANGER = "MINNA", "MSPBS", "SNPP"
OFFICER = "data-protection-officer"
SCOPES = ("emergency.review", "notices.read")


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", None)
    yield made
    made.end()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def at_house(siis: Siis, house: House) -> Siis:
    return siis.on(house.settings.data_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def systems(house: House) -> dict[str, Caller]:
    """The systems of the institution that asks, of the holder and of a stranger, each with an officer (ofi)."""
    made = {institution: await newcomer(house, institution, *SCOPES) for institution in (HERE, HOLDER, STRANGER)}
    for institution in made:
        await appoint(house, institution, "ofi-emergency", OFFICER)

    async def known() -> bool:
        answers = [await by_officer(house, system, "GET", "notices") for system in made.values()]
        return all(answer.status_code == 200 for answer in answers)

    await until(known)
    return made


async def by_officer(house: House, system: Caller, method: str, path: str, body: Any = None) -> httpx.Response:
    return await call(house, system, method, path, body, operator="ofi-emergency", role=OFFICER)


async def opened(house: House, user: str) -> tuple[str, str]:
    """Break the glass as the exchange does, for somebody with the role; return the person's id and the entry's."""
    await appoint(house, HERE, user, "emergency")
    now, facts = datetime.now(UTC), SubjectFacts(subject=uuid7(), birth_date=date(1990, 5, 5))
    request = Request(
        action=FETCH,
        caller=Asking(
            client_id="minna-app",
            institution=HERE,
            user=user,
            user_verified=True,
            roles=frozenset({"operator", "emergency"}),
            assurance=2,
            authenticated_at=now - timedelta(minutes=1),
        ),
        holder=HOLDER,
        dataset="health-controls",
        fields=("last_control_on",),
        purpose="service-provision",
        basis="consent",
        at=now,
        emergency=EmergencyClaim(reason="danger-to-life", incident="911-4471"),
    )
    async with house.context() as context, context.database.transaction() as connection:
        policy = await PolicyStore(context.database.engine).load(connection)
        decision = decide(request, facts, policy)
        assert decision.emergency, decision.reasons
        receipt = await open_emergency(connection, context.audit, request, decision, facts, None)
    return str(facts.subject), str(receipt.entry_id)


async def listed(house: House, system: Caller, name: str, subject: str) -> list[dict[str, Any]]:
    answer = await by_officer(house, system, "GET", f"{name}?limit=200")
    assert answer.status_code == 200, answer.text
    return [each for each in answer.json()[name] if each["subject"] == subject]


def told(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:siis:problem:{code}"
    return body


async def test_the_officers_of_both_sides_are_told_at_once_and_only_the_asking_side_reviews(
    house: House, systems: dict[str, Caller]
) -> None:
    since = uuid7()
    subject, entry_id = await opened(house, f"beto-{since}")
    for institution in (HERE, HOLDER):
        [notice] = await listed(house, systems[institution], "notices", subject)
        assert (notice["kind"], notice["origin"], notice["entry_id"]) == ("breakglass", HERE, entry_id)
        assert notice["title"] == "Acceso de emergencia a los datos de una persona"
        seen = await by_officer(house, systems[institution], "POST", f"notices/{notice['id']}/seen")
        assert seen.status_code == 200, seen.text
        [notice] = await listed(house, systems[institution], "notices", subject)
        assert notice["seen_at"] == seen.json()["seen_at"].replace("Z", "+00:00")
        other = await by_officer(house, systems[STRANGER], "POST", f"notices/{notice['id']}/seen")
        nothing = await by_officer(house, systems[STRANGER], "POST", f"notices/{uuid7()}/seen")
        assert (other.status_code, other.content) == (404, nothing.content)
    assert await listed(house, systems[STRANGER], "notices", subject) == []
    assert len(await entries(house, "notice.seen", since)) == 2
    [glass] = await listed(house, systems[HERE], "emergencies", subject)
    assert (glass["user"], glass["incident"], glass["verdict"]) == (f"beto-{since}", "911-4471", None)
    assert await listed(house, systems[HOLDER], "emergencies", subject) == []
    week = (await by_officer(house, systems[HERE], "GET", "emergencies")).json()["last_seven_days"]
    assert {"user": f"beto-{since}", "opened": 1} in week
    for institution in (HOLDER, STRANGER):
        path = f"emergencies/{glass['id']}/review"
        told(await by_officer(house, systems[institution], "POST", path, {"verdict": "justified"}), 404, "not-found")


async def test_a_verdict_against_it_ends_the_role_and_is_given_once(house: House, systems: dict[str, Caller]) -> None:
    since = uuid7()
    subject, _entry = await opened(house, f"caro-{since}")
    [glass] = await listed(house, systems[HERE], "emergencies", subject)
    path = f"emergencies/{glass['id']}/review"
    for body in ({}, {"verdict": "maybe"}, {"verdict": "justified", "note": "x"}, "justified"):
        told(await by_officer(house, systems[HERE], "POST", path, body), 400, "invalid-message")
    operator = await call(house, systems[HERE], "POST", path, {"verdict": "justified"}, operator=f"caro-{since}")
    told(operator, 403, "denied")
    answer = await by_officer(house, systems[HERE], "POST", path, {"verdict": "not-justified"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["role_revoked"] is not None
    [entry] = await entries(house, "breakglass.reviewed", since)
    assert (entry["what"]["verdict"], entry["what"]["role_revoked"]) == ("not-justified", answer.json()["role_revoked"])
    again = await by_officer(house, systems[HERE], "POST", path, {"verdict": "justified"})
    told(again, 409, "emergency-reviewed")


async def test_nobody_reviews_what_they_opened_even_as_officer_later(
    house: House, at_house: Siis, systems: dict[str, Caller]
) -> None:
    user = f"dora-{uuid7()}"
    subject, _entry = await opened(house, user)
    [glass] = await listed(house, systems[HERE], "emergencies", subject)
    roles = (await run(at_house, "role", "list", "--institution", HERE, "--json")).json()
    [assignment] = [each["id"] for each in roles if each["user"] == user]
    assert (await run(at_house, "role", "revoke", assignment)).code == 0
    await appoint(house, HERE, user, OFFICER)
    path, body = f"emergencies/{glass['id']}/review", {"verdict": "justified"}

    async def known() -> bool:
        answer = await call(house, systems[HERE], "POST", path, body, operator=user, role=OFFICER)
        return answer.status_code != 403

    await until(known)
    told(await call(house, systems[HERE], "POST", path, body, operator=user, role=OFFICER), 409, "own-emergency")


async def test_the_command_line_lists_and_reviews(house: House, at_house: Siis, systems: dict[str, Caller]) -> None:
    user = f"elsa-{uuid7()}"
    subject, _entry = await opened(house, user)
    shown = (await run(at_house, "emergency", "list", "--institution", HERE, "--json")).json()
    [glass] = [each for each in shown if each["subject"] == subject]
    assert (glass["user"], glass["user_last_seven_days"]) == (user, 1)
    assert "911-4471" in (await run(at_house, "emergency", "list")).out
    assert (await run(at_house, "emergency", "review", glass["id"], "maybe")).code == 2
    assert (await run(at_house, "emergency", "review", "x", "justified")).code == 2
    assert (await run(at_house, "emergency", "review", str(uuid7()), "justified")).code == 1
    reviewed = await run(at_house, "emergency", "review", glass["id"], "not-justified")
    assert reviewed.code == 0, reviewed.err
    assert user in reviewed.out
    assert (await run(at_house, "emergency", "review", glass["id"], "justified")).code == 1


async def test_who_is_no_officer_and_who_lacks_the_scope_learn_nothing(
    house: House, systems: dict[str, Caller]
) -> None:
    for path in ("emergencies", "notices"):
        told(await call(house, systems[HERE], "GET", path, operator="beto"), 403, "denied")
        told(await call(house, systems[HERE], "GET", path), 403, "denied")
        told(await call(house, replace(systems[HERE], token="x"), "GET", path), 401, "unauthorised")
    other = await newcomer(house, HERE, "producers.read")
    for path in ("emergencies", "notices"):
        told(await by_officer(house, other, "GET", path), 403, "unauthorised")
