"""What every change of this room needs: one at a time for one thing, and instants as the log writes them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection


async def lock(conn: AsyncConnection, what: str) -> None:
    """Let one transaction at a time do this, until it ends."""
    await conn.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"consent {what}", 0))))


def instant(at: datetime) -> str:
    """Return an instant as ISO 8601 in UTC; raise :class:`ValueError` for one without its offset."""
    if at.tzinfo is None:
        raise ValueError("a time needs its offset")
    return at.astimezone(UTC).isoformat()
