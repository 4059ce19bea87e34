"""Keeps the registers taken: what is under way, what answers, and what has had its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, exists, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.intake.tables import register_file, register_row
from schemas.ids import uuid7

#: What a row's content is sealed for.
CONTENT = "register_row.content"
_ROWS_AT_ONCE = 50_000


@dataclass(slots=True)
class Current:
    """A register under way, as far as it is committed once its transaction is."""

    id: UUID
    sealed: bool
    fields: tuple[str, ...]
    adapter: str
    dataset: str
    name: str
    rows: int = 0
    rejected: int = 0
    done: int = 0
    rejects_bytes: int = 0
    reason: str | None = None


async def ended(connection: AsyncConnection, adapter: str, dataset: str, *, again: bool) -> frozenset[bytes]:
    """Return the SHA-256 of every register that was taken or refused before; with ``again`` of those in force only."""
    # One that was replaced before its end has never been in force, and may still wait.
    had = register_file.c.state == "taken" if again else register_file.c.finished_at.is_not(None)
    async with connection.begin():
        found = await connection.scalars(select(register_file.c.sha256).where(_of(adapter, dataset), had))
        return frozenset(map(bytes, found))


async def begin(
    connection: AsyncConnection,
    *,
    adapter: str,
    dataset: str,
    name: str,
    sha256: bytes,
    fields: Sequence[str],
    sealed: bool,
    at: datetime,
) -> Current:
    """Begin a register, or find it as it was left; anew where it had ended, or other fields are taken of it now."""
    values: dict[str, Any] = {
        "id": uuid7(),
        "adapter": adapter,
        "dataset": dataset,
        "name": name,
        "sha256": sha256,
        "state": "taking",
        "fields": list(fields),
        "sealed": sealed,
        "started_at": at,
    }
    async with connection.begin():
        await connection.execute(upsert(register_file).values(values).on_conflict_do_nothing())
        row = (
            await connection.execute(
                select(register_file).where(_of(adapter, dataset), register_file.c.sha256 == sha256)
            )
        ).one()
    current = Current(
        row.id,
        row.sealed,
        tuple(row.fields),
        adapter,
        dataset,
        name,
        row.rows,
        row.rejected,
        row.done,
        row.rejects_bytes,
    )
    if (row.state, current.fields, current.sealed) != ("taking", tuple(fields), sealed):
        current.fields, current.sealed = tuple(fields), sealed
        await begin_anew(connection, current)
    return current


async def begin_anew(connection: AsyncConnection, current: Current) -> None:
    """Forget all that was taken of a register."""
    await _drop_rows(connection, current.id, current.done)
    current.rows = current.rejected = current.done = current.rejects_bytes = 0
    async with connection.begin():
        await connection.execute(
            update(register_file)
            .where(register_file.c.id == current.id)
            .values(state="taking", reason=None, finished_at=None)
        )
        await note_progress(connection, current)


async def note_progress(connection: AsyncConnection, current: Current) -> None:
    """Write down how far a register is, in the caller's transaction."""
    await connection.execute(
        update(register_file)
        .where(register_file.c.id == current.id)
        .values(
            fields=list(current.fields),
            sealed=current.sealed,
            rows=current.rows,
            rejected=current.rejected,
            done=current.done,
            rejects_bytes=current.rejects_bytes,
        )
    )


async def replace(connection: AsyncConnection, current: Current, *, same_name: bool) -> int:
    """Let a register take the place of those before it, in the caller's transaction; return how many were in force.

    One that was interrupted gives way too: nobody may come back for it.
    """
    others = [_of(current.adapter, current.dataset), register_file.c.id != current.id]
    if same_name:
        others.append(register_file.c.name == current.name)
    replaced = update(register_file).where(*others).values(state="replaced")
    await connection.execute(replaced.where(register_file.c.state == "taking"))
    return int((await connection.execute(replaced.where(register_file.c.state == "taken"))).rowcount)


async def finish(connection: AsyncConnection, current: Current, state: str, at: datetime) -> None:
    """End a register, in the caller's transaction."""
    await connection.execute(
        update(register_file)
        .where(register_file.c.id == current.id)
        .values(
            state=state,
            reason=current.reason,
            name=current.name,
            rows=current.rows,
            rejected=current.rejected,
            rejects_bytes=current.rejects_bytes,
            finished_at=at,
        )
    )


async def sweep(connection: AsyncConnection, adapter: str, dataset: str) -> None:
    """Remove the rows of registers that were replaced or refused, some at a time."""
    async with connection.begin():
        left = await connection.execute(
            select(register_file.c.id, register_file.c.done).where(
                _of(adapter, dataset),
                register_file.c.state.in_(("replaced", "refused")),
                exists().where(register_row.c.file_id == register_file.c.id),
            )
        )
    for file_id, done in left.all():
        await _drop_rows(connection, file_id, done)


async def described(connection: AsyncConnection) -> list[dict[str, Any]]:
    """Tell of every register, the newest first; values are those of JSON."""
    found = await connection.execute(select(register_file).order_by(register_file.c.started_at.desc()))
    return [
        {
            "adapter": row.adapter,
            "dataset": row.dataset,
            "name": row.name,
            "sha256": row.sha256.hex(),
            "state": row.state,
            "reason": row.reason,
            "rows": row.rows,
            "rejected": row.rejected,
            "at": (row.finished_at or row.started_at).isoformat(),
        }
        for row in found
    ]


async def _drop_rows(connection: AsyncConnection, file_id: UUID, done: int) -> None:
    for upto in range(_ROWS_AT_ONCE, done + _ROWS_AT_ONCE, _ROWS_AT_ONCE):
        async with connection.begin():
            await connection.execute(
                delete(register_row).where(register_row.c.file_id == file_id, register_row.c.row <= upto)
            )


def _of(adapter: str, dataset: str) -> ColumnElement[bool]:
    return and_(register_file.c.adapter == adapter, register_file.c.dataset == dataset)
