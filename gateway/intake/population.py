"""Registers a synthetic population: persons, households and what each already receives, streamed in by COPY."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.simulator.population import SimHousehold, SimPerson
from gateway.catalogue.models import Service
from gateway.catalogue.service import services as catalogue_services
from gateway.intake.tables import population
from gateway.registry import service as registry
from gateway.registry.models import NewPerson, PersonRef, ProtectionStatus
from gateway.registry.protection import household_status, person_status
from gateway.vault import Vault
from schemas.ids import uuid7

_BATCH = 2000
_COLUMNS = {
    "household": ("id", "department", "district", "attributes"),
    "person": (
        "id",
        "household_id",
        "names",
        "birth_date",
        "sex",
        "department",
        "district",
        "deceased_on",
        "guardian_id",
        "attributes",
    ),
    "person_identifier": ("id", "person_id", "system", "value", "blind_index"),
    "fact": ("id", "person_id", "household_id", "service", "protected", "source", "instrument", "observed_on"),
}
_Rows = dict[str, list[list[Any]]]
Progress = Callable[[int], None]


class AlreadyLoaded(Exception):
    """This database already has a population of this seed, with another number of persons."""

    def __init__(self, persons: int) -> None:
        super().__init__(f"{persons} persons loaded")
        self.persons = persons


async def load(
    connection: AsyncConnection,
    vault: Vault,
    households: Iterable[SimHousehold],
    *,
    persons: int,
    seed: int,
    today: date,
    progress: Progress = lambda _done: None,
) -> bool:
    """Register a population in the caller's transaction; False when this very population is there already.

    Raises :class:`AlreadyLoaded` when the seed was loaded with another size. ``progress`` is told persons done.
    """
    await connection.execute(text("SELECT pg_advisory_xact_lock(5114)"))
    loaded = await connection.scalar(select(population.c.persons).where(population.c.seed == seed))
    if loaded == persons:
        return False
    if loaded is not None:
        raise AlreadyLoaded(loaded)
    services = await catalogue_services(connection)
    rows: _Rows = {name: [] for name in _COLUMNS}
    done = 0
    for household in households:
        _add(rows, vault, services, household, today)
        if len(rows["person"]) >= _BATCH:
            done += len(rows["person"])
            await _flush(connection, rows)
            progress(done)
    await _flush(connection, rows)
    progress(persons)
    await connection.execute(insert(population).values(seed=seed, persons=persons))
    return True


async def _flush(connection: AsyncConnection, rows: _Rows) -> None:
    for name, columns in _COLUMNS.items():
        await registry.copy_rows(connection, name, columns, rows[name])
        rows[name].clear()


def _add(rows: _Rows, vault: Vault, services: dict[str, Service], household: SimHousehold, today: date) -> None:
    household_id = uuid7()
    attributes = {"poverty": True} if household.poverty else {}
    rows["household"].append([household_id, household.department, household.district, Jsonb(attributes)])
    status = household_status(attributes, services, (), today)
    _add_facts(rows, None, household_id, status, household.services, today)
    ids = {member.number: uuid7() for member in household.members}
    for member in household.members:
        item = _person(member, ids, household_id)
        row = registry.person_row(vault, item)
        row["attributes"] = Jsonb(item.attributes)
        rows["person"].append([row[column] for column in _COLUMNS["person"]])
        for identifier in registry.identifier_rows(vault, item):
            rows["person_identifier"].append([identifier[column] for column in _COLUMNS["person_identifier"]])
        ref = PersonRef(
            item.id,
            household_id,
            item.birth_date,
            item.deceased_on,
            item.sex,
            item.department,
            item.district,
            item.attributes,
        )
        _add_facts(rows, item.id, None, person_status(ref, services, (), today), member.services, today)


def _add_facts(
    rows: _Rows,
    person_id: UUID | None,
    household_id: UUID | None,
    status: ProtectionStatus,
    received: frozenset[str],
    today: date,
) -> None:
    for item in status.services:
        rows["fact"].append(
            [uuid7(), person_id, household_id, item.service, item.service in received, "UTGS", "synthetic-form", today]
        )


def _person(member: SimPerson, ids: dict[int, UUID], household_id: UUID) -> NewPerson:
    identifiers = [(document.system, document.value) for document in member.foreign_documents]
    if member.cedula is not None:
        identifiers.insert(0, ("cedula", member.cedula))
    marks = {
        "pregnant": member.pregnant,
        "child-labour": member.child_labour,
        "severe-disability": member.disability == "severe",
        "disability": member.disability != "none",
        "indigenous": member.indigenous_community is not None,
    }
    return NewPerson(
        id=ids[member.number],
        given_names=member.given_names,
        surnames=member.surnames,
        identifiers=tuple(identifiers),
        birth_date=member.birth_date,
        sex=member.sex,
        department=member.department,
        district=member.district,
        deceased_on=member.deceased_on,
        household_id=household_id,
        guardian_id=None if member.guardian is None else ids[member.guardian],
        attributes={name: True for name, applies in marks.items() if applies},
    )
