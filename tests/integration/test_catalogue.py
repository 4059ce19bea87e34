"""The catalogue in the database: revisions, what held on a day, who may change it, and what a release brings."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from rights_office import MACHINE, Office
from sqlalchemy import delete, func, select, text
from sqlalchemy.exc import ProgrammingError

from audit.search import recent
from consent.errors import NotEntitled
from consent.models import Actor
from gateway import errors
from gateway.catalogue import changes, service, store
from gateway.catalogue.models import Item
from gateway.catalogue.service import Catalogue
from gateway.catalogue.tables import catalogue_revision
from gateway.database import Database
from schemas.codes import code_list

AT = datetime(2027, 3, 1, 15, 0, tzinfo=UTC)
ANA = Actor(institution="UTGS", user="ana")


async def current(office: Office, *, on: date | None = None) -> dict[str, dict[str, Item]]:
    async with office.context.database.connection() as connection:
        return await store.current(connection, on=on)


async def document(office: Office, kind: str, code: str, **fields: Any) -> dict[str, dict[str, Any]]:
    """A change of what an entry says now."""
    return {kind: {code: {**(await current(office))[kind][code].document, **fields}}}


async def apply(
    office: Office, message: dict[str, dict[str, Any]], *, actor: Actor = ANA, at: datetime = AT
) -> dict[str, Any]:
    async with office.context.database.transaction() as connection:
        return await changes.change(connection, message, actor=actor, at=at)


async def test_a_new_database_has_what_is_shipped_marked_as_demonstration(office: Office) -> None:
    items = await current(office)
    assert items["services"].keys() >= code_list("services").keys()
    assert items["routes"].keys() == code_list("service-routes").keys()
    assert all(
        item.document["demonstration"] for kind in items.values() for item in kind.values() if item.revision == 1
    )


async def test_every_change_is_a_revision_and_nothing_is_overwritten(office: Office) -> None:
    before = (await current(office))["services"]["social-housing"]
    message = await document(office, "services", "social-housing", capacity=7)
    said = await apply(office, message)
    assert said["event"] == "catalogue.changed"
    assert said["changed"] == {"services": ["social-housing"]}
    async with office.context.database.connection() as connection:
        first, second = await store.history(connection, "services", "social-housing")
        assert (await service.services(connection))["social-housing"].capacity == 7
    assert (first.number, first.actor, first.document) == (1, store.RELEASE, before.document)
    assert (second.number, second.institution, second.actor, second.at) == (2, "UTGS", "ana", AT)
    assert changes.differences(second) == {"capacity": (before.document["capacity"], 7)}


async def test_the_catalogue_of_a_day_is_the_one_of_its_end_in_paraguay(office: Office) -> None:
    # Three in the morning in UTC is midnight in Paraguay.
    late = datetime(2027, 3, 6, 2, 59, tzinfo=UTC)
    await apply(office, await document(office, "services", "rehabilitation", capacity=1), at=late)
    await apply(
        office, await document(office, "services", "rehabilitation", capacity=2), at=late + timedelta(minutes=1)
    )
    await apply(office, {"services": {"electricity": None}, **await without(office, "electricity")}, at=late)

    async def capacity(day: date) -> int:
        return int((await current(office, on=day))["services"]["rehabilitation"].document["capacity"])

    shipped = code_list("services")["rehabilitation"]["capacity"]
    assert [await capacity(date(2027, 3, day)) for day in (4, 5, 6)] == [shipped, 1, 2]
    assert "electricity" in (await current(office, on=date(2027, 3, 4)))["services"]
    assert "electricity" not in (await current(office, on=date(2027, 3, 5)))["services"]


async def without(office: Office, code: str) -> dict[str, dict[str, Any]]:
    """The packages that name a service, without it."""
    found = {}
    for name, item in (await current(office))["packages"].items():
        if code in item.document["services"]:
            left = [each for each in item.document["services"] if each != code]
            found[name] = {**item.document, "services": left}
    return {"packages": found}


async def test_a_withdrawn_service_is_no_more_and_may_come_back(office: Office) -> None:
    shipped = (await current(office))["services"]["school-meals"].document
    with pytest.raises(errors.Invalid) as refused:
        await apply(office, {"services": {"school-meals": None}})
    assert "/routes/food-security/steps/4/service" in [each.pointer for each in refused.value.mistakes]
    new = {"services": {"soup": {"es": "Sopa", "institution": "MDS", "categories": [], "response_days": 3}}}
    await apply(office, new)
    await apply(office, {"services": {"soup": None}})
    async with office.context.database.connection() as connection:
        assert "soup" not in await service.services(connection)
        assert [each.document is None for each in await store.history(connection, "services", "soup")] == [False, True]
    await apply(office, new)
    async with office.context.database.connection() as connection:
        assert (await service.services(connection))["soup"].names == {"es": "Sopa", "en": "Sopa"}
    assert (await current(office))["services"]["school-meals"].document == shipped


async def test_a_change_with_one_mistake_changes_nothing(office: Office) -> None:
    message = await document(office, "services", "job-placement", capacity=1)
    message["services"]["lost"] = {"es": "x", "institution": "NADIE", "categories": [], "response_days": 1}
    before = await current(office)
    with pytest.raises(errors.Invalid) as refused:
        await apply(office, message)
    assert [each.pointer for each in refused.value.mistakes] == ["/services/lost/institution"]
    assert await current(office) == before


async def test_what_changes_nothing_is_no_revision(office: Office) -> None:
    with pytest.raises(errors.Conflict) as refused:
        await apply(office, await document(office, "services", "abrazo"))
    assert refused.value.code == "nothing-changes"


async def test_only_the_coordinator_changes_the_catalogue(office: Office) -> None:
    message = await document(office, "services", "abrazo", response_days=1)
    with pytest.raises(NotEntitled):
        await apply(office, message, actor=Actor(institution="MINNA", user="ana"))


async def test_a_change_on_this_machine_is_in_the_log(office: Office) -> None:
    message = await document(office, "services", "shelter", capacity=3)

    async def work(connection: Any, actor: Actor, at: datetime) -> dict[str, Any]:
        return await changes.change(connection, message, actor=actor, at=at)

    said = await office.governance.change_here(work)
    async with office.context.database.connection() as connection:
        found = [
            each
            for each in await recent(connection, office.context.epochs, limit=50)
            if each.envelope["type"] == "catalogue.changed"
        ]
    assert str(found[0].entry_id) == said["receipt"]["entry_id"]
    assert (found[0].detail or {})["what"]["changed"] == {"services": ["shelter"]}


async def test_a_new_release_brings_what_nobody_edited_up_to_date(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply(office, await document(office, "services", "social-insurance", response_days=12))
    lists = {name: code_list(name) for name in ("services", "programmes")}
    newer = {
        "services": {
            **lists["services"],
            "social-insurance": {**lists["services"]["social-insurance"], "response_days": 99},
            "adult-schooling": {**lists["services"]["adult-schooling"], "response_days": 99},
        }
    }
    monkeypatch.setattr(store, "code_list", lambda name: newer.get(name) or code_list(name))
    for _again in range(2):
        async with office.context.database.transaction() as connection:
            await store.load_shipped(connection)
    items = (await current(office))["services"]
    assert items["social-insurance"].document["response_days"] == 12
    assert (items["adult-schooling"].document["response_days"], items["adult-schooling"].revision) == (99, 2)


async def test_an_edit_counts_in_memory_once_what_is_held_is_old(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(office.context.database)
    held = await catalogue.items()
    assert {each.code for each in await catalogue.locations("abrazo")} == {"abrazo-villeta", "minna-asuncion"}
    assert {each.code for each in await catalogue.locations("abrazo", district="1116")} == {"abrazo-villeta"}
    assert [each.kind for each in await catalogue.packages("age-60-plus")] == ["core", "differential"]
    await apply(office, await document(office, "locations", "abrazo-villeta", phone="021 000 000"))
    assert (await catalogue.locations("abrazo"))[0].phone is None
    monkeypatch.setattr(service, "MAX_AGE_S", 0.0)
    catalogue._held = replace(catalogue._held, until=0.0)
    assert (await catalogue.locations("abrazo"))[0].phone == "021 000 000"
    changed = await catalogue.items()
    assert changed is not held
    assert await catalogue.items() is changed


@pytest.mark.parametrize(
    "statement", ["UPDATE siis.catalogue_revision SET actor = 'x'", "DELETE FROM siis.catalogue_revision"]
)
async def test_the_application_cannot_rewrite_a_revision(office: Office, statement: str) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with office.context.database.transaction() as connection:
            await connection.execute(text(statement))


async def test_what_a_database_had_before_revisions_becomes_the_first_ones(office: Office, owner: Database) -> None:
    """The statement of the migration, over rows that were shipped by an older release."""
    async with owner.transaction() as connection:
        await connection.execute(delete(catalogue_revision).where(catalogue_revision.c.code == "tekopora"))
        await connection.execute(
            text(
                "INSERT INTO siis.catalogue_revision (kind, code, number, change_id, actor, document) "
                "SELECT 'services', code, 1, '00000000-0000-7000-8000-000000000012'::uuid, 'release', "
                "document - 'programme' FROM siis.service WHERE code = 'tekopora'"
            )
        )
        await store.load_shipped(connection)
        newest = await connection.scalar(
            select(func.max(catalogue_revision.c.number)).where(catalogue_revision.c.code == "tekopora")
        )
    assert newest == 2
    assert (await current(office))["services"]["tekopora"].document["programme"] == "tekopora-mbarete"


async def test_whoever_runs_the_machine_may_change_it_too(office: Office) -> None:
    await apply(office, await document(office, "services", "first-cedula", response_days=14), actor=MACHINE)
    async with office.context.database.connection() as connection:
        assert (await service.services(connection))["first-cedula"].response_days == 14
