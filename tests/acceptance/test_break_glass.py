"""Breaking the glass over HTTP: what an emergency opens, what it leaves behind, and what it does not lift."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from joserfc.jwk import ECKey

from consent.agreements import put_agreement
from consent.models import AgreedBasis, Agreement
from consent.people import lift_flag, set_flag
from gateway.cli.demo.clients import Caller
from gateway.clock import utc_now
from gateway.identity.assertions import operator_assertion
from gateway.registry import service as registry
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, entries, newcomer
from tests.acceptance.governed import appoint, call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
FIELDS = ["entry_act", "entry_folio", "given_names"]
CLAUSE = Agreement(
    code="TEST-MINNA-IDENT-EMERGENCY",
    es="Inscripción de un niño en peligro",
    en="Birth entry of a child in danger",
    requester="MINNA",
    holder="PN-IDENT",
    datasets={"birth-entry": frozenset({"entry_act", "entry_folio"})},
    purposes=frozenset({"service-provision"}),
    bases=(AgreedBasis("vital-interest", "Ley 7593/2025, art. 5"),),
    channels=frozenset({"api"}),
    minimum_assurance=2,
    labels=frozenset({"identifying"}),
    roles=frozenset({"emergency"}),
    valid_from=datetime(2025, 1, 1, tzinfo=UTC),
    valid_to=None,
    status="active",
)


class Ward:
    """A system of the MINNA and the people behind it."""

    def __init__(self, house: House, system: Caller) -> None:
        self.house, self.system = house, system

    async def ask(
        self,
        cedula: Any,
        *,
        user: str = "ana",
        minutes_ago: int = 1,
        acr: str = "2",
        incident: str | None = "911/2026-7",
    ) -> httpx.Response:
        now = utc_now()
        assertion = operator_assertion(
            ECKey.import_key(self.system.private_key),
            client_id=self.system.client_id,
            issuer=self.house.issuer,
            operator=user,
            roles=frozenset({"operator", "emergency"}),
            acr=acr,
            now=now,
            authenticated_at=now - timedelta(minutes=minutes_ago),
        )
        body: dict[str, Any] = {
            "subject": {"system": "cedula", "value": str(cedula)},
            "dataset": "birth-entry",
            "fields": FIELDS,
            "purpose": "service-provision",
            "basis": "official-authority",
        }
        if incident is not None:
            body["emergency"] = {
                "reason": "child-in-danger",
                "incident": incident,
                "text": "Llamada de la línea 147, niño solo en la casa.",
            }
        headers = {"Authorization": f"Bearer {self.system.token}", "X-SIIS-Operator": assertion}
        return await self.house.http.post(f"{self.house.issuer.url}/api/v1/disclosures", json=body, headers=headers)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ward(house: House) -> Ward:
    system = await newcomer(house, "MINNA", "disclosures.create", "emergency.use", "notices.read")
    made = Ward(house, system)
    async with house.context() as context, context.database.transaction() as connection:
        await put_agreement(connection, CLAUSE, at=utc_now())
    for user, role in (("ana", "emergency"), ("dpo", "data-protection-officer")):
        await appoint(house, "MINNA", user, role)

    async def known() -> bool:
        return (await made.ask(adults(house)[50].cedula)).status_code == 200

    await until(known)
    return made


def reasons(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 403
    return [reason["code"] for reason in answer.json()["reasons"]]


async def test_the_glass_opens_the_clause_only_and_its_entry_stands_before_anybody_is_asked(
    house: House, ward: Ward
) -> None:
    person, since = adults(house)[51], uuid7()
    assert reasons(await ward.ask(person.cedula, incident=None)) == ["basis"]
    answer = await ward.ask(person.cedula)
    assert answer.status_code == 200
    released = answer.json()
    assert set(released["facts"]) == {"entry_act", "entry_folio"}
    assert released["withheld"] == [{"field": "given_names", "reason": "not-released"}]
    assert {"review-due-72h", "notify-officer", "no-onward-sharing"} <= set(released["obligations"])
    [opened] = await entries(house, "breakglass.opened", since)
    [intent] = await entries(house, "disclosure.intent", since)
    assert opened["id"] < intent["id"]
    assert opened["why"]["emergency"]["incident"] == "911/2026-7"
    notices = await call(house, ward.system, "GET", "notices", operator="dpo", role="data-protection-officer")
    assert any(notice["reference"] == opened["exchange"]["emergency"] for notice in notices.json()["notices"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"user": "eva"}, ["emergency-role"]),
        ({"minutes_ago": 16}, ["emergency-login"]),
        ({"acr": "1"}, ["emergency-login"]),
    ],
)
async def test_who_may_not_break_it_is_told_why_and_nothing_is_opened(
    house: House, ward: Ward, changes: dict[str, Any], told: list[str]
) -> None:
    since = uuid7()
    assert reasons(await ward.ask(adults(house)[52].cedula, **changes)) == told
    assert await entries(house, "breakglass.opened", since) == []


async def test_a_protected_person_stays_hidden_in_an_emergency_too(house: House, ward: Ward) -> None:
    person, since = adults(house)[53], uuid7()
    async with house.context() as context, context.database.transaction() as connection:
        who = await registry.find_person(connection, context.vault, "cedula", str(person.cedula))
        assert who is not None
        await set_flag(connection, who.id, "court-order", reference="AI 77/2026", at=utc_now())
    hidden, unknown = await ward.ask(person.cedula), await ward.ask(99999999)
    assert (hidden.status_code, hidden.content) == (404, unknown.content)
    assert await entries(house, "breakglass.opened", since) == []
    async with house.context() as context, context.database.transaction() as connection:
        await lift_flag(connection, who.id, "court-order", reference="AI 78/2026", at=utc_now())


async def test_a_system_without_the_scope_and_a_reason_that_is_none_are_refused(house: House, ward: Ward) -> None:
    body = {
        "subject": {"system": "cedula", "value": str(adults(house)[54].cedula)},
        "dataset": "birth-entry",
        "fields": FIELDS,
        "purpose": "service-provision",
        "basis": "official-authority",
        "emergency": {"reason": "green-channel", "incident": "1/2026", "text": "El Canal Verde no abre nada."},
    }
    unknown = await call(house, ward.system, "POST", "disclosures", body)
    assert unknown.status_code == 422
    assert "child-in-danger" in unknown.json()["allowed"]
    refused = await call(house, await newcomer(house, "MINNA", "disclosures.create"), "POST", "disclosures", body)
    assert refused.status_code == 403
    assert 'scope="emergency.use"' in refused.headers["www-authenticate"]
