"""Policies: what governs an institution's data agreements. A policy is the chain of its revisions and nothing else."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.agreements import read_histories
from gateway import errors
from gateway.standards.govstack import revisions
from gateway.standards.govstack.models import Answer, Call, object_id
from gateway.standards.govstack.revisions import POLICY, Revision, State
from gateway.standards.govstack.tables import agreement as agreement_table
from gateway.standards.govstack.tables import policy
from gateway.standards.govstack.tables import revision as revision_table
from schemas.ids import uuid7
from schemas.text import _

_FIELDS = (
    "name",
    "version",
    "url",
    "jurisdiction",
    "industrySector",
    "dataRetentionPeriodDays",
    "geographicRestriction",
    "storageLocation",
)


async def create(call: Call) -> Answer:
    """Create a policy of the caller's institution with its first revision; its id is ours."""
    policy_id = uuid7()
    await call.connection.execute(insert(policy).values(id=policy_id, institution=call.institution))
    return await _revise(call, policy_id, "consentbb.policy_created")


async def change(call: Call) -> Answer:
    """Add a revision to a policy; agreements stay under the revision they name."""
    policy_id = await _mine(call)
    return await _revise(call, policy_id, "consentbb.policy_changed")


async def _revise(call: Call, policy_id: UUID, event: str) -> Answer:
    given = call.message["policy"]
    fields = {"id": str(policy_id), **{name: given[name] for name in _FIELDS if name in given}}
    state = State(fields=fields, at=call.at, by=str(call.actor))
    added = await revisions.append(call.connection, POLICY, str(policy_id), state)
    said = {"event": event, "policy": str(policy_id), "revision": added.number, "sha256": added.sha256.hex()}
    return said, {"policy": fields, "revision": revisions.revision_json([added], added)}


async def remove(call: Call) -> Answer:
    """Delete a policy, unless an active agreement is under it; its revisions stay, and the last one says so."""
    policy_id = await _mine(call)
    if await _governs(call.connection, policy_id):
        detail = _("Un acuerdo vigente se rige por esta política.")
        raise errors.Conflict("policy-in-use", detail=detail)
    await call.connection.execute(update(policy).where(policy.c.id == policy_id).values(deleted_at=call.at))
    state = State(fields={"id": str(policy_id), "deleted": True}, at=call.at, by=str(call.actor))
    last = await revisions.append(call.connection, POLICY, str(policy_id), state)
    said = {"event": "consentbb.policy_deleted", "policy": str(policy_id), "revision": last.number}
    return said, {"revision": revisions.revision_json([last], last)}


async def show(call: Call) -> Answer:
    """Show a policy to its institution, in the revision asked for or the newest."""
    found = await revisions.read(call.connection, POLICY, str(await _mine(call)))
    return None, _told(found, _chosen(found, call.query.get("revisionId")))


async def show_governing(call: Call) -> Answer:
    """Show a policy to whoever is party to an agreement under it, or owns it."""
    policy_id = object_id(call.path["policyId"])
    known = (policy.c.id == policy_id) & policy.c.deleted_at.is_(None)
    owner = await call.connection.scalar(select(policy.c.institution).where(known))
    if owner is None:
        raise errors.NotFound("not-found")
    if owner != call.institution:
        codes = await _codes(call.connection, policy_id)
        histories = await read_histories(call.connection, codes)
        if not any(call.institution in each.parties for each in histories.values()):
            raise errors.NotFound("not-found")
    found = await revisions.read(call.connection, POLICY, str(policy_id))
    return None, _told(found, _chosen(found, call.query.get("revisionId")))


async def show_revisions(call: Call) -> Answer:
    """Show the current policy and, beyond what the OpenAPI asks, the page of its revisions."""
    found = await revisions.read(call.connection, POLICY, str(await _mine(call)))
    page = found[call.offset : call.offset + call.limit]
    listed = [revisions.revision_json(found, each) for each in page]
    return None, {"policy": policy_json(found[-1]), "revisions": listed}


async def show_all(call: Call) -> Answer:
    """List the policies of the caller's institution; with a revision's id, the one policy in that revision."""
    mine = (policy.c.institution == call.institution) & policy.c.deleted_at.is_(None)
    wanted = call.query.get("revisionId")
    if wanted is not None:
        row = select(revision_table.c.object_id).where(
            revision_table.c.id == object_id(wanted), revision_table.c.schema_name == POLICY
        )
        named = await call.connection.scalar(row)
        if named is None:
            raise errors.NotFound("not-found")
        mine &= policy.c.id == UUID(named)
    query = select(policy.c.id).where(mine).order_by(policy.c.id).offset(call.offset).limit(call.limit)
    told = []
    for policy_id in list(await call.connection.scalars(query)):
        found = await revisions.read(call.connection, POLICY, str(policy_id))
        told.append(policy_json(_chosen(found, wanted)))
    return None, {"policies": told}


async def latest(connection: AsyncConnection, institution: str, policy_id: UUID) -> Revision:
    """Return the newest revision of a policy of an institution; raises NotFound."""
    mine = (policy.c.id == policy_id) & (policy.c.institution == institution) & policy.c.deleted_at.is_(None)
    if await connection.scalar(select(policy.c.id).where(mine)) is None:
        raise errors.NotFound("not-found")
    return (await revisions.read(connection, POLICY, str(policy_id)))[-1]


def policy_json(found: Revision) -> dict[str, Any]:
    """Return the Policy as a revision froze it."""
    fields: dict[str, Any] = json.loads(found.snapshot)["objectData"]
    return fields


def _told(found: list[Revision], chosen: Revision) -> dict[str, Any]:
    return {"policy": policy_json(chosen), "revision": revisions.revision_json(found, chosen)}


def _chosen(found: list[Revision], wanted: str | None) -> Revision:
    if wanted is None:
        return found[-1]
    revision_id = object_id(wanted)
    chosen = next((each for each in found if each.id == revision_id), None)
    if chosen is None:
        raise errors.NotFound("not-found")
    return chosen


async def _mine(call: Call) -> UUID:
    policy_id = object_id(call.path["policyId"])
    mine = (policy.c.id == policy_id) & (policy.c.institution == call.institution) & policy.c.deleted_at.is_(None)
    if await call.connection.scalar(select(policy.c.id).where(mine).with_for_update()) is None:
        raise errors.NotFound("not-found")
    return policy_id


async def _codes(connection: AsyncConnection, policy_id: UUID) -> list[str]:
    """Return the agreements whose newest words put them under a policy."""
    mine = revision_table.c.schema_name == POLICY
    newest = (
        select(agreement_table.c.code, agreement_table.c.policy_revision)
        .ext(distinct_on(agreement_table.c.code))
        .order_by(agreement_table.c.code, agreement_table.c.id.desc())
        .subquery()
    )
    query = (
        select(newest.c.code)
        .join(revision_table, revision_table.c.id == newest.c.policy_revision)
        .where(mine, revision_table.c.object_id == str(policy_id))
    )
    return list(await connection.scalars(query))


async def _governs(connection: AsyncConnection, policy_id: UUID) -> bool:
    histories = await read_histories(connection, await _codes(connection, policy_id))
    standing = [each.in_force for each in histories.values()]
    return any(each is not None and each.agreement.status == "active" for each in standing)
