"""What was observed of persons, households and communities, kept side by side, and the one rule that says what counts.

The rows of the registry (birth date, district, household, attributes) are the projection of what counts, written in the
transaction that adds an observation. A value that no observation speaks of stays as it was registered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Table, func, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.registry.tables import community, household, observation, person
from schemas.codes import code_list
from schemas.ids import uuid7

UnitKind = Literal["person", "household", "community"]
# In the order in which rows are locked by everybody who locks several.
_TABLES: dict[UnitKind, Table] = {"person": person, "household": household, "community": community}
_KEYS: dict[UnitKind, ColumnElement[UUID]] = {
    "community": observation.c.community_id,
    "household": observation.c.household_id,
    "person": observation.c.person_id,
}


class Unit(NamedTuple):
    """A person, household or community, by our internal id."""

    kind: UnitKind
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where observations come from: institution, instrument (code list ``instruments``), day, and the form if any."""

    source: str
    instrument: str
    observed_on: date
    form_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One value of one name, as one source saw it; ``value`` is text: ``true``, ``false``, a code, a date or an id."""

    id: UUID
    name: str
    value: str
    source: str
    instrument: str
    observed_on: date
    recorded_at: datetime
    form_id: UUID | None


class Told(NamedTuple):
    """What was observed under one name: what counts, and the others, the weightiest first."""

    counts: Observation
    others: tuple[Observation, ...]

    @property
    def contradicted(self) -> bool:
        """Whether another observation says something else."""
        return any(other.value != self.counts.value for other in self.others)


def weight(observed_on: date, instrument: str, recorded_at: datetime) -> tuple[date, int, datetime]:
    """Return what decides between two observations, or two facts about one service: the greater one counts.

    The newest day, then the rank of the instrument (one that is not listed has the lowest), then the last recorded.
    """
    return observed_on, code_list("instruments").get(instrument, {}).get("rank", 0), recorded_at


def judged(observations: Iterable[Observation]) -> dict[str, Told]:
    """Sort observations of one unit by name, and say of each name what counts."""
    by_name: defaultdict[str, list[Observation]] = defaultdict(list)
    for each in observations:
        by_name[each.name].append(each)
    told = {}
    for name, found in sorted(by_name.items()):
        found.sort(key=lambda each: (weight(each.observed_on, each.instrument, each.recorded_at), each.id))
        told[name] = Told(found[-1], tuple(reversed(found[:-1])))
    return told


async def observed(connection: AsyncConnection, unit: Unit) -> dict[str, Told]:
    """Return all that was observed of a unit, by name, contradictions included.

    Of a person this is also what was observed of everybody found to be them.
    """
    found = await _read(connection, unit.kind, [unit.id])
    return judged(found[unit.id])


async def observe(
    connection: AsyncConnection, seen: Mapping[Unit, Mapping[str, str]], origin: Origin, at: datetime
) -> int:
    """Add observations of some units, bring their rows to what counts now, and return how many were added.

    The units are locked until the transaction ends, so that two at once do not miss each other's observations.
    """
    rows = []
    became: dict[UUID, UUID] = {}
    for kind, table in _TABLES.items():
        units = {unit.id: values for unit, values in seen.items() if unit.kind == kind and values}
        if not units:
            continue
        await _lock(connection, table, units)
        if kind == "person":
            # Whoever was found to be another person since they were looked up.
            found = select(person.c.id, person.c.merged_into).where(
                person.c.id.in_(units), person.c.merged_into.is_not(None)
            )
            became = {row.id: row.merged_into for row in await connection.execute(found)}
            await _lock(connection, table, became.values())
        rows += [
            _row(kind, unit, name, value, origin, at)
            for unit, values in units.items()
            for name, value in values.items()
        ]
    if not rows:
        return 0
    await connection.execute(insert(observation), rows)
    for kind in _TABLES:
        touched: defaultdict[UUID, set[str]] = defaultdict(set)
        for unit, values in seen.items():
            if unit.kind == kind and values:
                touched[became.get(unit.id, unit.id)].update(values)
        if touched:
            await _project(connection, kind, touched)
    return len(rows)


async def project_person(connection: AsyncConnection, person_id: UUID) -> None:
    """Bring the row of a person, whom the caller has locked, to what counts now of everything observed of them."""
    found = await _read(connection, "person", [person_id])
    names = {each.name for each in found[person_id]}
    if names:
        await _project(connection, "person", {person_id: names})


def _row(kind: UnitKind, unit: UUID, name: str, value: str, origin: Origin, at: datetime) -> dict[str, Any]:
    return {
        "id": uuid7(),
        **{f"{each}_id": unit if each == kind else None for each in _TABLES},
        "name": name,
        "value": value,
        "source": origin.source,
        "instrument": origin.instrument,
        "observed_on": origin.observed_on,
        "recorded_at": at,
        "form_id": origin.form_id,
    }


async def _read(
    connection: AsyncConnection, kind: UnitKind, units: Iterable[UUID]
) -> defaultdict[UUID, list[Observation]]:
    columns = [observation.c[name] for name in Observation.__dataclass_fields__]
    asked = list(units)
    query = select(_KEYS[kind].label("unit"), *columns).where(_KEYS[kind].in_(asked))
    if kind == "person":
        of = func.coalesce(person.c.merged_into, person.c.id).label("unit")
        them = or_(person.c.id.in_(asked), person.c.merged_into.in_(asked))
        query = select(of, *columns).join(person, person.c.id == observation.c.person_id).where(them)
    found: defaultdict[UUID, list[Observation]] = defaultdict(list)
    for row in await connection.execute(query):
        found[row.unit].append(Observation(*row[1:]))
    return found


async def _lock(connection: AsyncConnection, table: Table, units: Collection[UUID]) -> None:
    if units:
        locking = select(table.c.id).where(table.c.id.in_(list(units))).order_by(table.c.id)
        await connection.execute(locking.with_for_update(key_share=True))


async def _project(connection: AsyncConnection, kind: UnitKind, units: Mapping[UUID, set[str]]) -> None:
    """Write what counts of the names touched into the rows of the units."""
    table, found = _TABLES[kind], await _read(connection, kind, units)
    for unit, names in units.items():
        told = judged(found[unit])
        columns: dict[str, Any] = {}
        attributes: dict[str, Any] = {}
        for name in sorted(names):
            value = told[name].counts.value
            project = _COLUMNS[kind].get(name)
            if project is None:
                attributes[name] = {"true": True, "false": False}.get(value, value)
            else:
                columns |= project(value)
        if attributes:
            columns["attributes"] = table.c.attributes.op("||")(literal(attributes, JSONB))
        await connection.execute(update(table).where(table.c.id == unit).values(**columns))


def _place(district: str) -> dict[str, Any]:
    # A district's code begins with its department's (INE).
    return {"department": district[:2], "district": district}


# Names that stand in a column of their own; all the others are attributes.
_COLUMNS: dict[UnitKind, dict[str, Callable[[str], dict[str, Any]]]] = {
    "person": {
        "birth_date": lambda value: {"birth_date": date.fromisoformat(value)},
        "deceased_on": lambda value: {"deceased_on": date.fromisoformat(value)},
        "sex": lambda value: {"sex": value},
        "district": _place,
        "household": lambda value: {"household_id": UUID(value)},
    },
    "household": {"district": _place, "community": lambda value: {"community_id": UUID(value)}},
    "community": {},
}
