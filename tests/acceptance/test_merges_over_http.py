"""Merging over HTTP: the coordinator's supervisors alone, and nobody else learns who exists."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.cli.demo.clients import Caller
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, entries, newcomer, nothing_leaks, subject
from tests.acceptance.governed import call
from tests.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")
SOMEBODY = {"given_names": "Ñasaindy", "surnames": "Zzyzx", "sex": "F"}
FORM = {
    "kind": "full",
    "observed_on": "2026-11-20",
    "place": {"department": "11", "district": "1101", "locality": "Barrio Obrero"},
    "members": [SOMEBODY],
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def coordinator(house: House) -> Caller:
    return await newcomer(house, "UTGS", "forms.create", "persons.merge")


async def said(house: House, system: Caller, path: str, body: Any, **more: Any) -> httpx.Response:
    return await call(house, system, "POST", path, body, operator="sup.uno", role="supervisor", **more)


async def newly_registered(house: House, system: Caller) -> tuple[str, str]:
    """Return the id and the local number of somebody who came without a cédula."""
    answer = await call(house, system, "POST", "forms", FORM)
    assert answer.status_code == 201, answer.text
    [person] = answer.json()["persons"]
    return person["id"], person["local_id"]


def merging(survivor: dict[str, Any], local: str, **changes: Any) -> dict[str, Any]:
    return {"survivor": survivor, "absorbed": subject(local, "local"), "reason": "same-document", **changes}


async def test_two_records_are_merged_once_and_parted_with_an_entry_about_each(
    house: House, coordinator: Caller
) -> None:
    known = next(each for each in adults(house)[4:] if each.sex == "F")
    other, local = await newly_registered(house, coordinator)
    key, since = str(uuid7()), uuid7()
    body = merging(subject(known.cedula), local)
    done = await said(house, coordinator, "person-merges", body, key=key)
    assert done.status_code == 201, done.text
    assert done.json().keys() == {"merge", "other", "reason", "confirmed", "receipt"}
    again = await said(house, coordinator, "person-merges", body, key=key)
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (done.json(), "true")
    twice = await said(house, coordinator, "person-merges", body)
    assert (twice.status_code, twice.json()["type"]) == (409, "urn:siis:problem:same-person")
    parted = await said(
        house,
        coordinator,
        "person-unmerges",
        {"absorbed": subject(local, "local"), "reason": "other-person"},
    )
    assert (parted.status_code, parted.json()["merge"]) == (201, done.json()["merge"])
    for kind in ("person.merged", "person.unmerged"):
        found = await entries(house, kind, since)
        assert {each["what"]["other"] for each in found} > {other}
        assert len(found) == 2


@pytest.mark.parametrize("exists", [True, False])
async def test_others_are_refused_alike_whoever_exists(house: House, coordinator: Caller, exists: bool) -> None:
    _id, local = await newly_registered(house, coordinator)
    body = merging(subject(adults(house)[1].cedula if exists else "9999991"), local if exists else "1000000009")
    body["absorbed"] = subject(local) if exists else subject("9999992")
    stranger = await newcomer(house, "MDS", "persons.merge")
    for system, role in ((stranger, "supervisor"), (coordinator, "operator")):
        answer = await call(house, system, "POST", "person-merges", body, operator="sup.uno", role=role)
        assert answer.status_code == 403, answer.text
        told = answer.json()
        assert [each["code"] for each in told["reasons"]] == ["role"]
        nothing_leaks(answer, (local, "Zzyzx"))
    unscoped = await newcomer(house, "UTGS", "forms.create")
    assert (await said(house, unscoped, "person-merges", body)).status_code == 403


async def test_a_message_that_names_nobody_or_no_reason_is_refused(house: House, coordinator: Caller) -> None:
    _id, local = await newly_registered(house, coordinator)
    known = subject(adults(house)[2].cedula)
    for body, status, code in (
        (merging(subject("9999991"), local), 404, "not-found"),
        (merging(subject("12-34"), local), 422, "bad-identifier"),
        (merging(known, local, reason="other-person"), 422, "unknown-code"),
        (merging(subject(local, "local"), local), 409, "same-person"),
    ):
        answer = await said(house, coordinator, "person-merges", body)
        assert (answer.status_code, answer.json()["type"]) == (status, f"urn:siis:problem:{code}"), answer.text
    unmerged = {"absorbed": subject(local, "local"), "reason": "other-person"}
    answer = await said(house, coordinator, "person-unmerges", unmerged)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:siis:problem:not-merged")
