"""The chain of revisions of an object: each state frozen once, with its hash and that of the one before.

The building block asks for SHA-1, which is broken; these hashes are SHA-256 (FIPS 180-4), of the snapshot's UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.transaction import instant, lock
from gateway.standards.govstack.tables import revision
from schemas.canonical import canonical_json, sha256
from schemas.ids import uuid7

POLICY, DATA_AGREEMENT, CONSENT_RECORD = "Policy", "DataAgreement", "ConsentRecord"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One state that an object was in from an instant on: its fields, who brought it about, whose answer it is."""

    fields: dict[str, Any]
    at: datetime
    by: str | None
    individual: UUID | None = None


class Revision(NamedTuple):
    """A frozen state."""

    id: UUID
    schema_name: str
    object_id: str
    number: int
    snapshot: str
    sha256: bytes
    predecessor_sha256: bytes | None
    at: datetime
    authorised_by: str | None
    individual: UUID | None


async def freeze(
    connection: AsyncConnection, schema_name: str, object_id: str, states: Sequence[State]
) -> list[Revision]:
    """Return the revisions of an object, freezing the states that have none yet.

    ``states`` are all of them, the oldest first; those that have a revision are not looked at again.
    """
    known = await read(connection, schema_name, object_id)
    if len(known) >= len(states):
        return known
    await lock(connection, f"revision {schema_name} {object_id}")
    known = await read(connection, schema_name, object_id)
    for state in states[len(known) :]:
        known.append(await _append(connection, schema_name, object_id, known[-1] if known else None, state))
    return known


async def append(connection: AsyncConnection, schema_name: str, object_id: str, state: State) -> Revision:
    """Freeze a new state of an object that has no other store than its revisions."""
    await lock(connection, f"revision {schema_name} {object_id}")
    known = await read(connection, schema_name, object_id)
    return await _append(connection, schema_name, object_id, known[-1] if known else None, state)


async def read(connection: AsyncConnection, schema_name: str, object_id: str) -> list[Revision]:
    """Return the revisions of an object, the oldest first."""
    mine = (revision.c.schema_name == schema_name) & (revision.c.object_id == object_id)
    rows = await connection.execute(select(revision).where(mine).order_by(revision.c.number))
    return [Revision(*row) for row in rows]


async def _append(
    connection: AsyncConnection, schema_name: str, object_id: str, before: Revision | None, state: State
) -> Revision:
    snapshot = canonical_json(
        {
            "objectData": state.fields,
            "schemaName": schema_name,
            "objectId": object_id,
            "signedWithoutObjectId": False,
            "timestamp": instant(state.at),
            "authorizedByIndividual": None if state.individual is None else str(state.individual),
            "authorizedByOther": state.by,
        }
    )
    new = Revision(
        uuid7(),
        schema_name,
        object_id,
        1 if before is None else before.number + 1,
        snapshot.decode(),
        sha256(snapshot),
        None if before is None else before.sha256,
        state.at,
        state.by,
        state.individual,
    )
    await connection.execute(insert(revision).values(new._asdict()))
    return new


def revision_json(revisions: Sequence[Revision], shown: Revision | None = None) -> dict[str, Any]:
    """Return a Revision object, the newest unless another one is named; with its successor, if there is one."""
    chosen = revisions[-1] if shown is None else shown
    told = _json(chosen)
    # Numbers run from 1, so the successor stands at the place of this number.
    if chosen.number < len(revisions):
        told["successor"] = _json(revisions[chosen.number])
    return told


def _json(found: Revision) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": str(found.id),
        "schemaName": found.schema_name,
        "objectId": found.object_id,
        "signedWithoutObjectId": False,
        "serializedSnapshot": found.snapshot,
        "serializedHash": found.sha256.hex(),
        "timestamp": instant(found.at),
    }
    if found.authorised_by is not None:
        told["authorizedByOther"] = found.authorised_by
    if found.individual is not None:
        told["authorizedByIndividual"] = {"id": str(found.individual)}
    if found.predecessor_sha256 is not None:
        told["predecessorHash"] = found.predecessor_sha256.hex()
    return told
