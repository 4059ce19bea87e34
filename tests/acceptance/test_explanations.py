"""Explanations over HTTP: to those entitled, about past and supposed requests, each an entry; to others nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from consent.people import lift_flag, set_flag
from gateway.clock import utc_now
from gateway.registry import service as registry
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, entries, newcomer
from tests.acceptance.governed import appoint, call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
EXPLAIN = "decisions/explain"
OFFICER = "data-protection-officer"
ASKED: dict[str, Any] = {
    "dataset": "identity",
    "fields": ["cedula", "given_names", "profession"],
    "purpose": "service-provision",
    "basis": "official-authority",
}


class Institutions:
    """A system of each institution, and somebody in a role behind it."""

    def __init__(self, house: House, systems: dict[str, Any]) -> None:
        self.house, self.systems = house, systems

    async def ask(self, institution: str, body: Any, role: str = OFFICER) -> httpx.Response:
        return await call(self.house, self.systems[institution], "POST", EXPLAIN, body, operator="exp", role=role)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def they(house: House) -> Institutions:
    roles = {"MDS": OFFICER, "PN-IDENT": OFFICER, "MTESS": OFFICER, "UTGS": "auditor", "MEC": "auditor"}
    systems = {institution: await newcomer(house, institution, "decisions.explain") for institution in roles}
    for institution, role in roles.items():
        await appoint(house, institution, "exp", role)
    made = Institutions(house, systems)

    async def known() -> bool:
        supposed = {institution: {"request": ASKED | {"institution": institution}} for institution in roles}
        answers = [await made.ask(institution, supposed[institution], role) for institution, role in roles.items()]
        return all(answer.status_code == 200 for answer in answers)

    await until(known)
    return made


async def disclosed(house: House, cedula: int | str) -> httpx.Response:
    asked = {"subject": {"system": "cedula", "value": str(cedula)}, **ASKED}
    return await house.callers["demo-mds"].post("/api/v1/disclosures", asked)


async def test_both_parties_and_an_auditor_get_the_same_reasons_and_a_third_institution_none(
    house: House, they: Institutions
) -> None:
    released = await disclosed(house, adults(house)[40].cedula)
    assert released.status_code == 200
    body = {"entry": released.json()["receipt"]["entry_id"]}
    told = [await they.ask("MDS", body), await they.ask("PN-IDENT", body), await they.ask("UTGS", body, "auditor")]
    assert [answer.status_code for answer in told] == [200, 200, 200]
    assert told[0].json()["lines"] == told[1].json()["lines"] == told[2].json()["lines"]
    assert any("DEMO-MDS-IDENT" in line["text"] for line in told[0].json()["lines"])
    absent = await they.ask("MTESS", {"entry": str(uuid7())})
    # An institution appoints its own auditors: they see no further than its officers do.
    for refused in (await they.ask("MTESS", body), await they.ask("MEC", body, "auditor")):
        assert (refused.status_code, refused.content) == (404, absent.content)


async def test_the_true_reason_of_a_sealed_case_is_told_to_the_officer_and_not_to_who_asked(
    house: House, they: Institutions
) -> None:
    person, since = adults(house)[41], uuid7()
    async with house.context() as context, context.database.transaction() as connection:
        who = await registry.find_person(connection, context.vault, "cedula", str(person.cedula))
        assert who is not None
        await set_flag(connection, who.id, "sealed", at=utc_now())
    refused = await disclosed(house, person.cedula)
    nobody = await disclosed(house, 99999999)
    assert refused.status_code == 404
    assert {**refused.json()} == {**nobody.json()}
    [denied] = [e for e in await entries(house, "disclosure.denied", since) if "sealed" in e["decision"]["reasons"]]
    told = (await they.ask("PN-IDENT", {"entry": denied["id"]})).json()
    assert told["effect"] == "deny"
    assert ("person", "no", "Caso protegido.") in [tuple(line.values()) for line in told["lines"]]
    async with house.context() as context, context.database.transaction() as connection:
        await lift_flag(connection, who.id, "sealed", at=utc_now())


async def test_a_supposed_request_is_explained_with_the_facts_of_today_and_is_itself_an_entry(
    house: House, they: Institutions
) -> None:
    since = uuid7()
    supposed = ASKED | {"institution": "MDS", "fields": ["cedula", "marital_status"], "roles": ["auditor"]}
    told = (await they.ask("MDS", {"request": supposed})).json()
    assert told["effect"] == "deny"
    assert told["entry"] is None
    [entry] = [e for e in await entries(house, "decision.explained", since) if e["id"] == told["receipt"]["entry_id"]]
    assert entry["what"]["supposed"] is True


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"entry": "not-an-id"}, 400),
        ({"entry": str(UUID(int=5)), "request": {}}, 400),
        ({"request": ASKED | {"institution": "MDS", "purpose": "curiosity"}}, 422),
        ({"request": ASKED | {"institution": "MDS", "dataset": "tax-returns"}}, 422),
        ({"request": ASKED | {"institution": "MDS", "fields": ["shoe_size"]}}, 422),
        # Trying it on anybody would tell who is under protection; the coordinator's auditors may.
        ({"request": ASKED | {"institution": "MDS", "subject": {"system": "cedula", "value": "1234567"}}}, 404),
        ({"request": ASKED | {"institution": "MTESS", "dataset": "death", "fields": ["cedula"]}}, 404),
    ],
)
async def test_a_question_that_cannot_be_used_or_is_of_others_is_refused(
    they: Institutions, body: dict[str, Any], status: int
) -> None:
    assert (await they.ask("MDS", body)).status_code == status


async def test_an_auditor_may_suppose_a_request_about_somebody(house: House, they: Institutions) -> None:
    subject = {"system": "cedula", "value": str(adults(house)[42].cedula)}
    answer = await they.ask("UTGS", {"request": ASKED | {"institution": "MDS", "subject": subject}}, "auditor")
    assert answer.json()["effect"] == "permit"
    own = {"request": ASKED | {"institution": "MEC", "subject": subject}}
    assert (await they.ask("MEC", own, "auditor")).status_code == 404
    odd = {"system": "cedula", "value": "1.2"}
    assert (
        await they.ask("UTGS", {"request": ASKED | {"institution": "MDS", "subject": odd}}, "auditor")
    ).status_code == 422


async def test_without_the_role_nothing_is_explained(house: House, they: Institutions) -> None:
    answer = await they.ask("MDS", {"request": ASKED | {"institution": "MDS"}}, "operator")
    assert answer.status_code == 403
    assert [reason["code"] for reason in answer.json()["reasons"]] == ["role"]
    claimed = await call(house, they.systems["MDS"], "POST", EXPLAIN, {"entry": str(uuid7())})
    assert claimed.status_code == 403
