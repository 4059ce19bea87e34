"""Who acts for a person, what they object to, and the flags that nobody overrides, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from consent_answers import AT, CHILD, GROWN, ask, give
from consent_database import consent_database
from sqlalchemy.ext.asyncio import AsyncConnection

from consent import agreements, people
from consent.errors import InvalidRecord
from consent.models import Caller
from schemas.errors import UnknownCode
from schemas.ids import uuid7

SECOND, YEAR = timedelta(seconds=1), timedelta(days=365)
BARRED = UUID(int=7)


@pytest.fixture
async def conn() -> AsyncIterator[AsyncConnection]:
    async with consent_database() as engine, engine.connect() as made:
        await agreements.load_demonstration(made, at=AT)
        yield made


async def represent(conn: AsyncConnection, subject: UUID, representative: UUID, **changes: Any) -> dict[str, Any]:
    usual = {"kind": "parent", "proof_reference": "birth entry 12", "recorded_by": "MINNA/officer", "birth_date": CHILD}
    return await people.add_representation(
        conn, **{"subject": subject, "representative": representative, "at": AT, **usual, **changes}
    )


@pytest.mark.parametrize(
    ("born", "of_age"),
    [
        (date(2008, 2, 29), datetime(2026, 3, 1, 3, 0, tzinfo=UTC)),
        (date(2012, 6, 2), datetime(2030, 6, 2, 3, 0, tzinfo=UTC)),
    ],
)
def test_majority_begins_at_midnight_in_asuncion(born: date, of_age: datetime) -> None:
    assert people.majority(born) == of_age


async def test_a_guardians_mandate_ends_at_majority_whatever_its_paper_says(conn: AsyncConnection) -> None:
    child, guardian = uuid7(), uuid7()
    said = await represent(conn, child, guardian, kind="guardian", valid_to=AT + 30 * YEAR)
    mandate = await people.read_mandate(conn, UUID(said["representation"]))
    assert mandate.valid_to == people.majority(CHILD)
    found = await people.mandate_between(conn, child, guardian, birth_date=CHILD, at=AT)
    assert found == mandate
    for nobody, at in (((child, guardian), mandate.valid_to), ((guardian, child), AT), ((child, uuid7()), AT)):
        assert await people.mandate_between(conn, *nobody, birth_date=CHILD, at=at) is None
    assert await people.mandates_of(conn, child) == [mandate]
    assert await people.mandates_of(conn, child, after=mandate.id) == []


@pytest.mark.parametrize(
    ("changes", "field", "what"),
    [
        ({"kind": "friend"}, "kind", "unknown-code"),
        ({"kind": "parent", "birth_date": GROWN}, "kind", "not-for-this-age"),
        ({"kind": "proxy", "birth_date": CHILD}, "kind", "not-for-this-age"),
        ({"kind": "curator", "birth_date": CHILD}, "kind", "not-for-this-age"),
        ({"birth_date": None}, "kind", "birth-date-unknown"),
        ({"proof_reference": ""}, "proof_reference", "missing"),
        ({"representative": UUID(int=1), "subject": UUID(int=1)}, "representative", "oneself"),
        ({"representative": BARRED}, "representative", "barred"),
        ({"valid_to": AT}, "valid_to", "not-after-start"),
    ],
)
async def test_a_mandate_that_cannot_be_is_refused(
    conn: AsyncConnection, changes: dict[str, Any], field: str, what: str
) -> None:
    child = uuid7()
    await people.set_flag(conn, child, "aggressor", target=str(BARRED), at=AT)
    with pytest.raises(InvalidRecord) as caught:
        await represent(conn, **{"subject": child, "representative": uuid7(), **changes})
    assert (caught.value.field, caught.value.what) == (field, what)


async def test_a_parent_the_child_is_protected_from_acts_no_more(conn: AsyncConnection) -> None:
    child, father = uuid7(), uuid7()
    mandate = UUID((await represent(conn, child, father))["representation"])
    await give(conn, child, birth_date=CHILD, representation=mandate)
    assert (await ask(conn, child, birth_date=CHILD)).effect == "permit"
    await people.set_flag(conn, child, "aggressor", target=str(father), at=AT)
    assert (await ask(conn, child, birth_date=CHILD)).reasons == ("consent",)
    assert await people.mandate_between(conn, child, father, birth_date=CHILD, at=AT) is None


@pytest.mark.parametrize(
    ("kind", "target", "reason"),
    [
        ("sealed", "", "sealed"),
        ("court-order", "", "court-order"),
        ("export-ban", "", "export-ban"),
        ("aggressor", "SNPP", "barred"),
    ],
)
async def test_a_flag_closes_and_its_lifting_opens(conn: AsyncConnection, kind: str, target: str, reason: str) -> None:
    subject = uuid7()
    await give(conn, subject)
    act = {"target": target, "reference": "A.I. 12/2026", "at": AT}
    assert (await people.set_flag(conn, subject, kind, **act))["changed"]
    assert not (await people.set_flag(conn, subject, kind, **act))["changed"]
    assert [(each.kind, each.target) for each in await people.flags_of(conn, subject)] == [(kind, target)]
    assert (await ask(conn, subject)).reasons == (reason,)
    assert (await people.lift_flag(conn, subject, kind, **act))["changed"]
    assert not (await people.lift_flag(conn, subject, kind, **act))["changed"]
    assert (await ask(conn, subject)).effect == "permit"


async def test_a_barred_person_learns_nothing_by_their_own_token(conn: AsyncConnection) -> None:
    subject, aggressor = uuid7(), uuid7()
    await give(conn, subject)
    await people.set_flag(conn, subject, "aggressor", target=str(aggressor), at=AT)
    system = Caller(client_id="c", institution="SNPP", roles=frozenset({"operator"}))
    assert (await ask(conn, subject, caller=system)).effect == "permit"
    assert await people.is_barred(conn, subject, str(aggressor))
    assert not await people.is_barred(conn, subject, "SNPP")


@pytest.mark.parametrize(
    ("kind", "rest", "field"),
    [
        ("shy", {}, "kind"),
        ("court-order", {}, "reference"),
        ("aggressor", {}, "target"),
        ("sealed", {"target": "SNPP"}, "target"),
    ],
)
async def test_a_flag_that_cannot_be_is_refused(
    conn: AsyncConnection, kind: str, rest: dict[str, str], field: str
) -> None:
    for change in (people.set_flag, people.lift_flag):
        with pytest.raises(InvalidRecord) as caught:
            await change(conn, uuid7(), kind, at=AT, **rest)
        assert caught.value.field == field


async def test_an_objection_closes_and_its_withdrawal_opens(conn: AsyncConnection) -> None:
    subject = uuid7()
    await give(conn, subject)
    assert (await people.object_to(conn, subject, "service-provision", at=AT))["changed"]
    assert not (await people.object_to(conn, subject, "service-provision", at=AT))["changed"]
    assert (await ask(conn, subject)).reasons == ("objection",)
    assert await people.objections_of(conn, subject) == [("service-provision", AT)]
    assert (await people.withdraw_objection(conn, subject, "service-provision", at=AT))["changed"]
    assert not (await people.withdraw_objection(conn, subject, "service-provision", at=AT))["changed"]
    assert (await ask(conn, subject)).effect == "permit"
    for change in (people.object_to, people.withdraw_objection):
        with pytest.raises(UnknownCode):
            await change(conn, subject, "curiosity", at=AT)
