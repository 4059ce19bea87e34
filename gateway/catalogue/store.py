"""Reads and writes the revisions of the catalogue: nothing is overwritten, so every day can be read again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue.models import KINDS, Item, Revision
from gateway.catalogue.tables import catalogue_revision, institution, service
from gateway.clock import PARAGUAY
from schemas.codes import code_list
from schemas.ids import uuid7

#: Who made a revision that came with a release of the gateway.
RELEASE = "release"
_LISTS = {"routes": "service-routes"}
_LOCK = text("SELECT pg_advisory_xact_lock(5120)")
_rows = catalogue_revision.c
# Of each entry the revision with the highest number; those with a document are the catalogue.
_NEWEST = (
    select(_rows.kind, _rows.code, _rows.number, _rows.at, _rows.institution, _rows.actor, _rows.document)
    .ext(distinct_on(_rows.kind, _rows.code))
    .order_by(_rows.kind, _rows.code, _rows.number.desc())
)

#: kind → code → document, null where an entry is withdrawn.
Documents = Mapping[str, Mapping[str, dict[str, Any] | None]]


async def current(connection: AsyncConnection, *, on: date | None = None) -> dict[str, dict[str, Item]]:
    """Return the catalogue, or as it was at the end of a day in Paraguay."""
    query = _NEWEST
    if on is not None:
        query = query.where(_rows.at < datetime.combine(on + timedelta(days=1), datetime.min.time(), PARAGUAY))
    found: dict[str, dict[str, Item]] = {kind: {} for kind in KINDS}
    for row in await connection.execute(query):
        if row.document is not None:
            found[row.kind][row.code] = Item(row.document, row.number, row.at)
    return found


async def version(connection: AsyncConnection) -> int:
    """Return how many revisions there are: none is ever taken away, so the same number is the same catalogue."""
    return (await connection.scalar(select(func.count()).select_from(catalogue_revision))) or 0


async def history(connection: AsyncConnection, kind: str, code: str) -> list[Revision]:
    """Return every revision of an entry, the oldest first."""
    query = select(catalogue_revision).where(_rows.kind == kind, _rows.code == code).order_by(_rows.number)
    found: list[Revision] = []
    for row in await connection.execute(query):
        found.append(
            Revision(
                kind=kind,
                code=code,
                number=row.number,
                change_id=str(row.change_id),
                at=row.at,
                institution=row.institution,
                actor=row.actor,
                document=row.document,
                before=found[-1].document if found else None,
            )
        )
    return found


async def lock(connection: AsyncConnection) -> None:
    """Wait until nobody else changes the catalogue, and keep everybody out until the transaction ends."""
    await connection.execute(_LOCK)


async def add(
    connection: AsyncConnection,
    documents: Documents,
    *,
    institution_code: str | None,
    actor: str,
    at: datetime | None,
) -> UUID:
    """Add a revision for each document and bring the tables of what holds now in line; returns the change's id.

    Without ``at`` it is the database's present. The lock must be held.
    """
    change = uuid7()
    numbers = select(_rows.kind, _rows.code, func.max(_rows.number).label("number")).group_by(_rows.kind, _rows.code)
    last = {(row.kind, row.code): row.number for row in await connection.execute(numbers)}
    rows = [
        {
            "kind": kind,
            "code": code,
            "number": last.get((kind, code), 0) + 1,
            "change_id": change,
            "institution": institution_code,
            "actor": actor,
            "document": document,
            **({} if at is None else {"at": at}),
        }
        for kind, changed in documents.items()
        for code, document in changed.items()
    ]
    if rows:
        await connection.execute(insert(catalogue_revision), rows)
        await _bring_in_line(connection, documents)
    return change


async def load_shipped(connection: AsyncConnection) -> None:
    """Bring the catalogue to what this release ships, marked as demonstration; what somebody edited stays as it is."""
    await lock(connection)
    newest = {(row.kind, row.code): row for row in await connection.execute(_NEWEST)}
    changed: dict[str, dict[str, dict[str, Any] | None]] = {}
    for kind in KINDS:
        for code, spec in code_list(_LISTS.get(kind, kind)).items():
            document = {**spec, "demonstration": True}
            known = newest.get((kind, code))
            ours = known is None or (known.institution is None and known.actor == RELEASE)
            if ours and (known is None or known.document != document):
                changed.setdefault(kind, {})[code] = document
    await add(connection, changed, institution_code=None, actor=RELEASE, at=None)


async def _bring_in_line(connection: AsyncConnection, documents: Documents) -> None:
    """Other tables refer to institutions and services, and the paths that must be fast read these two."""
    institutions = [
        {"code": code, "names": {"es": document["es"], "en": document.get("en", document["es"])}}
        for code, document in documents.get("institutions", {}).items()
        if document is not None
    ]
    if institutions:
        query = insert(institution)
        await connection.execute(
            query.on_conflict_do_update(index_elements=["code"], set_={"names": query.excluded.names}), institutions
        )
    given = documents.get("services", {})
    services = [
        {"code": code, "institution": document["institution"], "document": document, "active": True}
        for code, document in given.items()
        if document is not None
    ]
    if services:
        query = insert(service)
        columns = {name: query.excluded[name] for name in ("institution", "document", "active")}
        await connection.execute(query.on_conflict_do_update(index_elements=["code"], set_=columns), services)
    withdrawn = [code for code, document in given.items() if document is None]
    if withdrawn:
        await connection.execute(update(service).where(service.c.code.in_(withdrawn)).values(active=False))
