"""Joins persons found to be one, and parts them again: nothing that is known of either is moved or changed.

A person found to be another points to that one, never to a third; whoever reads goes from the one to the other. Only
the survivor's row is written anew, as what counts of all that is known of both, and restored from the history.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.sameness import are_parties, part, share
from gateway.catalogue.models import Service
from gateway.registry import recompute
from gateway.registry.observations import project_person
from gateway.registry.service import identifiers_of
from gateway.registry.tables import person, person_merge
from gateway.vault import Vault
from schemas.ids import uuid7

# What of a person's row another's row may fill in; a district without its department means nothing.
_SINGLE = ("birth_date", "sex", "deceased_on", "guardian_id", "household_id")
_PLACE = ("department", "district")
_KEPT = (*_SINGLE, *_PLACE, "attributes")
#: One value each per person and given by the state: two of them are two persons.
_TELLING = ("cedula", "ruc")
_UNDOING = person_merge.alias("undoing")


class NotMergeable(Exception):
    """The two cannot be merged; ``reason`` is a stable code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """That two are one person, or are not: who found it, why (code list ``merge-reasons``), and when.

    ``confirmed``: that they are one although what is known of them disagrees.
    """

    by: str
    reason: str
    at: datetime
    confirmed: bool = False


async def same_persons(connection: AsyncConnection, person_id: UUID) -> list[UUID]:
    """Return all ids of the person that an id leads to: the survivor's first, then those found to be them."""
    root = await connection.scalar(select(person.c.merged_into).where(person.c.id == person_id)) or person_id
    others = await connection.scalars(select(person.c.id).where(person.c.merged_into == root).order_by(person.c.id))
    return [root, *others]


async def merge(
    connection: AsyncConnection,
    vault: Vault,
    services: Mapping[str, Service],
    survivor: UUID,
    absorbed: UUID,
    finding: Finding,
) -> UUID:
    """Let a person be another from now on, in the caller's transaction; return the id of the merge.

    ``absorbed`` stands for themselves: nobody was found to be them. Raises :class:`NotMergeable`: ``same-person``,
    ``absorbed-survives`` (parts that first), ``different-persons`` (two cédulas, or one acts for the other or is kept
    from them), ``not-confirmed`` (birth date or sex disagree).
    """
    rows = await _locked(connection, (survivor, absorbed))
    # Whoever came first may have merged or parted them meanwhile.
    survivor = rows[survivor].merged_into or survivor
    if survivor == absorbed or rows[absorbed].merged_into is not None:
        raise NotMergeable("same-person")
    if survivor not in rows:
        rows |= await _locked(connection, (survivor,))
    theirs = await same_persons(connection, absorbed)
    if len(theirs) > 1:
        raise NotMergeable("absorbed-survives")
    group = await same_persons(connection, survivor)
    await _require_one_person(connection, vault, group, absorbed)
    mine, other = rows[survivor], rows[absorbed]
    if not finding.confirmed and (_differ(mine, other, "birth_date") or _differ(mine, other, "sex")):
        raise NotMergeable("not-confirmed")
    standing = await _standing(connection, survivor)
    merge_id = uuid7()
    await connection.execute(update(person).where(person.c.id == absorbed).values(merged_into=survivor))
    await connection.execute(
        insert(person_merge).values(
            id=merge_id,
            survivor=survivor,
            absorbed=absorbed,
            at=finding.at,
            by=finding.by,
            reason=finding.reason,
            confirmed=finding.confirmed,
            original=standing[0].original if standing else _json(mine),
            given=await share(connection, [*group, absorbed]),
        )
    )
    await _settle(connection, services, survivor, absorbed, finding.at, "merge")
    return merge_id


async def unmerge(
    connection: AsyncConnection, services: Mapping[str, Service], absorbed: UUID, finding: Finding
) -> tuple[UUID, UUID]:
    """Let somebody stand for themselves again, in the caller's transaction; return the survivor and the merge undone.

    What arrived while they were one stays with the survivor, but the results of referrals that were made for the
    other. Raises :class:`NotMergeable` (``not-merged``).
    """
    survivor = await connection.scalar(select(person.c.merged_into).where(person.c.id == absorbed))
    if survivor is None or (await _locked(connection, (absorbed, survivor)))[absorbed].merged_into != survivor:
        raise NotMergeable("not-merged")
    standing = await _standing(connection, survivor)
    undone = next(each for each in standing if each.absorbed == absorbed)
    await part(connection, absorbed, [row for each in standing for row in each.given])
    await connection.execute(update(person).where(person.c.id == absorbed).values(merged_into=None))
    await connection.execute(
        insert(person_merge).values(
            id=uuid7(),
            survivor=survivor,
            absorbed=absorbed,
            undoes=undone.id,
            at=finding.at,
            by=finding.by,
            reason=finding.reason,
            confirmed=finding.confirmed,
        )
    )
    await _settle(connection, services, survivor, absorbed, finding.at, "unmerge", undone.original)
    return survivor, undone.id


async def merges_of(connection: AsyncConnection, same: Collection[UUID]) -> Sequence[Row[Any]]:
    """Return the history of these ids, oldest first; a row with ``undoes`` says that a merge ended."""
    columns = [column for column in person_merge.c if column.name not in ("original", "given")]
    theirs = person_merge.c.survivor.in_(same) | person_merge.c.absorbed.in_(same)
    return (await connection.execute(select(*columns).where(theirs).order_by(person_merge.c.id))).all()


async def _locked(connection: AsyncConnection, persons: Collection[UUID]) -> dict[UUID, Row[Any]]:
    columns = [person.c.id, person.c.merged_into, *(person.c[name] for name in _KEPT)]
    query = select(*columns).where(person.c.id.in_(persons)).order_by(person.c.id).with_for_update(key_share=True)
    return {row.id: row for row in await connection.execute(query)}


async def _standing(connection: AsyncConnection, survivor: UUID) -> Sequence[Row[Any]]:
    """Return the merges into a person that nobody undid, oldest first."""
    undone = select(_UNDOING.c.id).where(_UNDOING.c.undoes == person_merge.c.id).exists()
    open_ = (person_merge.c.survivor == survivor) & person_merge.c.undoes.is_(None) & ~undone
    return (await connection.execute(select(person_merge).where(open_).order_by(person_merge.c.id))).all()


async def _require_one_person(connection: AsyncConnection, vault: Vault, group: Collection[UUID], other: UUID) -> None:
    for system in _TELLING:
        if len(set((await identifiers_of(connection, vault, [*group, other], system)).values())) > 1:
            raise NotMergeable("different-persons")
    if await are_parties(connection, group, [other]):
        raise NotMergeable("different-persons")


def _differ(one: Row[Any], other: Row[Any], name: str) -> bool:
    found = {getattr(one, name), getattr(other, name)} - {None}
    return len(found) > 1


async def _settle(
    connection: AsyncConnection,
    services: Mapping[str, Service],
    survivor: UUID,
    absorbed: UUID,
    at: datetime,
    because: str,
    original: Mapping[str, Any] | None = None,
) -> None:
    """Write the survivor's row as it counts now, and compute anew the status of all that this changes."""
    standing = await _standing(connection, survivor)
    base = standing[0].original if standing else original
    same = [survivor, *(each.absorbed for each in standing)]
    rows = await _locked(connection, {*same, absorbed})
    homes = {rows[each].household_id for each in (survivor, absorbed)}
    await connection.execute(
        update(person).where(person.c.id == survivor).values(_filled(base or {}, [rows[each] for each in same[1:]]))
    )
    await project_person(connection, survivor)
    if absorbed not in same:
        await project_person(connection, absorbed)
    homes.add(await connection.scalar(select(person.c.household_id).where(person.c.id == survivor)))
    await recompute.arrived(
        connection,
        services,
        persons=sorted({survivor, absorbed}),
        households=sorted(home for home in homes if home is not None),
        at=at,
        because=because,
    )


def _filled(original: Mapping[str, Any], others: Sequence[Row[Any]]) -> dict[str, Any]:
    """Return a survivor's own row, with what it does not know taken from those found to be them, in their order."""
    row = {name: _read(name, original[name]) for name in _KEPT}
    for other in others:
        for name in _SINGLE:
            row[name] = getattr(other, name) if row[name] is None else row[name]
        if row["department"] is None:
            row |= {name: getattr(other, name) for name in _PLACE}
        row["attributes"] = other.attributes | row["attributes"]
    return row


def _json(row: Row[Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value := getattr(row, name), date | UUID) else value for name in _KEPT}


def _read(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in ("birth_date", "deceased_on"):
        return date.fromisoformat(value)
    return UUID(value) if name in ("guardian_id", "household_id") else value
