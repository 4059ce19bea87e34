"""Reads and writes the catalogue; a new database starts with the lists shipped under ``schemas/codes``."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue.models import Service
from gateway.catalogue.tables import institution, service
from gateway.database import Database
from schemas.codes import code_list

MAX_AGE_S = 15.0


async def load_shipped(connection: AsyncConnection) -> None:
    """Insert the shipped institutions and services that the database does not have; leave edited ones alone."""
    institutions = [{"code": code, "names": names} for code, names in code_list("institutions").items()]
    await connection.execute(insert(institution).on_conflict_do_nothing(), institutions)
    services = [
        {"code": code, "institution": document["institution"], "document": document}
        for code, document in code_list("services").items()
    ]
    await connection.execute(insert(service).on_conflict_do_nothing(), services)


async def services(connection: AsyncConnection) -> dict[str, Service]:
    """Return the active services by code."""
    rows = await connection.execute(
        select(service.c.code, service.c.institution, service.c.document).where(service.c.active)
    )
    return {row.code: _service(row.code, row.institution, row.document) for row in rows}


async def institutions(connection: AsyncConnection) -> frozenset[str]:
    """Return the codes of all institutions."""
    return frozenset((await connection.scalars(select(institution.c.code))).all())


class Catalogue:
    """The services in memory; an edit counts everywhere within :data:`MAX_AGE_S` seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._services: dict[str, Service] = {}
        self._stale_at = float("-inf")

    async def services(self) -> dict[str, Service]:
        """Return the active services by code."""
        if time.monotonic() >= self._stale_at:
            async with self._database.connection() as connection:
                self._services = await services(connection)
            self._stale_at = time.monotonic() + MAX_AGE_S
        return self._services


def _service(code: str, holder: str, document: dict[str, Any]) -> Service:
    return Service(
        code=code,
        institution=holder,
        names={"es": document["es"], "en": document["en"]},
        categories=frozenset(document["categories"]),
        requires=document.get("requires"),
        from_age=document.get("from_age"),
        response_days=document["response_days"],
    )
