"""Keeps the stored protection status up to date: of units of which something arrived, and of those time has changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue.models import Service
from gateway.clock import local_day
from gateway.registry.status import Computed, compute
from gateway.registry.status_tables import status
from gateway.registry.units import read_facts, read_units

#: Columns of ``status`` and ``status_past``, in the order of the tables.
COLUMNS = tuple(status.c.keys())
_NAMES = ", ".join(COLUMNS)
_REPLACED = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name != "unit")
_CURRENT = select(status.c.unit, status.c.number, status.c.digest, status.c.services).order_by(status.c.unit)
# What is replaced goes to the past in the same statement: there is no moment at which a status is in neither table.
_REPLACE = text(f"""
WITH new AS (SELECT * FROM jsonb_populate_recordset(NULL::siis.status, :rows)), past AS (
    INSERT INTO siis.status_past ({_NAMES})
    SELECT {", ".join(f"s.{name}" for name in COLUMNS)}
    FROM siis.status AS s JOIN new ON new.unit = s.unit AND new.number = s.number + 1
)
INSERT INTO siis.status ({_NAMES}) SELECT {_NAMES} FROM new ORDER BY unit
ON CONFLICT (unit) DO UPDATE SET {_REPLACED} WHERE status.number = excluded.number - 1
RETURNING unit
""").bindparams(bindparam("rows", type_=JSONB))  # noqa: S608
# Also part of the statement that makes a referral: two names that no column of it has.
GAP_SINCE = text("""
WITH known AS (
    SELECT unit, number, day, services -> :gap_of ->> 'status' AS status FROM siis.status WHERE unit = ANY(:units)
    UNION ALL
    SELECT unit, number, day, services -> :gap_of ->> 'status' FROM siis.status_past WHERE unit = ANY(:units)
)
SELECT min(day) FROM known WHERE number > (
    SELECT coalesce(max(number), 0) FROM known AS reached
    WHERE reached.unit = known.unit AND coalesce(reached.status, 'protected') = 'protected'
)
""").bindparams(bindparam("units", type_=ARRAY(PG_UUID)))


class Change(NamedTuple):
    """A unit whose stored status changed: the status of each service before and after, by service."""

    before: dict[str, str]
    after: dict[str, str]

    def of(self, service: str) -> bool:
        """Say whether the status of a service changed."""
        return self.before.get(service) != self.after.get(service)


async def arrived(
    connection: AsyncConnection,
    services: Mapping[str, Service],
    *,
    persons: Collection[UUID] = (),
    households: Collection[UUID] = (),
    communities: Collection[UUID] = (),
    at: datetime,
    because: str,
) -> dict[UUID, Change]:
    """Compute anew the status of units of which something arrived, in the transaction that wrote it.

    With a household its members are computed, with a person the household. ``because``: a code, what arrived. Returns
    what changed; a unit whose status stays the same gets no new row.
    """
    units = await read_units(connection, persons, households, communities)
    if not units:
        return {}
    facts = await read_facts(connection, units)
    day = local_day(at)
    return await _keep(
        connection, [compute(unit, services, facts.get(unit.id, ()), day) for unit in units], at, day, because
    )


async def gap_since(
    connection: AsyncConnection, person_id: UUID, household_id: UUID | None, service: str
) -> date | None:
    """Return since which day a service has been known to be missing for a person or their household, or None.

    None also when it does not apply or nothing was computed yet.
    """
    units = [unit for unit in (person_id, household_id) if unit is not None]
    found: date | None = await connection.scalar(GAP_SINCE, {"units": units, "gap_of": service})
    return found


async def _keep(
    connection: AsyncConnection, computed: Iterable[Computed], at: datetime, day: date, because: str
) -> dict[UUID, Change]:
    left = {each.unit.id: each.row for each in computed}
    changed: dict[UUID, Change] = {}
    while left:
        # Locked: the computation of everybody (mass.py) writes here, too, without locking the units.
        locking = _CURRENT.where(status.c.unit.in_(left)).with_for_update()
        current = {row.unit: row for row in await connection.execute(locking)}
        new: list[dict[str, Any]] = []
        for unit, row in left.items():
            before = current.get(unit)
            if before is None or before.digest != row["digest"]:
                number = 1 if before is None else before.number + 1
                new.append({**row, "number": number, "at": at, "day": day, "because": because})
        if not new:
            break
        written = set(await connection.scalars(_REPLACE, {"rows": [_json(row) for row in new]}))
        for unit in written:
            before = current.get(unit)
            changed[unit] = Change(
                _statuses({} if before is None else before.services), _statuses(left[unit]["services"])
            )
        # Units that nobody had computed before, and that computation did first after all: once more, after it.
        left = {row["unit"]: left[row["unit"]] for row in new if row["unit"] not in written}
    return changed


def _statuses(services: Mapping[str, Any]) -> dict[str, str]:
    return {code: item["status"] for code, item in services.items()}


def _json(row: Mapping[str, Any]) -> dict[str, Any]:
    plain = (UUID, date, datetime)
    return {name: str(value) if isinstance(value, plain) else value for name, value in row.items()}
