"""Reads and writes the catalogue; a new database starts with the lists shipped under ``schemas/codes``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue.models import Service
from gateway.catalogue.tables import institution, service
from schemas.codes import code_list


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
