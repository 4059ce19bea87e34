"""What one institution has tells another nothing: not by a status, a list, a cursor, a filter, or an error's words."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import pytest_asyncio

from adapters.simulator.population import SimPerson
from consent.people import lift_flag, set_flag
from gateway.clock import utc_now
from gateway.registry import service as registry
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, newcomer
from tests.acceptance.governed import appoint, call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
SCOPES = (
    "agreements.manage",
    "roles.manage",
    "consents.manage",
    "protection.manage",
    "emergency.review",
    "notices.read",
    "rights.manage",
    "breaches.manage",
    "disclosures.create",
)
OFFICER = "data-protection-officer"
OWNER, STRANGER = "SNPP", "MEC"
LISTS = ("agreements", "role-assignments", "compartments", "emergencies", "notices", "rights-requests", "breaches")


class Two:
    """The owner of some records, a stranger to them, and the records."""

    def __init__(self, house: House, systems: dict[str, Any]) -> None:
        self.house, self.systems = house, systems
        self.made: dict[str, str] = {}

    async def ask(self, who: str, method: str, path: str, body: Any = None, role: str = OFFICER) -> httpx.Response:
        return await call(self.house, self.systems[who], method, path, body, operator=f"leak-{role}", role=role)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two(house: House) -> Two:
    made = Two(house, {name: await newcomer(house, name, *SCOPES) for name in (OWNER, STRANGER)})
    for institution in (OWNER, STRANGER):
        for role in (OFFICER, "administrator"):
            await appoint(house, institution, f"leak-{role}", role)

    async def known() -> bool:
        answers = [await made.ask(name, "GET", "breaches") for name in (OWNER, STRANGER)]
        return all(answer.status_code == 200 for answer in answers)

    await until(known)
    person, now = adults(house)[60], utc_now().isoformat()
    subject = {"system": "cedula", "value": str(person.cedula)}
    bodies: dict[str, tuple[dict[str, Any], str]] = {
        "rights-requests": ({"right": "access", "subject": subject}, OFFICER),
        "breaches": (
            {
                "kind": "misuse",
                "what": "Una consulta sin motivo.",
                "since": now,
                "known_at": now,
                "datasets": ["identity"],
            },
            OFFICER,
        ),
        "role-assignments": ({"user": "un-auditor", "role": "auditor"}, OFFICER),
        "consents": (
            {
                "subject": subject,
                "agreement": "DEMO-SNPP-IDENT",
                "purposes": ["service-provision"],
                "fields": ["given_names"],
                "text": {"version": "1", "language": "es"},
                "channel": "paper",
                "proof_reference": "expediente 7",
            },
            OFFICER,
        ),
    }
    for path, (body, role) in bodies.items():
        answer = await made.ask(OWNER, "POST", path, body, role)
        assert answer.status_code == 201, answer.text
        told = answer.json()
        made.made[path] = next(str(told[name]) for name in ("id", "consent", "request", "breach") if name in told)
    return made


@pytest.mark.parametrize("path", ["rights-requests", "breaches", "consents"])
async def test_a_record_of_others_reads_as_one_that_is_not_there(two: Two, path: str) -> None:
    if path != "rights-requests":  # whoever takes one is not who answers it
        assert (await two.ask(OWNER, "GET", f"{path}/{two.made[path]}")).status_code == 200
    theirs = await two.ask(STRANGER, "GET", f"{path}/{two.made[path]}")
    absent = await two.ask(STRANGER, "GET", f"{path}/{uuid7()}")
    assert (theirs.status_code, theirs.content) == (404, absent.content)


async def test_an_agreement_of_others_reads_as_one_that_is_not_there(two: Two) -> None:
    theirs = await two.ask(STRANGER, "GET", "agreements/DEMO-SNPP-IDENT", role="administrator")
    absent = await two.ask(STRANGER, "GET", "agreements/DEMO-NO-SUCH", role="administrator")
    assert (theirs.status_code, theirs.content) == (404, absent.content)
    body = {"step": "suspend", "reason": "prueba"}
    tried = [
        await two.ask(STRANGER, "POST", f"agreements/{code}/steps", body, "administrator")
        for code in ("DEMO-SNPP-IDENT", "DEMO-NO-SUCH")
    ]
    assert (tried[0].status_code, tried[0].content) == (404, tried[1].content)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("consents/{id}/steps", {"step": "withdraw"}),
        ("role-assignments/{id}/revoke", None),
        ("rights-requests/{id}/withdraw", None),
        ("breaches/{id}/close", {"measures": "Terminado."}),
    ],
)
async def test_a_step_on_a_record_of_others_is_answered_like_one_on_nothing(two: Two, path: str, body: Any) -> None:
    kind = path.split("/", 1)[0]
    theirs = await two.ask(STRANGER, "POST", path.format(id=two.made[kind]), body)
    absent = await two.ask(STRANGER, "POST", path.format(id=uuid7()), body)
    assert (theirs.status_code, theirs.content) == (absent.status_code, absent.content)
    assert theirs.status_code in (400, 404)
    assert (await two.ask(OWNER, "GET", f"{kind}?limit=200")).status_code in (200, 404, 405)


@pytest.mark.parametrize("path", LISTS)
async def test_a_list_and_its_cursor_tell_of_nothing_that_is_not_shown(two: Two, path: str) -> None:
    role = "administrator" if path == "agreements" else OFFICER
    listed = await two.ask(STRANGER, "GET", path, role=role)
    assert listed.status_code == 200
    assert not {"total", "count", "pages"} & listed.json().keys()
    assert not any(number in listed.text for number in two.made.values())
    known = two.made.get(path, str(uuid7()))
    behind = await two.ask(STRANGER, "GET", f"{path}?after={known}", role=role)
    nowhere = await two.ask(STRANGER, "GET", f"{path}?after={uuid7()}", role=role)
    if path != "agreements":
        # Each look is an entry of its own, and has its receipt.
        assert {**behind.json(), "receipt": None} == {**nowhere.json(), "receipt": None}


async def test_a_search_for_a_persons_consents_tells_a_stranger_the_same_of_everybody(house: House, two: Two) -> None:
    people: list[SimPerson] = adults(house)[60:62]
    told = []
    for cedula in (*(person.cedula for person in people), 99999999):
        body = {"subject": {"system": "cedula", "value": str(cedula)}}
        answer = await two.ask(STRANGER, "POST", "consents/search", body)
        told.append((answer.status_code, answer.json().get("consents", answer.json())))
    assert told[0] == told[1]
    async with house.context() as context, context.database.transaction() as connection:
        who = await registry.find_person(connection, context.vault, "cedula", str(people[1].cedula))
        assert who is not None
        await set_flag(connection, who.id, "sealed", at=utc_now())
    body = {"subject": {"system": "cedula", "value": str(people[1].cedula)}}
    sealed = await two.ask(STRANGER, "POST", "consents/search", body)
    assert (sealed.status_code, sealed.json().get("consents", sealed.json())) == told[2]
    async with house.context() as context, context.database.transaction() as connection:
        await lift_flag(connection, who.id, "sealed", at=utc_now())


PROTECTED = [
    ("sealed", "", None),
    ("court-order", "", "AI 1/2026"),
    ("export-ban", "", None),
    ("aggressor", "MDS", None),
]


@pytest.mark.parametrize(("kind", "target", "reference"), PROTECTED)
async def test_whatever_protects_a_person_a_question_ends_like_one_about_nobody(
    house: House, kind: str, target: str, reference: str | None
) -> None:
    person = adults(house)[63]
    asked = {
        "dataset": "identity",
        "fields": ["given_names"],
        "purpose": "service-provision",
        "basis": "official-authority",
    }
    mds = house.callers["demo-mds"]
    async with house.context() as context, context.database.transaction() as connection:
        who = await registry.find_person(connection, context.vault, "cedula", str(person.cedula))
        assert who is not None
        await set_flag(connection, who.id, kind, target=target, reference=reference, at=utc_now())
    try:
        answers = [
            await mds.post("/api/v1/disclosures", {**asked, "subject": {"system": "cedula", "value": cedula}})
            for cedula in (str(person.cedula), "99999998")
        ]
    finally:
        async with house.context() as context, context.database.transaction() as connection:
            await lift_flag(connection, who.id, kind, target=target, reference=reference, at=utc_now())
    assert {answer.status_code for answer in answers} == {404}
    assert answers[0].content == answers[1].content
    assert len({tuple(sorted(set(answer.headers) - {"date"})) for answer in answers}) == 1


async def test_an_institution_cannot_make_itself_a_platform_for_others(two: Two) -> None:
    body = {"user": f"client:{two.systems[STRANGER].client_id}", "role": "intermediary"}
    refused = await two.ask(STRANGER, "POST", "role-assignments", body, "administrator")
    assert refused.status_code == 403


async def test_an_officer_lifts_and_sees_only_what_the_own_institution_set(house: House, two: Two) -> None:
    who = {"subject": {"system": "cedula", "value": str(adults(house)[68].cedula)}}
    flag = who | {"kind": "sealed"}
    assert (await two.ask(OWNER, "POST", "protection-flags", flag)).json()["changed"] is True
    seen = await two.ask(STRANGER, "POST", "protection-flags/search", who)
    lifted = await two.ask(STRANGER, "POST", "protection-flags/lift", flag)
    assert seen.json()["protection_flags"] == []
    assert lifted.json()["changed"] is False
    assert (await two.ask(OWNER, "POST", "protection-flags/lift", flag)).json()["changed"] is True


async def test_the_hash_of_a_persons_answer_stays_in_the_log(house: House) -> None:
    asked = {
        "subject": {"system": "cedula", "value": str(adults(house)[64].cedula)},
        "dataset": "identity",
        "fields": ["given_names"],
        "purpose": "service-provision",
        "basis": "official-authority",
    }
    answer = await house.callers["demo-mds"].post("/api/v1/disclosures", asked)
    assert answer.status_code == 200
    assert answer.json()["source"]["answer_sha256"] is None


async def test_a_producer_that_is_away_does_not_tell_who_is_protected(house: House) -> None:
    ordinary, hidden = adults(house)[65:67]
    mds = house.callers["demo-mds"]
    asked = {
        "dataset": "identity",
        "fields": ["given_names"],
        "purpose": "service-provision",
        "basis": "official-authority",
    }
    async with house.context() as context, context.database.transaction() as connection:
        who = await registry.find_person(connection, context.vault, "cedula", str(hidden.cedula))
        assert who is not None
        await set_flag(connection, who.id, "sealed", at=utc_now())
    for name in ("identificaciones", "identificaciones-soap"):
        await house.switch(name, fail_503=-1)
    try:
        told = [
            await mds.post("/api/v1/disclosures", asked | {"subject": {"system": "cedula", "value": str(cedula)}})
            for cedula in (ordinary.cedula, hidden.cedula)
        ]
    finally:
        for name in ("identificaciones", "identificaciones-soap"):
            await house.switch(name, fail_503=0)
        async with house.context() as context, context.database.transaction() as connection:
            await lift_flag(connection, who.id, "sealed", at=utc_now())

    async def answers_again() -> bool:
        body = asked | {"subject": {"system": "cedula", "value": str(ordinary.cedula)}}
        return (await mds.post("/api/v1/disclosures", body)).status_code == 200

    await until(answers_again)
    assert {answer.status_code for answer in told} == {503}
    bodies = [{name: value for name, value in answer.json().items() if name != "receipt"} for answer in told]
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-20t10:00:00z"])
async def test_an_instant_that_no_database_keeps_is_refused_and_small_letters_are_read(two: Two, since: str) -> None:
    known = utc_now().isoformat()
    body = {"kind": "misuse", "what": "Prueba.", "since": since, "known_at": known, "datasets": ["identity"]}
    answer = await two.ask(OWNER, "POST", "breaches", body)
    assert answer.status_code == (201 if since.startswith("2026") else 400)
    assert (await two.ask(OWNER, "GET", "breaches")).status_code == 200
