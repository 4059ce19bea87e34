"""Counts the gaps of a territory by service: how many units lack it, and of how many nobody knows; nobody is named.

A board holds no nominal access to its territory, so small counts are hidden from it, and what would tell them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.registry.suppression import hidden

_TOTAL, _PARTS = "units", ("reached", "lacking", "unknown")
_GAPS = text(
    """
    SELECT s.kind, each.key AS service, each.value ->> 'category' AS category, count(*) AS units,
        count(*) FILTER (WHERE each.value ->> 'status' = 'protected') AS reached,
        count(*) FILTER (WHERE each.value ->> 'status' = 'unprotected') AS lacking,
        count(*) FILTER (WHERE each.value ->> 'status' = 'unknown') AS unknown
    FROM siis.status AS s CROSS JOIN LATERAL jsonb_each(s.services) AS each
    WHERE s.department = :department AND (CAST(:district AS text) IS NULL OR s.district = :district)
    GROUP BY s.kind, each.key, each.value ->> 'category'
    ORDER BY s.kind, each.key, category
    """
).bindparams(bindparam("district", type_=Text))


async def gaps(connection: AsyncConnection, department: str, district: str | None) -> list[dict[str, Any]]:
    """Return one row per kind of unit, service and category; a count that may not be shown is ``None``.

    ``units`` are those to whom the service applies: ``reached``, ``lacking`` and ``unknown`` together, as the newest
    status of each has it.
    """
    found = await connection.execute(_GAPS, {"department": department, "district": district})
    rows = [dict(row._mapping) for row in found]
    counts = {(place, name): row[name] for place, row in enumerate(rows) for name in (_TOTAL, *_PARTS)}
    kept_back = hidden(counts, {(place, name): (place, _TOTAL) for place, name in counts if name != _TOTAL})
    for place, name in kept_back:
        rows[place][name] = None
    return rows
