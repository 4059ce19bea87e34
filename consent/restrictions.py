"""Restriction in place of a deletion: the data stay, and nobody is told of them until a day.

Every function works on the connection handed in and commits nothing. Every change returns what the log must say, as a
JSON-ready dict whose ``event`` names it and whose ``subject`` is our internal id as text. Who may, is asked before.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.errors import InvalidRecord
from consent.people import PARAGUAY
from consent.tables import restriction
from consent.transaction import instant


class Restriction(NamedTuple):
    """A restriction on record; ``holder`` and ``dataset`` empty: of everybody, all; ``until`` is its last day."""

    subject: UUID
    holder: str
    dataset: str
    norm: str
    reference: str
    since: datetime
    until: date


async def restrict(
    conn: AsyncConnection,
    subject: UUID,
    *,
    norm: str,
    reference: str,
    until: date,
    at: datetime,
    holder: str = "",
    dataset: str = "",
) -> dict[str, Any]:
    """Restrict a person's data up to and with a day in Paraguay; a later day than one on record takes its place.

    ``reference`` is the order, or the request that this answers. Raises :class:`InvalidRecord` without a norm or a
    reference, or for a day that is over.
    """
    for name, given in (("norm", norm), ("reference", reference)):
        if not given:
            raise InvalidRecord(name, "missing")
    if until < at.astimezone(PARAGUAY).date():
        raise InvalidRecord("until", "not-after-start")
    row = upsert(restriction).values(
        subject=subject, holder=holder, dataset=dataset, norm=norm, reference=reference, since=at, until=until
    )
    in_force = await conn.scalar(
        row.on_conflict_do_update(
            index_elements=["subject", "holder", "dataset"],
            set_={
                "until": func.greatest(restriction.c.until, row.excluded.until),
                "norm": row.excluded.norm,
                "reference": row.excluded.reference,
            },
        ).returning(restriction.c.until)
    )
    return _said("erasure.restricted", subject, holder, dataset, norm, reference, at, until=str(in_force))


async def lift(
    conn: AsyncConnection,
    subject: UUID,
    *,
    norm: str,
    reference: str,
    at: datetime,
    holder: str | None = None,
) -> dict[str, Any]:
    """Lift the restrictions of what an institution holds (``""``: the general one; ``None``: all of them).

    ``changed`` is false where there was none. Raises :class:`InvalidRecord` without a norm or a reference.
    """
    for name, given in (("norm", norm), ("reference", reference)):
        if not given:
            raise InvalidRecord(name, "missing")
    mine: ColumnElement[bool] = restriction.c.subject == subject
    done = await conn.execute(delete(restriction).where(mine if holder is None else mine & _held(holder)))
    return _said("erasure.lifted", subject, holder, None, norm, reference, at, changed=done.rowcount > 0)


def _held(holder: str) -> ColumnElement[bool]:
    return restriction.c.holder == holder


async def list_restrictions(conn: AsyncConnection, subject: UUID | None = None) -> list[Restriction]:
    """Return the restrictions on record, of one person or of all, those that end first before the others."""
    columns = [restriction.c[name] for name in Restriction._fields]
    query = select(*columns).order_by(restriction.c.until, restriction.c.subject, restriction.c.holder)
    if subject is not None:
        query = query.where(restriction.c.subject == subject)
    return [Restriction(*row) for row in await conn.execute(query)]


def _said(
    event: str,
    subject: UUID,
    holder: str | None,
    dataset: str | None,
    norm: str,
    reference: str,
    at: datetime,
    **more: Any,
) -> dict[str, Any]:
    # The row goes when the restriction is lifted, so the log alone keeps by which order it stood.
    return {
        "event": event,
        "subject": str(subject),
        "holder": holder or None,
        "dataset": dataset or None,
        "norm": norm,
        "reference": reference,
        **more,
        "at": instant(at),
    }
