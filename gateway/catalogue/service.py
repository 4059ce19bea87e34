"""Reads the catalogue; a new database starts with the lists shipped under ``schemas/codes``."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue import reading, store
from gateway.catalogue.models import Items, Location, Requirement, Service, ServicePackage, ServiceRoute
from gateway.catalogue.store import load_shipped
from gateway.catalogue.tables import catalogue_revision, institution, service
from gateway.database import Database

__all__ = ["MAX_AGE_S", "Catalogue", "institutions", "load_shipped", "services"]

MAX_AGE_S = 15.0
_PACKAGES = (
    select(catalogue_revision.c.code, catalogue_revision.c.document)
    .ext(distinct_on(catalogue_revision.c.code))
    .where(catalogue_revision.c.kind == "packages")
    .order_by(catalogue_revision.c.code, catalogue_revision.c.number.desc())
)


async def services(connection: AsyncConnection) -> dict[str, Service]:
    """Return the active services by code."""
    rows = (await connection.execute(select(service.c.code, service.c.document).where(service.c.active))).all()
    core: dict[str, set[str]] = {}
    for code, document in await connection.execute(_PACKAGES):
        if document is not None:
            package = reading.package(code, document)
            if package.kind == "core":
                core.setdefault(package.category, set()).update(package.services)
    found = {row.code: reading.service(row.code, row.document) for row in rows}
    return {
        code: replace(
            each, outside_core=frozenset(name for name in each.categories & core.keys() if code not in core[name])
        )
        for code, each in found.items()
    }


async def institutions(connection: AsyncConnection) -> frozenset[str]:
    """Return the codes of all institutions."""
    return frozenset((await connection.scalars(select(institution.c.code))).all())


@dataclass(frozen=True, slots=True)
class _Held:
    """What a process holds of the catalogue, and until when."""

    until: float = float("-inf")
    version: int = -1
    items: Items = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    packages: dict[str, ServicePackage] = field(default_factory=dict)
    routes: dict[str, ServiceRoute] = field(default_factory=dict)
    requirements: dict[str, Requirement] = field(default_factory=dict)
    locations: dict[str, Location] = field(default_factory=dict)


class Catalogue:
    """The catalogue in memory; an edit counts everywhere within :data:`MAX_AGE_S` seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held = _Held()
        self._reading = asyncio.Lock()

    async def services(self) -> dict[str, Service]:
        """Return the active services by code."""
        return (await self._fresh()).services

    async def packages(self, category: str | None = None) -> tuple[ServicePackage, ...]:
        """Return the packages, or those of a life-cycle category, by code."""
        found = (await self._fresh()).packages.values()
        return tuple(each for each in found if category is None or each.category == category)

    async def routes(self) -> dict[str, ServiceRoute]:
        """Return the routes of services by code."""
        return (await self._fresh()).routes

    async def requirements(self) -> dict[str, Requirement]:
        """Return what persons may have to bring, by code."""
        return (await self._fresh()).requirements

    async def locations(self, service: str | None = None, *, district: str | None = None) -> tuple[Location, ...]:
        """Return the locations, or those where a service is given, or given to a district (statistics-office code)."""
        found = (await self._fresh()).locations.values()
        return tuple(
            each
            for each in found
            if (service is None and district is None)
            or any(service in (None, one.service) and district in (None, *one.districts) for one in each.offers)
        )

    async def items(self) -> Items:
        """Return every entry as it is kept, with its revision."""
        return (await self._fresh()).items

    async def _fresh(self) -> _Held:
        if time.monotonic() < self._held.until:
            return self._held
        # Who come at the same moment wait for one reading.
        async with self._reading:
            if time.monotonic() < self._held.until:
                return self._held
            async with self._database.connection() as connection:
                current, version = await services(connection), await store.version(connection)
                items = self._held.items if version == self._held.version else await store.current(connection)
            until = time.monotonic() + MAX_AGE_S
            if items is self._held.items:
                self._held = replace(self._held, until=until, services=current)
            else:
                self._held = _held(items, until, version, current)
        return self._held


def _held(items: Items, until: float, version: int, current: dict[str, Service]) -> _Held:
    return _Held(
        until=until,
        version=version,
        items=items,
        services=current,
        packages={code: reading.package(code, each.document) for code, each in items["packages"].items()},
        routes={code: reading.route(code, each.document) for code, each in items["routes"].items()},
        requirements={code: reading.requirement(code, each.document) for code, each in items["requirements"].items()},
        locations={code: reading.location(code, each.document) for code, each in items["locations"].items()},
    )
