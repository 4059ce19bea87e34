"""Who holds a role that somebody must grant, and which compartments an institution's roles hold; ``roles.yaml`` rules.

Every function works on the connection handed in and commits nothing; changes return what the log must say.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.errors import NotEntitled, NotInForce, RoleRefused
from consent.models import Actor, Assignment
from consent.tables import compartment_grant, role_assignment
from consent.transaction import instant, lock
from schemas.codes import code_list, require_code
from schemas.ids import uuid7

ADMINISTRATOR = "administrator"
OFFICER = "data-protection-officer"
EMERGENCY = "emergency"
#: Before the id of a client that holds a role itself, with nobody behind it (``Caller.holder_of_roles``).
SYSTEM_PREFIX = "client:"
_USER = re.compile(r"[\x21-\x7e]{1,64}\Z")


class HeldRole(NamedTuple):
    """A role in force; ``granted_by`` is an :class:`~consent.models.Actor` as text."""

    id: UUID
    institution: str
    user: str
    role: str
    granted_by: str
    granted_at: datetime
    valid_to: datetime | None


class HeldCompartment(NamedTuple):
    """A compartment that a role of an institution holds."""

    id: UUID
    institution: str
    role: str
    compartment: str
    granted_by: str
    granted_at: datetime


async def grant_role(
    conn: AsyncConnection,
    actor: Actor,
    *,
    institution: str,
    user: str,
    role: str,
    valid_to: datetime | None,
    at: datetime,
) -> dict[str, Any]:
    """Give somebody of an institution a role, until ``valid_to`` (excluded) or until it is revoked.

    Whoever acts must hold, now and there, a role that grants this one; whoever runs the machine grants any. Raises
    :class:`UnknownCode`, :class:`NotEntitled`, and :class:`RoleRefused` with ``user``, ``role-not-granted``,
    ``system-role``, ``valid-to``, ``own-grant``, ``excluded-role`` or ``role-held``.
    """
    spec = require_code("roles", role)
    if not _USER.match(user) or user == SYSTEM_PREFIX:
        raise RoleRefused("user")
    if "granted_by" not in spec:
        raise RoleRefused("role-not-granted")
    if user.startswith(SYSTEM_PREFIX) and not spec.get("acts_for_others"):
        raise RoleRefused("system-role")
    if valid_to is not None and valid_to <= at:
        raise RoleRefused("valid-to")
    # One change of an institution's roles at a time: the rules look at its other rows.
    await lock(conn, f"roles {institution}")
    await _must_hold(conn, actor, institution, spec["granted_by"], at)
    if actor.institution == institution and actor.user == user:
        raise RoleRefused("own-grant")
    held = await _held(conn, institution, user, at)
    if role in held:
        raise RoleRefused("role-held")
    if any(exclude_each_other(role, other) for other in held):
        raise RoleRefused("excluded-role")
    # An assignment that has ended by its own date must make room for the new one.
    await _end(conn, actor, _of(institution, user, role), at)
    assignment = uuid7()
    await conn.execute(
        insert(role_assignment).values(
            id=assignment,
            institution=institution,
            user=user,
            role=role,
            granted_by=str(actor),
            granted_at=at,
            valid_to=valid_to,
        )
    )
    return {
        "event": "role.granted",
        "id": str(assignment),
        "institution": institution,
        "user": user,
        "role": role,
        "valid_to": None if valid_to is None else instant(valid_to),
    }


async def revoke_role(conn: AsyncConnection, actor: Actor, assignment: UUID, *, at: datetime) -> dict[str, Any]:
    """End an assignment: by who could grant it, or by its holder, who resigns.

    An institution's last administrator cannot resign. Raises :class:`NotInForce` for an assignment that is not in
    force or not of the actor's institution, :class:`NotEntitled`, and :class:`RoleRefused` (``last-administrator``).
    """
    row = role_assignment.c
    institution = await conn.scalar(select(row.institution).where(row.id == assignment, _mine(row.institution, actor)))
    if institution is None:
        raise NotInForce(str(assignment))
    await lock(conn, f"roles {institution}")
    found = (await conn.execute(select(row.user, row.role).where(row.id == assignment, _in_force(at)))).one_or_none()
    if found is None:
        raise NotInForce(str(assignment))
    if actor.institution == institution and actor.user == found.user:
        if found.role == ADMINISTRATOR and not await _has_other(conn, institution, found.user, found.role, at):
            raise RoleRefused("last-administrator")
    else:
        await _must_hold(conn, actor, institution, code_list("roles")[found.role].get("granted_by", ()), at)
    await _end(conn, actor, row.id == assignment, at)
    return {
        "event": "role.revoked",
        "id": str(assignment),
        "institution": institution,
        "user": found.user,
        "role": found.role,
    }


async def take_role_away(
    conn: AsyncConnection, actor: Actor, *, institution: str, user: str, role: str, at: datetime
) -> UUID | None:
    """End a user's role as the consequence of something else; return the assignment ended, if there was one."""
    await lock(conn, f"roles {institution}")
    return await _end(conn, actor, _of(institution, user, role), at)


async def list_assignments(
    conn: AsyncConnection, *, institution: str | None, at: datetime, after: UUID | None = None, limit: int = 50
) -> list[HeldRole]:
    """Return the roles in force of one institution, or of all (``None``), by id, from behind ``after``."""
    row = role_assignment.c
    columns = (row.id, row.institution, row.user, row.role, row.granted_by, row.granted_at, row.valid_to)
    query = select(*columns).where(_in_force(at)).order_by(row.id).limit(limit)
    if institution is not None:
        query = query.where(row.institution == institution)
    if after is not None:
        query = query.where(row.id > after)
    return [HeldRole(*found) for found in await conn.execute(query)]


async def grant_compartment(
    conn: AsyncConnection, actor: Actor, *, institution: str, role: str, compartment: str, at: datetime
) -> dict[str, Any]:
    """Let a role of an institution see the fields of a label that is a compartment; its officer does, nobody else.

    Raises :class:`UnknownCode`, :class:`NotEntitled`, and :class:`RoleRefused` with ``not-a-compartment`` or
    ``compartment-held``.
    """
    require_code("roles", role)
    if not require_code("labels", compartment).get("compartment"):
        raise RoleRefused("not-a-compartment")
    await lock(conn, f"roles {institution}")
    await _must_hold(conn, actor, institution, (OFFICER,), at)
    row = compartment_grant.c
    same = (row.institution == institution) & (row.role == role) & (row.compartment == compartment)
    if await conn.scalar(select(exists().where(same, row.revoked_at.is_(None)))):
        raise RoleRefused("compartment-held")
    grant = uuid7()
    await conn.execute(
        insert(compartment_grant).values(
            id=grant,
            institution=institution,
            role=role,
            compartment=compartment,
            granted_by=str(actor),
            granted_at=at,
        )
    )
    named = {"institution": institution, "role": role, "compartment": compartment}
    return {"event": "compartment.granted", "id": str(grant), **named}


async def revoke_compartment(conn: AsyncConnection, actor: Actor, grant: UUID, *, at: datetime) -> dict[str, Any]:
    """Take a compartment from a role; the institution's officer does.

    Raises :class:`NotInForce` for a grant that is not in force or not of the actor's institution, :class:`NotEntitled`.
    """
    row = compartment_grant.c
    institution = await conn.scalar(select(row.institution).where(row.id == grant, _mine(row.institution, actor)))
    if institution is None:
        raise NotInForce(str(grant))
    await lock(conn, f"roles {institution}")
    await _must_hold(conn, actor, institution, (OFFICER,), at)
    ending = update(compartment_grant).where(row.id == grant, row.revoked_at.is_(None))
    ended = (
        await conn.execute(ending.values(revoked_by=str(actor), revoked_at=at).returning(row.role, row.compartment))
    ).one_or_none()
    if ended is None:
        raise NotInForce(str(grant))
    named = {"institution": institution, "role": ended.role, "compartment": ended.compartment}
    return {"event": "compartment.revoked", "id": str(grant), **named}


async def list_compartments(
    conn: AsyncConnection, *, institution: str | None, after: UUID | None = None, limit: int = 50
) -> list[HeldCompartment]:
    """Return the compartments held in one institution, or in all (``None``), by id, from behind ``after``."""
    row = compartment_grant.c
    columns = (row.id, row.institution, row.role, row.compartment, row.granted_by, row.granted_at)
    query = select(*columns).where(row.revoked_at.is_(None)).order_by(row.id).limit(limit)
    if institution is not None:
        query = query.where(row.institution == institution)
    if after is not None:
        query = query.where(row.id > after)
    return [HeldCompartment(*found) for found in await conn.execute(query)]


async def read_assignments(conn: AsyncConnection) -> dict[tuple[str, str], tuple[Assignment, ...]]:
    """Return the roles that were not revoked, by (institution, user); those that ended by their date are among them."""
    row = role_assignment.c
    query = select(row.institution, row.user, row.role, row.valid_to).where(row.revoked_at.is_(None)).order_by(row.id)
    held: defaultdict[tuple[str, str], list[Assignment]] = defaultdict(list)
    for institution, user, role, valid_to in await conn.execute(query):
        held[institution, user].append(Assignment(role, valid_to))
    return {key: tuple(each) for key, each in held.items()}


async def read_compartments(conn: AsyncConnection) -> dict[tuple[str, str], frozenset[str]]:
    """Return the compartments held, by (institution, role)."""
    row = compartment_grant.c
    query = select(row.institution, row.role, row.compartment).where(row.revoked_at.is_(None))
    held: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for institution, role, compartment in await conn.execute(query):
        held[institution, role].add(compartment)
    return {key: frozenset(each) for key, each in held.items()}


def exclude_each_other(role: str, other: str) -> bool:
    """Say whether one person may not hold both roles, whichever of the two lists says so."""
    roles = code_list("roles")
    return other in roles[role].get("excludes", ()) or role in roles[other].get("excludes", ())


async def _must_hold(
    conn: AsyncConnection, actor: Actor, institution: str, any_of: Iterable[str], at: datetime
) -> None:
    # The policy in memory may be a second old; the table, under the lock, is not.
    if actor.institution is None:
        return
    if actor.institution != institution or (await _held(conn, institution, actor.user, at)).isdisjoint(any_of):
        raise NotEntitled("no role in force allows this change")


async def _held(conn: AsyncConnection, institution: str, user: str, at: datetime) -> set[str]:
    row = role_assignment.c
    query = select(row.role).where(row.institution == institution, row.user == user, _in_force(at))
    return set(await conn.scalars(query))


async def _has_other(conn: AsyncConnection, institution: str, user: str, role: str, at: datetime) -> bool:
    row = role_assignment.c
    others = exists().where(row.institution == institution, row.user != user, row.role == role, _in_force(at))
    return bool(await conn.scalar(select(others)))


async def _end(conn: AsyncConnection, actor: Actor, which: ColumnElement[bool], at: datetime) -> UUID | None:
    row = role_assignment.c
    ending = update(role_assignment).where(which, row.revoked_at.is_(None))
    ended: UUID | None = await conn.scalar(ending.values(revoked_by=str(actor), revoked_at=at).returning(row.id))
    return ended


def _of(institution: str, user: str, role: str) -> ColumnElement[bool]:
    row = role_assignment.c
    return (row.institution == institution) & (row.user == user) & (row.role == role)


def _mine(column: ColumnElement[str], actor: Actor) -> ColumnElement[bool]:
    # Whoever runs the machine sees every institution's.
    return column == (column if actor.institution is None else actor.institution)


def _in_force(at: datetime) -> ColumnElement[bool]:
    row = role_assignment.c
    return row.revoked_at.is_(None) & or_(row.valid_to.is_(None), row.valid_to > at)
