"""What is computed of a unit at one moment: status, place and populations together, as they are kept and compared.

A row of ``status`` is the newest computation that changed anything; those before it stand in ``status_past``, so the
status of a past day is read, never computed again (``docs/explanation/protection.md``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue.models import Service
from gateway.registry.models import Fact, PersonRef, ProtectionStatus, ServiceStatus
from gateway.registry.populations import populations
from gateway.registry.protection import community_status, household_status, person_status
from gateway.registry.status_tables import status, status_past
from gateway.registry.tables import fact
from schemas.codes import code_list

Kind = Literal["person", "household", "community"]
#: Marks in the attributes of a household or community that are populations, too; "poverty" decides of its members.
INDIGENOUS, POVERTY = "indigenous", "poverty"


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """A unit as the registry has it; ``poor``: the household is marked so. ``ended``: found to be another person."""

    id: UUID
    kind: Kind
    department: str | None
    district: str | None
    community_id: UUID | None
    attributes: Mapping[str, object]
    poor: bool
    person: PersonRef | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Computed:
    """A unit's status with where the unit was and to which populations it belonged."""

    unit: UnitRecord
    populations: tuple[str, ...]
    status: ProtectionStatus

    @property
    def row(self) -> dict[str, Any]:
        """The columns of ``status`` that are computed, the digest among them."""
        found = self.status
        services = {item.service: _service_json(item) for item in sorted(found.services, key=lambda item: item.service)}
        row: dict[str, Any] = {
            "unit": self.unit.id,
            "kind": self.unit.kind,
            "department": self.unit.department,
            "district": self.unit.district,
            "community_id": self.unit.community_id,
            "populations": list(self.populations),
            "categories": list(found.categories),
            "applicable": list(found.applicable_in),
            "concurrent": list(found.concurrent_in),
            "services": services,
            "due_on": found.due_on,
        }
        return {**row, "digest": _digest(row)}


@dataclass(frozen=True, slots=True)
class PastStatus:
    """A status as it was computed: when, for which day, and each service with the fact that counted then."""

    number: int
    at: datetime
    day: date
    because: str
    status: ProtectionStatus


def compute(unit: UnitRecord, services: Mapping[str, Service], facts: Iterable[Fact], day: date) -> Computed:
    """Return what is to be kept of a unit on a day."""
    if unit.ended:
        return Computed(unit, (), ProtectionStatus(unit.kind, None, ()))
    if unit.person is not None:
        who = unit.person
        found = person_status(who, services, facts, day)
        # The dead grow no older: they are in no category and of no population.
        dead = who.deceased_on is not None and who.deceased_on <= day
        belongs = () if dead else populations(who.sex, who.birth_date, who.attributes, poor=unit.poor, day=day)
        return Computed(unit, belongs, found)
    of = household_status if unit.kind == "household" else community_status
    marks = {INDIGENOUS: unit.attributes.get(INDIGENOUS) is True, POVERTY: unit.poor}
    return Computed(
        unit, tuple(code for code, marked in marks.items() if marked), of(unit.attributes, services, facts, day)
    )


async def status_on(connection: AsyncConnection, unit: UUID, day: date) -> PastStatus | None:
    """Return what had been computed of a unit by the end of a day in Paraguay, or None when nothing had."""
    names = ("kind", "number", "at", "day", "categories", "concurrent", "services", "due_on", "because")
    known = union_all(
        *(select(*(table.c[name] for name in names)).where(table.c.unit == unit) for table in (status, status_past))
    ).subquery()
    newest = select(known).where(known.c.day <= day).order_by(known.c.number.desc()).limit(1)
    row = (await connection.execute(newest)).one_or_none()
    if row is None:
        return None
    ids = [UUID(item["fact"]) for item in row.services.values() if item["fact"] is not None]
    columns = [fact.c[name] for name in Fact.__dataclass_fields__]
    facts = {found.id: Fact(*found) for found in await connection.execute(select(*columns).where(fact.c.id.in_(ids)))}
    return PastStatus(row.number, row.at, row.day, row.because, _status(row, facts))


def _status(row: Any, facts: Mapping[UUID, Fact]) -> ProtectionStatus:
    items = tuple(
        ServiceStatus(
            code,
            item["category"],
            item["status"],
            None if item["fact"] is None else facts.get(UUID(item["fact"])),
            item["rule"],
            core=item["core"],
        )
        for code, item in row.services.items()
    )
    by_age = (code for code in row.categories if "from_age" in code_list("life-cycle").get(code, {}))
    category = next(by_age, None) if row.kind == "person" else row.kind
    return ProtectionStatus(row.kind, category, items, tuple(row.categories), row.due_on)


def _service_json(item: ServiceStatus) -> dict[str, Any]:
    return {
        "status": item.status,
        "category": item.category,
        "core": item.core,
        "fact": None if item.fact is None else str(item.fact.id),
        "rule": item.rule,
    }


def _digest(row: Mapping[str, Any]) -> UUID:
    """Return the digest of what was found, the same in whatever order; ``mass_writing.py`` builds the same in SQL."""
    parts = (
        row["kind"],
        row["department"] or "",
        row["district"] or "",
        str(row["community_id"] or ""),
        ",".join(row["populations"]),
        ",".join(row["categories"]),
        ",".join(row["concurrent"]),
        "" if row["due_on"] is None else row["due_on"].isoformat(),
    )
    found = _md5("|".join(parts))
    for code, item in row["services"].items():
        found ^= _md5(f'"{code}":{json.dumps(item, separators=(",", ":"))}')
    return UUID(int=found)


def _md5(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest(), "little")
