"""Changes the catalogue: everything that is named at once or nothing, each entry as a new revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from consent.errors import NotEntitled
from consent.models import Actor
from gateway import errors
from gateway.catalogue import store
from gateway.catalogue.checks import mistakes
from gateway.catalogue.models import COORDINATOR, KINDS, Items, Revision
from gateway.catalogue.store import Documents
from schemas.canonical import canonical_json, sha256
from schemas.validation import validate

#: What a role must allow to change the catalogue.
MANAGE = "catalogue.manage"
MESSAGE = "catalogue-change"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a change would do: the entries that would be other than they are, and everything that is wrong with it."""

    changed: dict[str, dict[str, dict[str, Any] | None]]
    mistakes: list[errors.Mistake]


def plan(items: Items, message: Documents) -> Plan:
    """Compare a change with the catalogue; raises SchemaError for what is no ``catalogue-change`` message."""
    validate(MESSAGE, message)
    entries = {kind: {code: item.document for code, item in items[kind].items()} for kind in KINDS}
    changed: dict[str, dict[str, dict[str, Any] | None]] = {}
    for kind, documents in message.items():
        for code, document in documents.items():
            if entries[kind].get(code) == document:
                continue
            changed.setdefault(kind, {})[code] = document
            if document is None:
                del entries[kind][code]
            else:
                entries[kind][code] = document
    return Plan(changed, mistakes(entries))


async def change(connection: AsyncConnection, message: Documents, *, actor: Actor, at: datetime) -> dict[str, Any]:
    """Carry out a ``catalogue-change`` message and return what the log must say.

    Only the coordinator's institution changes the catalogue, or whoever runs the machine (else NotEntitled). Raises
    SchemaError, Invalid with everything that is wrong, and Conflict where nothing would change.
    """
    if actor.institution not in (None, COORDINATOR):
        raise NotEntitled
    await store.lock(connection)
    planned = plan(await store.current(connection), message)
    if planned.mistakes:
        raise errors.Invalid("bad-catalogue", planned.mistakes)
    if not planned.changed:
        raise errors.Conflict("nothing-changes")
    made = await store.add(connection, planned.changed, institution_code=actor.institution, actor=actor.user, at=at)
    return {
        "event": "catalogue.changed",
        "change": str(made),
        "changed": codes_of(planned.changed),
        "sha256": sha256(canonical_json(planned.changed)).hex(),
    }


def codes_of(changed: Mapping[str, Mapping[str, object]]) -> dict[str, list[str]]:
    """Return the codes of each kind, in order."""
    return {kind: sorted(changed[kind]) for kind in KINDS if kind in changed}


def differences(revision: Revision) -> dict[str, tuple[Any, Any]]:
    """Return what a revision changed: field → what it was and what it is since (None: not there)."""
    before, after = revision.before or {}, revision.document or {}
    return {
        name: (before.get(name), after.get(name))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    }


def revision_json(revision: Revision) -> dict[str, Any]:
    """Return a revision as answers and commands show it."""
    return {
        "revision": revision.number,
        "change": revision.change_id,
        "at": revision.at.isoformat(),
        "institution": revision.institution,
        "by": revision.actor,
        "withdrawn": revision.document is None,
        "changed": {name: {"before": old, "after": new} for name, (old, new) in differences(revision).items()},
    }
