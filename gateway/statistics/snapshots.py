"""Keeps funnels with the achievements of their territory, as baseline or follow-up, and finds them again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.registry.achievements import Level, Published
from gateway.statistics.definitions import VERSION
from gateway.statistics.models import Scope
from gateway.statistics.tables import statistics_snapshot
from schemas.ids import uuid7

BASELINE, FOLLOW_UP = "baseline", "follow_up"
_T = statistics_snapshot.c


async def keep(
    connection: AsyncConnection,
    *,
    kind: str,
    institution: str,
    taken_by: str,
    at: datetime,
    funnel: dict[str, Any],
    achievements: Sequence[dict[str, Any]],
) -> UUID:
    """Add a snapshot of a funnel (JSON, every count as it is) and return its id."""
    snapshot_id = uuid7()
    await connection.execute(
        insert(statistics_snapshot).values(
            id=snapshot_id,
            kind=kind,
            institution=institution,
            taken_by=taken_by,
            taken_at=at,
            definition=VERSION,
            scope=funnel["scope"],
            funnel=funnel,
            achievements=list(achievements),
        )
    )
    return snapshot_id


async def find(connection: AsyncConnection, snapshot_id: UUID, *, institution: str | None) -> dict[str, Any] | None:
    """Return a snapshot as JSON, or None; ``institution``: only one of its own."""
    query = _mine(select(statistics_snapshot).where(_T.id == snapshot_id), institution)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    return {**row.funnel, **about(row), "achievements": row.achievements}


async def listed(
    connection: AsyncConnection, *, institution: str | None, after: UUID | None, limit: int
) -> list[dict[str, Any]]:
    """Return what snapshots there are, oldest first, without their counts."""
    columns = (_T.id, _T.kind, _T.institution, _T.taken_at, _T.definition, _T.scope)
    query = _mine(select(*columns).order_by(_T.id).limit(limit), institution)
    if after is not None:
        query = query.where(_T.id > after)
    return [about(row) for row in await connection.execute(query)]


def about(row: Row[Any]) -> dict[str, Any]:
    """Return what a snapshot is, as JSON."""
    return {
        "id": str(row.id),
        "kind": row.kind,
        "institution": row.institution,
        "taken_at": row.taken_at.isoformat(),
        "definition": row.definition,
        "scope": row.scope,
    }


async def achievements_of(published: Published, scope: Scope) -> list[dict[str, Any]]:
    """Return the achievements of a scope's territory and population as last counted, small cells hidden."""
    level: Level = "district" if scope.district else "department" if scope.department else "country"
    found = await published.on()
    rows = found.part(level, department=scope.department, district=scope.district)
    return [
        {
            "category": row.category,
            "identified": row.identified,
            "applicable": row.applicable,
            "concurrent": row.concurrent,
        }
        for row in rows
        if row.population == scope.population
    ]


def _mine(query: Select[Any], institution: str | None) -> Select[Any]:
    own: ColumnElement[bool] = _T.institution == institution
    return query if institution is None else query.where(own)
