"""Finds the barrio or locality that somebody names, or founds it in the registry: one for all spellings of a name."""

from __future__ import annotations

import unicodedata
from uuid import UUID

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.registry.tables import community
from schemas.ids import uuid7

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 5116))")


async def found_community(connection: AsyncConnection, *, department: str, district: str, name: str) -> UUID:
    """Return the community of a name in a district (INE codes), added when nobody named it before.

    Capitals, accents and blanks do not tell two communities apart; the name stays as it was first written. Others who
    name one of the same district wait until the transaction ends.
    """
    await connection.execute(_LOCK, {"name": f"community/{district}"})
    rows = await connection.execute(
        select(community.c.id, community.c.name).where(
            community.c.department == department, community.c.district == district
        )
    )
    wanted = _folded(name)
    for row in rows:
        if _folded(row.name) == wanted:
            return UUID(str(row.id))
    community_id = uuid7()
    await connection.execute(
        insert(community).values(id=community_id, department=department, district=district, name=" ".join(name.split()))
    )
    return community_id


def _folded(name: str) -> str:
    letters = unicodedata.normalize("NFD", " ".join(name.split()).casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
