"""Clients come, change their keys and go; each change is all there or not there at all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from integration.identity_database import SCOPES, new_key, public_key

from gateway.database import Database
from gateway.identity import service
from gateway.identity.errors import ClientError
from gateway.identity.models import Client, ClientKey

pytest_plugins = ["integration.identity_fixtures"]

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


async def add(database: Database, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "client_id": "mds-uno",
        "name": "Sistema Ñandutí",
        "institution": "MDS",
        "scopes": SCOPES,
        "assurance": 1,
        "key": public_key(new_key()),
        "now": NOW,
    }
    async with database.transaction() as connection:
        return await service.add_client(connection, **(values | changes))


async def rotate(database: Database, key: ClientKey, grace: timedelta, now: datetime = NOW) -> dict[str, Any]:
    async with database.transaction() as connection:
        return await service.rotate_key(connection, client_id="mds-uno", key=key, grace=grace, now=now)


async def clients(database: Database) -> list[Client]:
    async with database.connection() as connection:
        return await service.list_clients(connection)


async def test_registered_client_is_read_back_as_it_was_given(identity_database: Database) -> None:
    key = public_key(new_key())
    told = await add(identity_database, key=key, assurance=3)
    assert told == {
        "client": "mds-uno",
        "institution": "MDS",
        "scopes": sorted(SCOPES),
        "assurance": 3,
        "kid": key.kid,
    }
    (client,) = await clients(identity_database)
    assert client == Client("mds-uno", "Sistema Ñandutí", "MDS", True, SCOPES, 3, (key,), NOW, None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"client_id": ""}, "id"),
        ({"client_id": "Con Mayúscula"}, "id"),
        ({"client_id": "a\u0000b"}, "id"),
        ({"client_id": "a" * 64}, "id"),
        ({"client_id": "mds\n"}, "id"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\u0000b"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"scopes": frozenset()}, "scope"),
        ({"scopes": frozenset({"todo"})}, "scope"),
        ({"assurance": 0}, "assurance"),
        ({"assurance": 4}, "assurance"),
        ({"institution": "NADIE"}, "institution"),
    ],
)
async def test_client_that_cannot_be_registered_leaves_nothing(
    identity_database: Database, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ClientError, match=f"^{reason}$"):
        await add(identity_database, **changes)
    assert await clients(identity_database) == []


async def test_second_client_of_the_same_id_is_refused(identity_database: Database) -> None:
    await add(identity_database)
    with pytest.raises(ClientError, match=r"^exists$"):
        await add(identity_database, institution="MSPBS")
    assert [client.institution for client in await clients(identity_database)] == ["MDS"]


async def test_former_key_lives_until_its_grace_ends(identity_database: Database) -> None:
    first, second = public_key(new_key()), public_key(new_key())
    await add(identity_database, key=first)
    told = await rotate(identity_database, second, timedelta(hours=24))
    assert told["former"] == [first.kid]
    (client,) = await clients(identity_database)
    before, after = NOW + timedelta(hours=23, minutes=59), NOW + timedelta(hours=24)
    assert {key.kid for key in client.usable_keys(before)} == {first.kid, second.kid}
    assert {key.kid for key in client.usable_keys(after)} == {second.kid}


async def test_later_change_never_lengthens_a_former_key(identity_database: Database) -> None:
    first, second, third = (public_key(new_key()) for _ in range(3))
    await add(identity_database, key=first)
    await rotate(identity_database, second, timedelta(hours=1))
    await rotate(identity_database, third, timedelta(hours=24))
    (client,) = await clients(identity_database)
    ends = {key.kid: key.not_after for key in client.keys}
    assert ends == {first.kid: NOW + timedelta(hours=1), second.kid: NOW + timedelta(hours=24), third.kid: None}


async def test_key_that_was_used_before_is_refused_and_changes_nothing(identity_database: Database) -> None:
    first, second = public_key(new_key()), public_key(new_key())
    await add(identity_database, key=first)
    await rotate(identity_database, second, timedelta(0))
    before = await clients(identity_database)
    for key in (first, second):
        with pytest.raises(ClientError, match=r"^key-known$"):
            await rotate(identity_database, key, timedelta(0), NOW + timedelta(hours=1))
    assert await clients(identity_database) == before


@pytest.mark.parametrize("grace", [timedelta(seconds=-1), timedelta(days=30, seconds=1)])
async def test_grace_beyond_its_bounds_is_refused(identity_database: Database, grace: timedelta) -> None:
    await add(identity_database)
    with pytest.raises(ClientError, match=r"^grace$"):
        await rotate(identity_database, public_key(new_key()), grace)


async def test_disabled_client_stays_disabled_and_takes_no_key(identity_database: Database) -> None:
    await add(identity_database)
    async with identity_database.transaction() as connection:
        assert await service.disable_client(connection, client_id="mds-uno", now=NOW) == {"client": "mds-uno"}
    (client,) = await clients(identity_database)
    assert (client.active, client.disabled_at) == (False, NOW)
    with pytest.raises(ClientError, match=r"^disabled$"):
        await rotate(identity_database, public_key(new_key()), timedelta(0))
    with pytest.raises(ClientError, match=r"^disabled$"):
        async with identity_database.transaction() as connection:
            await service.disable_client(connection, client_id="mds-uno", now=NOW)


async def test_unknown_client_is_refused(identity_database: Database) -> None:
    with pytest.raises(ClientError, match=r"^unknown$"):
        await rotate(identity_database, public_key(new_key()), timedelta(0))


async def test_assertion_is_claimed_once_and_forgotten_after_its_end(identity_database: Database) -> None:
    async def claim() -> bool:
        async with identity_database.transaction() as connection:
            return await service.claim_assertion(connection, "c", "jti", NOW)

    assert await claim()
    assert not await claim()
    async with identity_database.transaction() as connection:
        await service.purge_expired(connection, NOW)
    assert not await claim()
    async with identity_database.transaction() as connection:
        await service.purge_expired(connection, NOW + timedelta(seconds=1))
    assert await claim()


async def test_claim_of_one_assertion_by_many_at_once_is_won_by_one(identity_database: Database) -> None:
    async def claim() -> bool:
        async with identity_database.transaction() as connection:
            return await service.claim_assertion(connection, "c", "jti", NOW)

    assert sorted(await asyncio.gather(*(claim() for _ in range(12)))) == [False] * 11 + [True]
