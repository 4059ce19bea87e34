"""Roles and compartments on a real PostgreSQL: who may give which to whom, and what the policy reads of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from integration.governed import AT, MACHINE, hold, migrated, new_institution, opened
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from consent import roles
from consent.errors import NotEntitled, NotInForce, RoleRefused
from consent.models import Actor, Assignment
from consent.tables import role_assignment
from gateway.database import Database
from schemas.codes import code_list
from schemas.errors import UnknownCode
from schemas.ids import uuid7

LATER = AT + timedelta(days=1)
GRANTED = [role for role, spec in code_list("roles").items() if spec.get("granted_by")]
Change = Callable[[AsyncConnection], Awaitable[dict[str, Any]]]
_WAITING = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
READING = {"audit.read", "decision.explain", "notice.read", "status.query", "referral.read"}


@pytest.fixture(scope="module")
def url(folders: Callable[[str], Path]) -> Iterator[str]:
    with migrated(folders("roles")) as address:
        yield address


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with opened(url) as made:
        yield made


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[AsyncConnection]:
    async with database.transaction() as made:
        yield made


@pytest.fixture
def here() -> str:
    return new_institution()


async def grant(
    conn: AsyncConnection, actor: Actor, institution: str, user: str, role: str, **changes: Any
) -> dict[str, Any]:
    usual: dict[str, Any] = {"institution": institution, "user": user, "role": role, "valid_to": None, "at": AT}
    return await roles.grant_role(conn, actor, **usual | changes)


async def held(conn: AsyncConnection, institution: str, user: str) -> tuple[Assignment, ...]:
    return (await roles.read_assignments(conn)).get((institution, user), ())


# Separation of duties


@pytest.mark.parametrize("role", GRANTED)
@pytest.mark.parametrize("granter", [*GRANTED, "operator", None])
async def test_only_a_holder_of_a_role_that_grants_it_there_gives_a_role(
    conn: AsyncConnection, here: str, granter: str | None, role: str
) -> None:
    actor = Actor(institution=here, user="ana")
    if granter in GRANTED:
        await hold(conn, here, "ana", str(granter))
    user = "client:app" if role == "intermediary" else "beto"
    if granter in code_list("roles")[role]["granted_by"]:
        said = await grant(conn, actor, here, user, role)
        assert (said["event"], said["user"], said["role"]) == ("role.granted", user, role)
        assert await held(conn, here, user) == (Assignment(role, None),)
    else:
        with pytest.raises(NotEntitled):
            await grant(conn, actor, here, user, role)
        assert await held(conn, here, user) == ()


async def test_nobody_grants_in_another_institution_and_the_machine_grants_in_any(
    conn: AsyncConnection, here: str
) -> None:
    there = new_institution()
    administrator = await hold(conn, here, "ana", "administrator")
    with pytest.raises(NotEntitled):
        await grant(conn, administrator, there, "beto", "administrator")
    assert await held(conn, there, "beto") == ()


@pytest.mark.parametrize("role", ["administrator", "emergency"])
async def test_nobody_grants_to_themselves(conn: AsyncConnection, here: str, role: str) -> None:
    granter = "data-protection-officer" if role == "emergency" else "administrator"
    actor = await hold(conn, here, "ana", granter)
    with pytest.raises(RoleRefused) as refused:
        await grant(conn, actor, here, "ana", role)
    assert refused.value.reason == "own-grant"
    # The same name elsewhere is somebody else.
    await grant(conn, MACHINE, new_institution(), "ana", role)


@pytest.mark.parametrize(("first", "second"), list(permutations(GRANTED, 2)))
async def test_roles_that_exclude_each_other_are_not_held_together_in_either_order(
    conn: AsyncConnection, here: str, first: str, second: str
) -> None:
    specs = code_list("roles")
    exclude = second in specs[first].get("excludes", ()) or first in specs[second].get("excludes", ())
    await hold(conn, here, "ana", first)
    if exclude:
        with pytest.raises(RoleRefused) as refused:
            await grant(conn, MACHINE, here, "ana", second)
        assert refused.value.reason == "excluded-role"
    else:
        await grant(conn, MACHINE, here, "ana", second)
    assert [each.role for each in await held(conn, here, "ana")] == [first, *([] if exclude else [second])]


def test_whoever_audits_holds_no_role_that_changes_anything_and_an_administrator_sees_no_data() -> None:
    specs = code_list("roles")
    assert set(specs["auditor"]["actions"]) <= READING
    for role, spec in specs.items():
        if not set(spec["actions"]) <= READING and role != "citizen":
            assert roles.exclude_each_other("auditor", role), role
            assert roles.exclude_each_other(role, "auditor"), role
    assert not {"disclosure.fetch", "audit.read", "emergency.use"} & set(specs["administrator"]["actions"])
    granting = {granter for spec in specs.values() for granter in spec.get("granted_by", ())}
    assert granting == {roles.ADMINISTRATOR, roles.OFFICER}


# What else is refused


@pytest.mark.parametrize("user", ["", "ana lópez", "a" * 65, "aña", "ana\n", "a\tb", "client:", "\x00", "ana‎"])
async def test_a_user_that_is_no_code_is_refused(conn: AsyncConnection, here: str, user: str) -> None:
    with pytest.raises(RoleRefused) as refused:
        await grant(conn, MACHINE, here, user, "administrator")
    assert refused.value.reason == "user"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"role": "operator"}, "role-not-granted"),
        ({"role": "citizen"}, "role-not-granted"),
        ({"user": "client:app"}, "system-role"),
        ({"valid_to": AT}, "valid-to"),
        ({"valid_to": AT - timedelta(seconds=1)}, "valid-to"),
    ],
)
async def test_a_grant_that_makes_no_sense_is_refused(
    conn: AsyncConnection, here: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RoleRefused) as refused:
        await grant(conn, MACHINE, here, **{"user": "ana", "role": "auditor"} | changes)
    assert refused.value.reason == reason


async def test_an_unknown_code_is_refused(conn: AsyncConnection, here: str) -> None:
    with pytest.raises(UnknownCode):
        await grant(conn, MACHINE, here, "ana", "king")
    for role, compartment in (("king", "health"), ("operator", "gossip")):
        with pytest.raises(UnknownCode):
            await roles.grant_compartment(conn, MACHINE, institution=here, role=role, compartment=compartment, at=AT)


# Time


async def test_a_role_held_is_not_given_twice_and_one_that_ended_is_given_anew(
    conn: AsyncConnection, here: str
) -> None:
    await grant(conn, MACHINE, here, "ana", "auditor", valid_to=LATER)
    with pytest.raises(RoleRefused) as refused:
        await grant(conn, MACHINE, here, "ana", "auditor", at=LATER - timedelta(seconds=1))
    assert refused.value.reason == "role-held"
    await grant(conn, MACHINE, here, "ana", "auditor", at=LATER)
    assert await held(conn, here, "ana") == (Assignment("auditor", None),)


async def test_a_grantor_whose_role_has_ended_grants_nothing(conn: AsyncConnection, here: str) -> None:
    await grant(conn, MACHINE, here, "ana", "administrator", valid_to=LATER)
    actor = Actor(institution=here, user="ana")
    await grant(conn, actor, here, "beto", "administrator", at=LATER - timedelta(seconds=1))
    with pytest.raises(NotEntitled):
        await grant(conn, actor, here, "caro", "administrator", at=LATER)


# Revocation


async def test_a_revoked_role_is_gone_for_the_policy_and_cannot_be_revoked_again(
    conn: AsyncConnection, here: str
) -> None:
    officer = await hold(conn, here, "ofi", "data-protection-officer")
    given = UUID((await grant(conn, officer, here, "beto", "emergency"))["id"])
    said = await roles.revoke_role(conn, officer, given, at=LATER)
    assert (said["event"], said["user"], said["role"]) == ("role.revoked", "beto", "emergency")
    assert await held(conn, here, "beto") == ()
    with pytest.raises(NotInForce):
        await roles.revoke_role(conn, officer, given, at=LATER)
    assert str(officer) == await conn.scalar(
        role_assignment.select().with_only_columns(role_assignment.c.revoked_by).where(role_assignment.c.id == given)
    )


async def test_what_another_institution_gave_looks_like_nothing(conn: AsyncConnection, here: str) -> None:
    other = await hold(conn, new_institution(), "eva", "administrator")
    given = UUID((await grant(conn, MACHINE, here, "beto", "administrator"))["id"])
    for assignment in (given, uuid7()):
        with pytest.raises(NotInForce):
            await roles.revoke_role(conn, other, assignment, at=AT)


async def test_who_could_not_give_a_role_does_not_take_it(conn: AsyncConnection, here: str) -> None:
    administrator = await hold(conn, here, "ana", "administrator")
    given = UUID((await grant(conn, MACHINE, here, "beto", "emergency"))["id"])
    with pytest.raises(NotEntitled):
        await roles.revoke_role(conn, administrator, given, at=AT)


async def test_a_holder_resigns_but_the_last_administrator_does_not(conn: AsyncConnection, here: str) -> None:
    first = await hold(conn, here, "ana", "administrator")
    own = (await roles.list_assignments(conn, institution=here, at=AT))[0].id
    # One who is there no more does not count as another.
    await grant(conn, MACHINE, here, "beto", "administrator", valid_to=LATER)
    with pytest.raises(RoleRefused) as refused:
        await roles.revoke_role(conn, first, own, at=LATER)
    assert refused.value.reason == "last-administrator"
    await hold(conn, here, "caro", "administrator")
    await roles.revoke_role(conn, first, own, at=LATER)
    assert await held(conn, here, "ana") == ()


async def one_after_the_other(database: Database, first: Change, second: Change) -> list[bool]:
    """Do two changes, the second while the first is not committed; say which of them were not refused."""
    done, commit = asyncio.Event(), asyncio.Event()

    async def carry_out(change: Change, *, wait: bool) -> bool:
        try:
            async with database.transaction() as conn:
                await change(conn)
                done.set()
                if wait:
                    await commit.wait()
        except RoleRefused:
            return False
        return True

    leading = asyncio.create_task(carry_out(first, wait=True))
    await asyncio.wait_for(done.wait(), 30)
    following = asyncio.create_task(carry_out(second, wait=False))
    async with database.connection() as conn:
        # Until the second is over, or waits for what the first holds.
        while not following.done() and not await conn.scalar(_WAITING):
            continue
    commit.set()
    return [await leading, await following]


async def test_two_administrators_who_resign_at_once_leave_one(database: Database, here: str) -> None:
    async with database.transaction() as conn:
        ana, beto = [await hold(conn, here, user, "administrator") for user in ("ana", "beto")]
        own = {each.user: each.id for each in await roles.list_assignments(conn, institution=here, at=AT)}
    resigning = [partial(roles.revoke_role, actor=actor, assignment=own[actor.user], at=AT) for actor in (ana, beto)]
    assert await one_after_the_other(database, *resigning) == [True, False]


async def test_roles_that_exclude_each_other_given_at_once_are_not_both_held(database: Database, here: str) -> None:
    async with database.transaction() as conn:
        ofi, ofa = [await hold(conn, here, user, "data-protection-officer") for user in ("ofi", "ofa")]
    giving = [
        partial(grant, actor=actor, institution=here, user="beto", role=role)
        for actor, role in ((ofi, "auditor"), (ofa, "emergency"))
    ]
    assert await one_after_the_other(database, *giving) == [True, False]


# Compartments


@pytest.mark.parametrize("role", [role for role in GRANTED if role != roles.OFFICER])
async def test_only_the_officer_of_the_institution_gives_and_takes_compartments(
    conn: AsyncConnection, here: str, role: str
) -> None:
    officer = await hold(conn, here, "ofi", roles.OFFICER)
    stranger = await hold(conn, new_institution(), "ofi", roles.OFFICER)
    other = await hold(conn, here, "ana", role)
    what = {"institution": here, "role": "operator", "compartment": "health"}
    for actor in (other, stranger):
        with pytest.raises(NotEntitled):
            await roles.grant_compartment(conn, actor, **what, at=AT)
    given = UUID((await roles.grant_compartment(conn, officer, **what, at=AT))["id"])
    assert (await roles.read_compartments(conn))[here, "operator"] == {"health"}
    with pytest.raises(NotEntitled):
        await roles.revoke_compartment(conn, other, given, at=AT)
    with pytest.raises(NotInForce):
        await roles.revoke_compartment(conn, stranger, given, at=AT)
    await roles.revoke_compartment(conn, officer, given, at=AT)
    assert (here, "operator") not in await roles.read_compartments(conn)
    with pytest.raises(NotInForce):
        await roles.revoke_compartment(conn, officer, given, at=AT)


@pytest.mark.parametrize(("compartment", "reason"), [("economic", "not-a-compartment"), ("health", "compartment-held")])
async def test_a_compartment_is_sensitive_and_held_once(
    conn: AsyncConnection, here: str, compartment: str, reason: str
) -> None:
    what: dict[str, Any] = {"institution": here, "role": "operator", "compartment": compartment}
    await roles.grant_compartment(conn, MACHINE, **what | {"compartment": "health"}, at=AT)
    with pytest.raises(RoleRefused) as refused:
        await roles.grant_compartment(conn, MACHINE, **what, at=AT)
    assert refused.value.reason == reason


# Lists


async def test_a_list_shows_one_institution_what_is_in_force_part_by_part(conn: AsyncConnection, here: str) -> None:
    await hold(conn, new_institution(), "eva", "administrator")
    await grant(conn, MACHINE, here, "gone", "auditor", valid_to=LATER)
    for number in range(5):
        await hold(conn, here, f"u{number}", "administrator")
        await roles.grant_compartment(
            conn,
            MACHINE,
            institution=here,
            role="operator",
            compartment=("health", "disability", "indigenous", "pregnancy", "violence")[number],
            at=AT,
        )
    users, compartments, after, behind = [], [], None, None
    while part := await roles.list_assignments(conn, institution=here, at=LATER, after=after, limit=2):
        users += [each.user for each in part]
        after = part[-1].id
    while opened_part := await roles.list_compartments(conn, institution=here, after=behind, limit=2):
        compartments += [each.compartment for each in opened_part]
        behind = opened_part[-1].id
    assert users == [f"u{number}" for number in range(5)]
    assert compartments == ["health", "disability", "indigenous", "pregnancy", "violence"]


async def test_the_application_cannot_rewrite_who_holds_what(database: Database, here: str) -> None:
    async with database.transaction() as conn:
        await hold(conn, here, "ana", "administrator")
    with pytest.raises(Exception, match="permission denied"):
        async with database.transaction() as conn:
            await conn.execute(update(role_assignment).values(user="eva"))
