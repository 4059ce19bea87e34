"""Publishes what happened, in the transaction in which it happened: told to others if and only if it is true.

A referral's own events are published by the statement that writes them (gateway/referrals/store.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.events.tables import event
from schemas.codes import require_code
from schemas.ids import uuid7

_PUBLISH = insert(event)


async def publish(
    connection: AsyncConnection,
    *,
    type: str,
    at: datetime,
    institutions: Iterable[str],
    department: str | None = None,
    district: str | None = None,
    referral_id: UUID | None = None,
    service: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Publish an event in the caller's transaction; ``facts`` are codes and never the id of a person or household.

    ``institutions`` are those that had a part in it; of an event about a referral only its parties ever learn, and the
    coordinator. Raises UnknownCode for a type that the list ``event-types`` does not have.
    """
    require_code("event-types", type)
    row = {
        "id": uuid7(),
        "type": type,
        "at": at,
        "institutions": sorted(set(institutions)),
        "referral_id": referral_id,
        "service": service,
        "department": department,
        "district": district,
        "facts": dict(facts or {}),
    }
    await connection.execute(_PUBLISH, row)
